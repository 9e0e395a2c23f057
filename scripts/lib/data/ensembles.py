"""Several rewards of a response as one: each is standardised over the run, then they are weighted.

Responses are compared within their prompt, as pairs are made: a reward's unit is how much its
scores differ within a prompt. One whose scores differ mostly between prompts would otherwise say
less of the pairs than its weight.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from lib.data.rows import RankedResponse, RewardPart

#: What a response has before it is rated, and of whatever reward.
OF_RESPONSE = ("text", "finish_reason")


class Standard(TypedDict):
    """What a reward's scores are standardised by: their mean over all responses, and their standard
    deviation within a prompt (pooled over prompts; 0 where they do not differ there).
    """

    mean: float
    deviation: float


def scores_in(responses: Mapping[str, RankedResponse]) -> list[float]:
    """The scores of a prompt's valid responses."""
    return [each["score"] for each in responses.values() if "score" in each]


def standard_of(prompts: Iterable[Sequence[float]]) -> Standard:
    """What to standardise scores by. `prompts`: the scores of each prompt's valid responses.

    Both numbers are rounded, the deviation to two digits and the mean to a tenth of it: one prompt
    edited among thousands then leaves them, and with them all other pairs, as they are. Sums are
    exact, so that their order means nothing.
    """
    groups = [list(group) for group in prompts if group]
    scores = [score for group in groups for score in group]
    freedom = len(scores) - len(groups)
    squares = math.fsum((score - _mean(group)) ** 2 for group in groups for score in group)
    deviation = float(f"{math.sqrt(squares / freedom):.1e}") if freedom else 0.0
    mean = _mean(scores) if scores else 0.0
    step = deviation / 10
    rounded = round(mean / step) * step if step else mean
    return {"mean": float(f"{rounded:.6g}"), "deviation": deviation}


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


def combined(
    rated: Mapping[str, RankedResponse],
    standards: Mapping[str, Standard],
    weights: Mapping[str, float],
) -> RankedResponse:
    """One response with the rewards that rated it, by their names, as one reward. It is invalid
    where it is to any of them: without one of its scores it could not be held against others.
    """
    invalid = {name: each for name, each in rated.items() if "invalid" in each}
    if invalid:
        name, first = next(iter(invalid.items()))
        of_all = len(invalid) == len(rated)
        return first if of_all else {**first, "detail": f"of reward {name}"}
    whole = math.fsum(weights.values())
    parts = {
        name: part_of(each, standards[name], weights[name] / whole) for name, each in rated.items()
    }
    score = math.fsum(part["weight"] * part["standardised"] for part in parts.values())
    variance = math.fsum(
        part["weight"] * (part["standardised"] - score) ** 2 for part in parts.values()
    )
    response = next(iter(rated.values()))
    return {
        "text": response["text"],
        "finish_reason": response["finish_reason"],
        "score": score,
        "spread": math.sqrt(variance),
        "attributes": {name: part["score"] for name, part in parts.items()},
        "parts": parts,
    }


def part_of(response: RankedResponse, standard: Standard, weight: float) -> RewardPart:
    """What one reward says of a response. A reward that never tells a prompt's responses apart says
    nothing of pairs: its standardised score is 0.
    """
    score, deviation = response["score"], standard["deviation"]
    details = {
        name: value for name, value in response.items() if name not in (*OF_RESPONSE, "score")
    }
    return {
        "score": score,
        "standardised": (score - standard["mean"]) / deviation if deviation else 0.0,
        "weight": weight,
        "details": details,
    }


def disagreement(chosen: RankedResponse, rejected: RankedResponse) -> float | None:
    """The share of the rewards, by weight, that would have it the other way round; None where one
    reward ranks alone. Equal scores are no disagreement.
    """
    if "parts" not in chosen or "parts" not in rejected:
        return None
    others = rejected["parts"]
    return math.fsum(
        part["weight"]
        for name, part in chosen["parts"].items()
        if part["standardised"] < others[name]["standardised"]
    )
