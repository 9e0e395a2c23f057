"""How a reward goes with the length of what is rewarded. Judges are known to like long answers,
whatever they say.

A length is the number of a response's characters. Responses are compared within their prompt, as
pairs are made: that some prompts have longer answers, and higher rewards, than others says nothing
of the judge.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lib.data.rows import RankedResponse


@dataclass(frozen=True)
class Rewarded:
    """One response: the logarithm of its length, and a score."""

    log_length: float
    score: float


@dataclass(frozen=True)
class LengthFit:
    """A score against log length; None where lengths or scores do not differ.

    prompts         with two responses or more
    responses       of these
    slope           what the score gains as log length grows by 1, within a prompt (least squares
                    with an intercept for each prompt)
    correlation     of all responses
    within          of the differences to the prompt's mean
    best_is_longer  share of the prompts whose best response is longer than its worst, of those
                    where they are not of one length or one score
    """

    prompts: int
    responses: int
    slope: float | None
    correlation: float | None
    within: float | None
    best_is_longer: float | None


def log_length(text: str) -> float:
    """The logarithm of a text's length, which is not 0."""
    return math.log(len(text))


def rewarded(responses: Mapping[str, RankedResponse]) -> dict[str, list[Rewarded]]:
    """The valid responses of a prompt by what they are scored with: "reward", and each attribute
    that the reward model gives.
    """
    found: dict[str, list[Rewarded]] = {}
    for response in responses.values():
        if "score" in response and "invalid" not in response:
            length = log_length(response["text"])
            scores = {"reward": response["score"], **response.get("attributes", {})}
            for name, score in scores.items():
                found.setdefault(name, []).append(Rewarded(length, score))
    return found


def fit(prompts: Iterable[Sequence[Rewarded]]) -> LengthFit:
    """A score against log length, over the responses of prompts. Sums are exact, so that their
    order means nothing.
    """
    groups = [list(group) for group in prompts if len(group) > 1]
    everything = [each for group in groups for each in group]
    apart = [each for group in groups for each in _centred(group)]
    longer = [
        best.log_length > worst.log_length
        for best, worst in map(_best_and_worst, groups)
        if best.score != worst.score and best.log_length != worst.log_length
    ]
    return LengthFit(
        prompts=len(groups),
        responses=len(everything),
        slope=_slope(apart),
        correlation=_correlation(_centred(everything)),
        within=_correlation(apart),
        best_is_longer=sum(longer) / len(longer) if longer else None,
    )


def _centred(group: Sequence[Rewarded]) -> list[Rewarded]:
    """Differences to the mean."""
    if not group:
        return []
    length = math.fsum(each.log_length for each in group) / len(group)
    score = math.fsum(each.score for each in group) / len(group)
    return [Rewarded(each.log_length - length, each.score - score) for each in group]


def _best_and_worst(group: Sequence[Rewarded]) -> tuple[Rewarded, Rewarded]:
    return max(group, key=_score_of), min(group, key=_score_of)


def _score_of(response: Rewarded) -> float:
    return response.score


def _sums(differences: Sequence[Rewarded]) -> tuple[float, float, float]:
    """Sums of squares and products: of lengths, of scores, of both."""
    return (
        math.fsum(each.log_length**2 for each in differences),
        math.fsum(each.score**2 for each in differences),
        math.fsum(each.log_length * each.score for each in differences),
    )


def _slope(differences: Sequence[Rewarded]) -> float | None:
    lengths, _, both = _sums(differences)
    return both / lengths if lengths else None


def _correlation(differences: Sequence[Rewarded]) -> float | None:
    lengths, scores, both = _sums(differences)
    return both / math.sqrt(lengths * scores) if lengths and scores else None
