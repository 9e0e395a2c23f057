"""What the report's page is told of each prompt: an entry that filters and sorts, and the details
that are read when the prompt is looked at.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NotRequired, TypedDict, cast

from lib.data.blind_verdicts import (
    KINDS,
    ShownPictures,
    comparison_place,
    is_turned,
    shown_pictures,
)
from lib.data.data_sets import PAIRS, reason_of
from lib.data.reviews import DISAGREE, pair_name, ranked_pair, say_review
from lib.data.rows import (
    Candidate,
    ImageRankingRow,
    ImagesRow,
    MissingRow,
    Pair,
    PairRow,
    RankedResponse,
    ResponseRankingRow,
)
from lib.data.shards import is_missing
from lib.data.stored_rows import StoredRows
from lib.report.thumbnails import name_of

#: What the page calls the outcome of a prompt that gave a pair.
PAIR = "pair"
#: What reviewers' verdicts do to a pair.
DONE = {"accept": "accepted", "reject": "rejected", "swap": "swapped", DISAGREE: "disputed"}
#: Parts of a response's score that are too many for a page: of ArmoRM's nineteen objectives.
LEFT_OUT = ("gating", "rewards")


class PromptEntry(TypedDict):
    """A prompt as filters and sorting see it.

    outcome   `PAIR`, or why there is none
    pair      what reviews know the pair by; empty where there is none
    score     of the chosen response; `image`: the image reward of the picked candidate
    longer    characters that the chosen response has more than the rejected one
    picks     how many different candidates the image scorers would pick
    against   of an ensemble: the share of its rewards that would have the pair the other way round
    spread    ... the largest spread of its rewards over a response
    picture   the thumbnail of the picked candidate, or of the first
    draw      its place when pairs are drawn at random, with the run's seed
    chunk     the file of its details
    compared  its place among the prompts whose picks people compare; `pictures`: what the two are
              known by in their verdicts, empty where none are
    turned    what is shown the other way round in the blind mode: pictures, answers
    """

    id: str
    topic: str
    prompt: str
    instruction: str
    outcome: str
    pair: str
    chosen: str
    rejected: str
    margin: float | None
    score: float | None
    image: float | None
    longer: int | None
    picks: int
    against: float | None
    spread: float | None
    picture: str
    draw: int | None
    place: int
    chunk: int
    reviewed: str
    compared: int | None
    pictures: str
    turned: list[str]


class CandidateEntry(TypedDict):
    """A candidate: what tells it from the others in words, its file from the run's folder on, its
    thumbnail, and each scorer's name, score and whether it picks it.
    """

    of: str
    seed: int | None
    file: str
    picture: str
    blank: bool
    isPicked: bool
    scores: list[tuple[str, float, bool]]


class ResponseEntry(TypedDict):
    """A response; `spread`: between the rewards of an ensemble; `parts`: groups of numbers or texts
    that its score is made of.
    """

    name: str
    text: str
    score: NotRequired[float]
    spread: NotRequired[float]
    invalid: NotRequired[str]
    detail: NotRequired[str]
    parts: list[tuple[str, list[tuple[str, float | str]]]]


class PromptDetails(TypedDict):
    """A prompt as it is looked at; `why`: why it gave no pair, or why its pair does not count;
    `review`: what reviewers did to the pair, in words; `own`: of a pair that an experiment brings,
    where it comes from. Its answers are its `responses`: chosen, rejected.
    """

    id: str
    candidates: list[CandidateEntry]
    responses: list[ResponseEntry]
    pair: Pair | None
    why: str
    review: str
    comparison: ShownPictures | None
    own: NotRequired[str]


def rounded(value: float) -> float:
    """A number with six digits, which is more than a page shows."""
    return float(f"{value:.6g}")


@dataclass(frozen=True)
class PromptRows:
    """What the stages say of one prompt; None where a stage before has no result."""

    images: ImagesRow | None
    rankings: Mapping[str, ImageRankingRow]
    responses: ResponseRankingRow | None
    pair: PairRow | MissingRow

    @property
    def picked(self) -> str:
        """The file of the picked candidate; empty where there is none."""
        row: Any = self.responses or self.pair
        return str(row.get("image", {}).get("file", ""))

    def candidates(self) -> Iterator[CandidateEntry]:
        """The candidates, with what every scorer says of them."""
        for number, candidate in enumerate(self.images["candidates"] if self.images else ()):
            yield {
                "of": how_made(candidate),
                "seed": candidate["seed"],
                "file": candidate["file"],
                "picture": name_of(candidate["sha256"]),
                "blank": candidate["blank"],
                "isPicked": candidate["file"] == self.picked,
                "scores": [
                    (name, rounded(row["scores"][number]), row["winner"] == number)
                    for name, row in self.rankings.items()
                ],
            }

    def picture(self) -> str:
        """The thumbnail that stands for the prompt; empty where there is no picture."""
        candidates = list(self.candidates())
        shown = next((each for each in candidates if each["isPicked"]), None)
        return (shown or candidates[0])["picture"] if candidates else ""


def how_made(candidate: Candidate) -> str:
    """What tells a candidate from the others of its prompt, besides its seed."""
    if "source" in candidate:
        return candidate["source"]["name"]
    return f"guidance {candidate['guidance_scale']:g}"


def response_entry(name: str, response: RankedResponse) -> ResponseEntry:
    """A response with the parts of its score, whichever the reward model gives."""
    entry: ResponseEntry = {
        "name": name,
        "text": response.get("text", ""),
        "parts": parts(response),
    }
    if "score" in response:
        entry["score"] = rounded(response["score"])
    if "spread" in response:
        entry["spread"] = rounded(response["spread"])
    if "invalid" in response:
        entry["invalid"] = response["invalid"]
    if "detail" in response:
        entry["detail"] = response["detail"]
    return entry


def largest_spread(row: ResponseRankingRow | None) -> float | None:
    """How far the rewards of an ensemble are apart over a response of a prompt, at most; None of a
    reward that ranks alone.
    """
    spreads = (
        [each["spread"] for each in row["responses"].values() if "spread" in each] if row else []
    )
    return rounded(max(spreads)) if spreads else None


def parts(response: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, float | str]]]]:
    """All groups of numbers beside a response's score, and its claims. Whatever a reward model adds
    is shown without this being told of it.
    """
    found: list[tuple[str, list[tuple[str, float | str]]]] = []
    for name, value in response.items():
        if isinstance(value, Mapping) and name not in LEFT_OUT:
            numbers = {key: each for key, each in value.items() if isinstance(each, int | float)}
            found.append((name, [(key, rounded(each)) for key, each in numbers.items()]))
        elif name == "claims":
            told = [(each["text"], rounded(each["yes"])) for each in value]
            found.append(("claims, and how likely a model says Yes", [*told]))
    return [(name, values) for name, values in found if values]


def drawn(names: Iterable[str], seed: int) -> dict[str, int]:
    """The place of each of these prompts in a random order that is the run's: the first N are a
    sample of N, and of each larger one.
    """
    keyed = {name: sha256(f"{seed}/{name}".encode()).hexdigest() for name in names}
    return {name: place for place, name in enumerate(sorted(keyed, key=keyed.__getitem__))}


@dataclass(frozen=True)
class Places:
    """The places of prompts where they are drawn: of pairs for a sample, and of those whose picks
    people compare. `seed`: the run's.
    """

    drawn: Mapping[str, int]
    compared: Mapping[str, int]
    seed: int


@dataclass(frozen=True)
class RunRows:
    """The rows of all stages. `policies`: the names of the answers, in the configured order;
    `compared`: the two scorers whose picks people compare, if there are two.
    """

    images: StoredRows[ImagesRow]
    rankings: Mapping[str, StoredRows[ImageRankingRow]]
    responses: StoredRows[ResponseRankingRow]
    pairs: StoredRows[PairRow]
    policies: Sequence[str]
    compared: Sequence[str]

    def comparison(self, rows: PromptRows) -> ShownPictures | None:
        """The two pictures that people compare; None where both scorers pick the same."""
        if not rows.images or not self.compared:
            return None
        return shown_pictures(rows.images, rows.rankings, self.compared)

    def places(self, seed: int) -> Places:
        """The places of all prompts where they are drawn."""
        pairs = (name for name in self.pairs if ranked_pair(self.pairs[name]))
        differ = (name for name in self.pairs if self.comparison(self.of(name)))
        ordered = sorted(differ, key=lambda name: comparison_place(name, seed))
        compared = {name: place for place, name in enumerate(ordered)}
        return Places(drawn(pairs, seed), compared, seed)

    def of(self, name: str) -> PromptRows:
        """What the stages say of a prompt."""
        images, responses = self.images[name], self.responses[name]
        rankings = {scorer: rows[name] for scorer, rows in self.rankings.items()}
        return PromptRows(
            None if is_missing(images) else images,
            {scorer: row for scorer, row in rankings.items() if not is_missing(row)},
            None if is_missing(responses) else responses,
            self.pairs[name],
        )

    def details(self, name: str) -> PromptDetails:
        """A prompt as it is looked at."""
        rows = self.of(name)
        given = rows.responses["responses"] if rows.responses else {}
        names = [policy for policy in self.policies if policy in given]
        return {
            "id": name,
            "candidates": list(rows.candidates()),
            "responses": [response_entry(policy, given[policy]) for policy in names],
            "pair": ranked_pair(rows.pair),
            "why": why_none(rows.pair),
            "review": review_told(rows.pair),
            "comparison": self.comparison(rows),
        }

    def entry(self, name: str, place: int, chunk: int, places: Places) -> PromptEntry:
        """A prompt as filters and sorting see it; `place`, `chunk`: of the entry."""
        rows = self.of(name)
        row = cast("Any", rows.pair)
        pair = ranked_pair(rows.pair)
        asked = cast("Any", rows.responses or rows.pair)
        image = asked.get("image")
        compared = self.comparison(rows)
        return {
            "id": name,
            "topic": row["topic"],
            "prompt": row["prompt"],
            "instruction": asked.get("instruction", ""),
            "outcome": outcome_of(rows.pair),
            "pair": pair_name(row, pair) if pair else "",
            "chosen": pair["chosen"]["policy"] if pair else "",
            "rejected": pair["rejected"]["policy"] if pair else "",
            "margin": rounded(pair["margin"]) if pair else None,
            "score": rounded(pair["chosen"]["score"]) if pair else None,
            "image": rounded(image["score"]) if image else None,
            "longer": len(pair["chosen"]["text"]) - len(pair["rejected"]["text"]) if pair else None,
            "picks": len({ranking["winner"] for ranking in rows.rankings.values()}),
            "against": rounded(pair["disagreement"]) if pair and "disagreement" in pair else None,
            "spread": largest_spread(rows.responses),
            "picture": rows.picture(),
            "draw": places.drawn.get(name),
            "place": place,
            "chunk": chunk,
            "reviewed": review_in(rows.pair),
            "compared": places.compared.get(name),
            "pictures": compared["shown"] if compared else "",
            "turned": [kind for kind in KINDS if is_turned(kind, name, places.seed)],
        }


def review_in(row: PairRow | MissingRow) -> str:
    """What reviewers did to a prompt's pair, in a word; empty where nobody reviewed it."""
    if is_missing(row) or "review" not in row:
        return ""
    return DONE[row["review"]["verdict"]]


def review_told(row: PairRow | MissingRow) -> str:
    """The same in a sentence, with who said what."""
    if not (done := review_in(row)):
        return ""
    said = say_review(cast("PairRow", row)["review"])
    order = " (in the data sets its sides are the other way round)" if done == "swapped" else ""
    return f"This pair counts as {done}{order}. {said}."


def outcome_of(row: PairRow | MissingRow) -> str:
    """What became of a prompt, as filters have it."""
    reason = reason_of(row)
    return PAIR if reason == PAIRS else reason


def why_none(row: PairRow | MissingRow) -> str:
    """Why a prompt gave no pair, in full; empty where it gave one."""
    if is_missing(row):
        return f"{row['missing']['rule']}: {row['missing']['reason']}"
    return row.get("no_pair", "")
