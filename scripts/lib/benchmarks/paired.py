"""A trained model against the base model on the same questions: what got better, what worse, and
whether that is more than chance.

Yes-or-no scores are tested exactly (McNemar): of the questions on which one model is right and the
other wrong, each would be as likely the one as the other. All other scores get a bootstrap interval
of the mean difference, in which the questions of a picture are drawn together.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import numpy as np

from lib.benchmarks.bootstrap import Floats, intervals

SAMPLES = 2000


@dataclass(frozen=True)
class ScoredAnswer:
    """A model's answer to a question.

    score    larger is better
    picture  what the question is about, as far as it is known: a name by which questions are
             grouped
    """

    question: str
    text: str
    score: float
    picture: str = ""
    target: str = field(default="", compare=False)


class Change(TypedDict):
    """A question whose score changed."""

    id: str
    question: str
    target: str
    before: str
    after: str
    difference: float
    picture: str


class Comparison(TypedDict):
    """Base against trained.

    questions    that both models answered
    better       how many got better; `worse`: how many got worse
    difference   of the mean scores, trained less base
    p            of McNemar's exact test, both sides, for scores of 0 and 1
    low, high    the 95 % bootstrap interval of `difference`, for all others
    """

    questions: int
    better: int
    worse: int
    difference: float
    p: NotRequired[float]
    low: NotRequired[float]
    high: NotRequired[float]


def mcnemar(better: int, worse: int) -> float:
    """The p of McNemar's exact test, both sides; 1 where nothing changed."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def bootstrap_difference(
    before: Mapping[str, ScoredAnswer], after: Mapping[str, ScoredAnswer], seed: int
) -> tuple[float, float]:
    """The 95 % interval of the mean difference; questions of a picture are drawn together. Both
    have the same ids.
    """
    by_picture: dict[str, list[float]] = defaultdict(list)
    for name, answer in after.items():
        by_picture[answer.picture or name].append(answer.score - before[name].score)
    units = np.array([[sum(each), len(each)] for each in by_picture.values()], dtype=np.float64)

    def mean(groups: Sequence[Floats]) -> dict[str, Floats]:
        (sums,) = groups
        return {"difference": sums[:, 0] / sums[:, 1]}

    return intervals([units], mean, samples=SAMPLES, seed=seed)["difference"]


def compare(
    base: Mapping[str, ScoredAnswer], trained: Mapping[str, ScoredAnswer], seed: int
) -> Comparison | None:
    """The comparison on the questions that both answered; None where there is none."""
    names = [name for name in base if name in trained]
    if not names:
        return None
    before, after = ({name: each[name] for name in names} for each in (base, trained))
    differences = [after[name].score - before[name].score for name in names]
    found: Comparison = {
        "questions": len(names),
        "better": sum(each > 0 for each in differences),
        "worse": sum(each < 0 for each in differences),
        "difference": sum(differences) / len(names),
    }
    scores = {each.score for each in (*before.values(), *after.values())}
    if scores <= {0.0, 1.0}:
        found["p"] = mcnemar(found["better"], found["worse"])
    else:
        found["low"], found["high"] = bootstrap_difference(before, after, seed)
    return found


def changes(base: Mapping[str, ScoredAnswer], trained: Mapping[str, ScoredAnswer]) -> list[Change]:
    """The questions whose scores changed, those that changed most first."""
    found: list[Change] = [
        {
            "id": name,
            "question": base[name].question,
            "target": base[name].target,
            "before": base[name].text,
            "after": trained[name].text,
            "difference": trained[name].score - base[name].score,
            "picture": base[name].picture,
        }
        for name in base
        if name in trained and trained[name].score != base[name].score
    ]
    return sorted(found, key=lambda each: -abs(each["difference"]))


def answers_of_task(rows: Sequence[Mapping[str, Any]]) -> dict[str, ScoredAnswer]:
    """lmms-eval's answers (`TaskAnswer`) whose scores are numbers, by their ids."""
    return {
        str(row["id"]): ScoredAnswer(
            question=row["question"],
            text=row["response"],
            score=float(row["score"]),
            target=str(row["target"]),
        )
        for row in rows
        if isinstance(row.get("score"), int | float) and isinstance(row.get("response"), str)
    }
