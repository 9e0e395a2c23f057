"""Whether length alone tells chosen from rejected: then a model may learn to be long, no more."""

from dataclasses import dataclass
from math import sqrt
from typing import TypedDict

from lib.data.pair_forms.base import PreferencePair

#: A rule that looks at lengths only wins where it is right in more pairs than this, surely.
ALLOWED = 0.7
_Z = 1.959964  # of a normal distribution, for 95 %


class LengthReport(TypedDict):
    """What lengths in words say.

    chosen, rejected  their means
    effect_size       the mean difference over its standard deviation (Cohen's d of pairs)
    rule              which rule is the better one: "longer" or "shorter" wins
    right             in what share of pairs it is right, ties counting half
    interval          its 95 % interval (Wilson)
    """

    chosen: float
    rejected: float
    effect_size: float
    rule: str
    right: float
    interval: tuple[float, float]


@dataclass
class Lengths:
    """The lengths of answers, as pairs come by."""

    pairs: int = 0
    chosen: int = 0
    rejected: int = 0
    squares: int = 0
    longer: int = 0
    ties: int = 0

    def add(self, pair: PreferencePair) -> None:
        """Counts a pair."""
        chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
        self.pairs += 1
        self.chosen += chosen
        self.rejected += rejected
        self.squares += (chosen - rejected) ** 2
        self.longer += chosen > rejected
        self.ties += chosen == rejected

    def report(self) -> LengthReport:
        """What they say of at least one pair."""
        number = self.pairs
        difference = (self.chosen - self.rejected) / number
        variance = max(0.0, self.squares / number - difference**2)
        longer = (self.longer + self.ties / 2) / number
        right = max(longer, 1 - longer)
        low, high = wilson(right, number)
        return {
            "chosen": round(self.chosen / number, 2),
            "rejected": round(self.rejected / number, 2),
            "effect_size": round(difference / sqrt(variance), 3) if variance else 0.0,
            "rule": "longer" if longer >= 0.5 else "shorter",
            "right": round(right, 4),
            "interval": (round(low, 4), round(high, 4)),
        }


def wilson(share: float, number: int) -> tuple[float, float]:
    """The 95 % interval of a share of so many (Wilson's score interval)."""
    centre = share + _Z**2 / (2 * number)
    half = _Z * sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2))
    scale = 1 + _Z**2 / number
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
