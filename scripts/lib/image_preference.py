"""Which of two images of a prompt a judge prefers (paper, supplementary A, Table 5: ImageReward's
picks against CLIP's).

Judges favour a position, so every pair is asked in both orders. An image wins if it is preferred
both times; a tie is what the judge calls a tie twice, or any two verdicts that disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from lib.judge import Judge, Judgement, JudgeQuestion, fill

Verdict = Literal["first", "second", "tie"]
MAX_TOKENS = 16
#: In our own words; the paper does not print its prompt.
PROMPT = """\
You see two images, the first and the second, that were made for this caption:

{caption}

Which image shows better what the caption says? Judge by how well it fits the \
caption, then by its quality (broken hands, faces and objects are faults). \
Reply with one word: "first", "second", or "tie" if neither is better."""


@dataclass(frozen=True)
class ImagePair:
    """Two images of one caption. An image compared with itself is a tie that nobody is asked
    about.
    """

    id: str
    caption: str
    first: Path
    second: Path


@dataclass(frozen=True)
class Comparison:
    """What became of a pair: its verdict, or why there is none; and the two raw replies, in the
    order asked.
    """

    verdict: Verdict | None
    reason: str | None
    replies: tuple[str | None, str | None]


def read_verdict(reply: str) -> Verdict:
    """A one-word reply. Errors: ValueError for anything else."""
    word = reply.strip().strip("\"'.!*`").lower()
    if word == "first":
        return "first"
    if word == "second":
        return "second"
    if word == "tie":
        return "tie"
    raise ValueError(f'not "first", "second" or "tie": {reply.strip()[:80]!r}')


class VerdictCounts(TypedDict):
    """How often the first image of a pair wins and loses, and of the ties; and the paper's rates of
    these, in percent: wins and losses of the comparisons without ties, ties of all. Comparisons
    without a verdict are counted and belong to no rate.
    """

    wins: int
    losses: int
    ties: int
    without_verdict: int
    win_rate: NotRequired[float]
    loss_rate: NotRequired[float]
    tie_rate: NotRequired[float]


class PromptCounts(TypedDict):
    """How many prompts both scorers ranked, and of how many they pick the same image."""

    ranked_by_both: int
    same_pick: int
    different_picks: int


class PicksSummary(VerdictCounts):
    """What rule compare_picks publishes of all comparisons of two scorers' picks.

    compared  the scorers' names; wins are of the first one. A list, since files keep the keys of
              objects sorted
    scorers   which model each is (lib/report/sidecar.py)
    """

    compared: list[str]
    scorers: dict[str, Any]
    judge: str
    question: str
    seed: int
    prompts: PromptCounts
    comparisons: int


def compare(pairs: Sequence[ImagePair], judge: Judge) -> dict[str, Comparison]:
    """The comparison of every pair by id. Errors: UserError as in `Judge.ask`."""
    questions = []
    for pair in pairs:
        if pair.first != pair.second:
            text = fill(PROMPT, caption=pair.caption)
            questions += [
                JudgeQuestion(f"{pair.id}#in order", text, (pair.first, pair.second)),
                JudgeQuestion(f"{pair.id}#swapped", text, (pair.second, pair.first)),
            ]
    judged = judge.ask(questions, read_verdict, max_tokens=MAX_TOKENS)
    return {
        pair.id: (
            _combined(judged[f"{pair.id}#in order"], judged[f"{pair.id}#swapped"])
            if pair.first != pair.second
            else Comparison("tie", None, (None, None))
        )
        for pair in pairs
    }


def _combined(in_order: Judgement[Verdict], swapped: Judgement[Verdict]) -> Comparison:
    replies = (in_order.text, swapped.text)
    reason = in_order.reason or swapped.reason
    if in_order.value is None or swapped.value is None:
        return Comparison(None, reason, replies)
    back: Mapping[Verdict, Verdict] = {"first": "second", "second": "first", "tie": "tie"}
    agreed = in_order.value == back[swapped.value]
    return Comparison(in_order.value if agreed else "tie", None, replies)


def count_verdicts(comparisons: Sequence[Comparison]) -> VerdictCounts:
    """The verdicts, counted."""
    verdicts = [comparison.verdict for comparison in comparisons if comparison.verdict]
    wins, losses, ties = (verdicts.count(verdict) for verdict in ("first", "second", "tie"))
    counts: VerdictCounts = {
        "wins": wins,
        "losses": losses,
        "ties": ties,
        "without_verdict": len(comparisons) - len(verdicts),
    }
    if wins + losses:
        counts["win_rate"] = 100 * wins / (wins + losses)
        counts["loss_rate"] = 100 * losses / (wins + losses)
    if verdicts:
        counts["tie_rate"] = 100 * ties / len(verdicts)
    return counts
