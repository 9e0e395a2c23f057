"""What reviews say of a run's pairs, in numbers: how many were accepted, of a drawn sample with the
interval, and how far reviewers agree.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from lib.data.reviews import DISAGREE, ranked_pair, say_review
from lib.data.rows import MissingRow, PairReview, PairRow
from lib.data.shards import is_missing


class ReviewCounts:
    """Counts reviews, pair by pair."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.there = 0  # pairs that could be drawn
        self.sample = 0
        self.in_sample = 0
        self.accepted_in_sample = 0
        self.disagreements: list[tuple[str, str]] = []
        self.by_pair: list[dict[str, str]] = []

    @property
    def pairs(self) -> int:
        """How many pairs were reviewed."""
        return self.verdicts.total()

    def add(self, row: PairRow | MissingRow) -> None:
        """Takes the next prompt's row, reviewed or not."""
        self.there += ranked_pair(row) is not None
        if is_missing(row) or "review" not in row:
            return
        self._add(row["id"], row["review"])

    def _add(self, name: str, review: PairReview) -> None:
        self.verdicts[review["verdict"]] += 1
        self.by_pair.append(review["by"])
        if review["sample"]:
            self.sample = max(self.sample, review["sample"])
            self.in_sample += 1
            self.accepted_in_sample += review["verdict"] == "accept"
        if len(set(review["by"].values())) > 1:
            self.disagreements.append((name, say_review(review)))

    def lines(self) -> list[str]:
        """All of it in sentences; none where nobody reviewed."""
        if not self.pairs:
            return []
        return [self._counted(), *self._sample(), *self._agreement()]

    def _counted(self) -> str:
        verdicts = self.verdicts
        return (
            f"People reviewed {self.pairs} pairs: {verdicts['accept']} accepted,"
            f" {verdicts['reject']} rejected and left out, {verdicts['swap']} swapped,"
            f" {verdicts[DISAGREE]} left out since reviewers disagree."
        )

    def _sample(self) -> list[str]:
        if not self.in_sample:
            return []
        low, high = wilson(self.accepted_in_sample, self.in_sample)
        share = self.accepted_in_sample / self.in_sample
        # Of rows made before this was told, it is 1.
        drawn = max(min(self.sample, self.there), self.in_sample)
        some = f"{self.in_sample} were reviewed, and of these " if self.in_sample < drawn else ""
        sentence = (
            f"Of a sample of {drawn} pairs drawn at random, {some}{self.accepted_in_sample} were"
            f" accepted: {share:.1%} (95 % interval {low:.1%} to {high:.1%}, Wilson)."
        )
        if some:
            sentence += " The interval is that of the sample once all of it is reviewed."
        return [sentence]

    def _agreement(self) -> list[str]:
        names = sorted({name for by in self.by_pair for name in by})
        found = []
        for one, other in combinations(names, 2):
            both = [(by[one], by[other]) for by in self.by_pair if one in by and other in by]
            if both:
                same = sum(left == right for left, right in both)
                kappa = cohen_kappa(both)
                shown = "is not defined: they say one thing only"
                if kappa is not None:
                    shown = f"{kappa:.2f}"
                found.append(
                    f"{one or 'unnamed'} and {other or 'unnamed'} agree on {same} of {len(both)}"
                    f" pairs; Cohen's kappa {shown}."
                )
        return found


def count_reviews(rows: Iterable[PairRow | MissingRow]) -> ReviewCounts:
    """The reviews of these rows."""
    counts = ReviewCounts()
    for row in rows:
        counts.add(row)
    return counts


def wilson(successes: int, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    from scipy.stats import binomtest

    interval: Any = binomtest(successes, number).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def cohen_kappa(both: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two raters: (po - pe) / (1 - pe), where po is the share of equal verdicts
    and pe that which their own frequencies would give by chance. None where pe is 1.
    """
    number = len(both)
    equal = sum(one == other for one, other in both) / number
    ones, others = (Counter(pair[side] for pair in both) for side in (0, 1))
    by_chance = sum(ones[name] * others[name] for name in ones) / number**2
    return None if by_chance == 1 else (equal - by_chance) / (1 - by_chance)
