"""People as judges: their verdicts of the report's blind mode, counted as those of a judge, and how
often each reward agrees with them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lib.data.blind_verdicts import ANSWERS, CHOSEN, PICTURES, TIE, BlindVerdict, shown_pictures
from lib.data.reviews import DISAGREE, decide, pair_name, ranked_pair
from lib.data.rows import ImageRankingRow, ImagesRow, MissingRow, PairRow
from lib.data.shards import is_missing
from lib.image_preference import Comparison, PicksSummary, Verdict, count_verdicts
from lib.report.review_counts import wilson

QUESTION = "Which picture shows the prompt better? (to people, who see no names)"
Rankings = Mapping[str, Mapping[str, ImageRankingRow | MissingRow]]


class PeopleAsJudges:
    """People's verdicts on one run, as far as they are of what there is now.

    compared  the two scorers whose picks they saw
    """

    def __init__(
        self,
        verdicts: Sequence[BlindVerdict],
        compared: Sequence[str],
        images: Mapping[str, ImagesRow | MissingRow],
        rankings: Rankings,
        pairs: Mapping[str, PairRow | MissingRow],
    ) -> None:
        self.verdicts, self.compared = verdicts, list(compared)
        self.images, self.rankings, self.pairs = images, rankings, pairs

    def picks(self) -> dict[str, str]:
        """The scorer whose pick people prefer, or `TIE`, by prompt id. People who disagree say a
        tie.
        """
        return self._decided(PICTURES, self._pictures_shown)

    def answers(self) -> dict[str, str]:
        """The side of the pair that people prefer, or `TIE`, by prompt id."""
        return self._decided(ANSWERS, self._pair_shown)

    def _decided(self, kind: str, shown: Any) -> dict[str, str]:
        said: dict[str, list[str]] = {}
        for each in self.verdicts:
            if each["kind"] == kind and each["shown"] == shown(each["prompt_id"]):
                said.setdefault(each["prompt_id"], []).append(each["verdict"])
        decided = {name: decide(verdicts) for name, verdicts in said.items()}
        return {name: TIE if what == DISAGREE else what for name, what in decided.items()}

    def _pictures_shown(self, name: str) -> str:
        images = self.images.get(name)
        if images is None or is_missing(images):
            return ""
        found = shown_pictures(images, self._rankings_of(name), self.compared)
        return found["shown"] if found else ""

    def _pair_shown(self, name: str) -> str:
        row = self.pairs.get(name)
        pair = None if row is None else ranked_pair(row)
        return pair_name(row, pair) if row and not is_missing(row) and pair else ""

    def _rankings_of(self, name: str) -> dict[str, ImageRankingRow]:
        found = {scorer: rows.get(name) for scorer, rows in self.rankings.items()}
        return {scorer: row for scorer, row in found.items() if row and not is_missing(row)}

    def summary(self, scorers: Mapping[str, Any], seed: int) -> PicksSummary | None:
        """The verdicts on pictures, as rule compare_picks would publish a judge's; None where there
        is none. `scorers`: which model each is.
        """
        verdicts = self.picks()
        if not verdicts:
            return None
        first, second = self.compared
        sides: dict[str, Verdict] = {first: "first", second: "second", TIE: "tie"}
        comparisons = [Comparison(sides[what], None, (None, None)) for what in verdicts.values()]
        both = [name for name in self.images if {first, second} <= self._rankings_of(name).keys()]
        different = sum(self._pictures_shown(name) != "" for name in both)
        return {
            "compared": self.compared,
            "scorers": dict(scorers),
            "judge": self.names(PICTURES),
            "question": QUESTION,
            "seed": seed,
            "prompts": {
                "ranked_by_both": len(both),
                "same_pick": len(both) - different,
                "different_picks": different,
            },
            "comparisons": len(comparisons),
            **count_verdicts(comparisons),
        }

    def names(self, kind: str) -> str:
        """Who judged, in words."""
        by = Counter(each["reviewer"] for each in self.verdicts if each["kind"] == kind)
        return "people (" + ", ".join(name or "unnamed" for name in sorted(by)) + ")"

    def agreement(self) -> list[str]:
        """How often each reward gives what people prefer the higher score, a sentence each."""
        lines = [self._scorer_agrees(scorer) for scorer in self.rankings]
        sides = [what for what in self.answers().values() if what != TIE]
        lines.append(say_agreement("The response reward", [what == CHOSEN for what in sides]))
        return [line for line in lines if line]

    def _scorer_agrees(self, scorer: str) -> str:
        agrees = []
        for name, preferred in self.picks().items():
            rankings = self._rankings_of(name)
            if preferred == TIE or scorer not in rankings:
                continue
            better = rankings[preferred]["winner"]
            worse = next(rankings[each]["winner"] for each in self.compared if each != preferred)
            scores = rankings[scorer]["scores"]
            agrees.append(scores[better] > scores[worse])
        return say_agreement(f"Image scorer {scorer}", agrees)


def say_agreement(who: str, agrees: Iterable[bool]) -> str:
    """A sentence; empty where people preferred nothing."""
    verdicts = list(agrees)
    if not verdicts:
        return ""
    low, high = wilson(sum(verdicts), len(verdicts))
    return (
        f"{who} agrees with people on {sum(verdicts)} of {len(verdicts)} comparisons without a tie:"
        f" {sum(verdicts) / len(verdicts):.1%} (95 % interval {low:.1%} to {high:.1%})."
    )
