"""What models share that are asked in words of the configuration: a text with words in braces, and
a scale of ratings.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Self

from pydantic import Field, model_validator

from lib.blocks import Block


class Scale(Block):
    """The ratings that can be given: whole numbers of one digit, each of which is one token."""

    lowest: int = Field(1, ge=0, le=9, description="The worst rating.")
    highest: int = Field(5, ge=0, le=9, description="The best rating.")

    @model_validator(mode="after")
    def _ratings_differ(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"`highest` ({self.highest}) has to be above `lowest` ({self.lowest})")
        return self

    @property
    def ratings(self) -> list[str]:
        """All ratings, as they are written."""
        return [str(rating) for rating in range(self.lowest, self.highest + 1)]


def check_words(template: str, needed: str, known: Collection[str]) -> str:
    """The template; a ValueError where it lacks the word in braces that it needs, or has another
    one than those known.
    """
    if f"{{{needed}}}" not in template:
        raise ValueError(
            f"has no `{{{needed}}}`: the model would not know what to look at. Put it where it"
            " belongs"
        )
    if unknown := sorted(set(re.findall(r"\{(\w+)\}", template)) - set(known)):
        names = ", ".join(f"`{{{word}}}`" for word in known)
        raise ValueError(f"knows no `{{{unknown[0]}}}`. Known here: {names}")
    return template


def filled(template: str, **words: object) -> str:
    """The template with its words in braces filled in, whatever stands in what they become."""
    return re.sub(r"\{(\w+)\}", lambda match: str(words[match[1]]), template)


def shares_of(log_probabilities: Mapping[str, float]) -> tuple[dict[str, float], float] | None:
    """The share of each option among all of them, and the probability of any; None where there is
    none, or one is not a number.
    """
    most = max(log_probabilities.values())
    if not all(each < math.inf for each in log_probabilities.values()) or most == -math.inf:
        return None
    masses = {option: math.exp(each - most) for option, each in log_probabilities.items()}
    whole = sum(masses.values())
    return {option: mass / whole for option, mass in masses.items()}, whole * math.exp(most)


def expected_rating(shares: Mapping[str, float]) -> float:
    """The expected value of ratings, of their shares."""
    return sum(int(rating) * share for rating, share in shares.items())
