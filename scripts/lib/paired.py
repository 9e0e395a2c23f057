"""A trained model against the base model on the same questions: what got better, what worse, and
whether that is more than chance.

Yes-or-no scores are tested exactly (McNemar): of the questions on which one model is right and the
other wrong, each would be as likely the one as the other. All other scores get a bootstrap interval
of the mean difference, in which the questions of a picture are drawn together.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from lib.bootstrap import Floats, intervals
from lib.files import read_jsonl

SAMPLES = 2000
#: What is no chance any more.
LEVEL = 0.05
#: The file of a model's scores by question, beside its answers to the benchmark.
BY_QUESTION = "by_question.jsonl"


@dataclass(frozen=True)
class ScoredAnswer:
    """A model's answer to a question.

    score    larger is better
    picture  what the question is about, as far as it is known: a name by which questions are
             grouped
    row      of lmms-eval's tasks, the number of its row in the data
    """

    question: str
    text: str
    score: float
    picture: str = ""
    target: str = field(default="", compare=False)
    row: int | None = field(default=None, compare=False)


class Change(TypedDict):
    """A question whose score changed."""

    id: str
    question: str
    target: str
    before: str
    after: str
    difference: float
    picture: str
    row: int | None


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
    from scipy.special import bdtr  # `scipy.stats`, which has the test itself, loads for seconds

    return min(1.0, 2 * float(bdtr(min(better, worse), better + worse, 0.5)))


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
            "row": base[name].row,
        }
        for name in base
        if name in trained and trained[name].score != base[name].score
    ]
    return sorted(found, key=lambda each: -abs(each["difference"]))


def read_scores(path: Path) -> dict[str, ScoredAnswer]:
    """The scores of a by_question.jsonl by its questions' ids, without question and answer."""
    return {
        row["id"]: ScoredAnswer("", "", row["score"], row["picture"], row["target"])
        for row in read_jsonl(path)
    }


def read_answers(folder: Path) -> dict[str, ScoredAnswer]:
    """The scored answers of a model's folder of a benchmark; nothing where there are none."""
    path, answers = folder / BY_QUESTION, folder / "answers.jsonl"
    if not path.is_file() or not answers.is_file():
        return {}
    rows, scores = read_jsonl(answers), read_jsonl(path)
    said = {score["id"]: rows[score["line"] - 1] for score in scores}
    return {
        name: replace(
            scored,
            question=said[name]["question"],
            text=said[name]["response"],
            row=said[name]["id"] if isinstance(said[name]["id"], int) else None,
        )
        for name, scored in read_scores(path).items()
    }


def is_clear(found: Comparison) -> bool:
    """Whether the difference is more than chance would make of it in 19 of 20 cases."""
    if "p" in found:
        return found["p"] < LEVEL
    return found["low"] > 0 or found["high"] < 0


def say_comparison(found: Comparison) -> str:
    """A comparison in words."""
    tested = (
        f"p = {found['p']:.2g} (McNemar, exact)"
        if "p" in found
        else f"95 % interval {found['low']:+.3g} to {found['high']:+.3g} (bootstrap)"
    )
    return (
        f"{found['better']} of {found['questions']} questions better, {found['worse']} worse;"
        f" mean difference {found['difference']:+.3g}, {tested}"
    )
