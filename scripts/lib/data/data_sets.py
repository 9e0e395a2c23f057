"""Which pairs a data set of a given size has, in which split each of them is, what is told of a
pair, and why prompts gave none.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, cast

from lib.data.image_files import read_published, shard_file_of
from lib.data.rows import (
    ImagesRow,
    MissingRow,
    PairRow,
    PairSide,
    ResponseRankingRow,
)
from lib.data.shards import is_missing, present
from lib.data.stored_mapping import fill, found_in, temporary_database
from lib.data.stored_rows import StoredRows
from lib.data.texts import visible

PAIRS = "pairs"
#: Reasons that a stage gives on purpose; everything else that is missing is a failed item.
ON_PURPOSE = ("all images blank", "image reward below minimum")
Split = Literal["train", "validation"]
TRAIN: Split = "train"
VALIDATION: Split = "validation"


#: `stratified`, in SQL: places begin with 1.
STRATIFIED = """
    SELECT id FROM (
        SELECT id, (row_number() OVER (PARTITION BY topic ORDER BY id) - 0.5)
                   / count(*) OVER (PARTITION BY topic) AS fraction
        FROM prompts
    ) ORDER BY fraction, id
"""


def stratified(prompts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Prompt ids so ordered that every prefix is stratified by topic. `prompts`: topic and id.

    Within a topic the order is that of the prompt ids, which are hashes; between topics each stands
    at its fraction of its topic. A larger prefix contains the smaller one.
    """
    database = temporary_database(
        "CREATE TABLE prompts (topic, id, PRIMARY KEY (topic, id)) WITHOUT ROWID"
    )
    fill(database, "INSERT INTO prompts VALUES (?, ?)", prompts)
    return (name for (name,) in found_in(database, STRATIFIED))


def ordered_pairs(rows: Iterable[PairRow | MissingRow]) -> list[PairRow]:
    """The rows that have a pair, in the order of `stratified`."""
    by_id = {row["id"]: row for row in present(rows) if "pair" in row}
    return [by_id[name] for name in stratified((row["topic"], row["id"]) for row in by_id.values())]


def split_of(prompt: str, validation: float) -> Split:
    """The split that a prompt's pair falls into: a hash of its text decides, so that prompts that
    look alike are never on both sides, and that it stays whatever becomes of the others.

    `validation`: the share of pairs that are held out.
    """
    if not validation:
        return TRAIN
    number = int(sha256(visible(prompt).casefold().encode()).hexdigest()[:16], 16)
    return VALIDATION if number < validation * 16**16 else TRAIN


def reason_of(row: PairRow | MissingRow) -> str:
    """What became of a prompt: `PAIRS`, or why it has none. A failure's own words can be anything:
    it is counted by its rule.
    """
    if is_missing(row):
        rule, reason = row["missing"]["rule"], row["missing"]["reason"]
        return next((known for known in ON_PURPOSE if reason.startswith(known)), f"{rule} failed")
    return PAIRS if "pair" in row else row["no_pair"]


@dataclass(frozen=True)
class RatedResponse:
    """The chosen or the rejected response of a pair; `attributes`: the parts of its reward, where
    the reward model gives any.
    """

    policy: str
    text: str
    score: float
    attributes: Mapping[str, float]


@dataclass(frozen=True)
class DataSetPair:
    """A pair as a data set tells of it.

    source        where the picture lies now
    image         its bytes
    image_file    its name in the data set's folder
    image_prompt  the text-to-image prompt
    """

    id: str
    topic: str
    image_prompt: str
    instruction: str
    chosen: RatedResponse
    rejected: RatedResponse
    margin: float
    source: Path
    image: bytes
    image_file: str
    image_sha256: str
    image_reward: float
    image_seed: int | None
    guidance_scale: float | None


@dataclass(frozen=True)
class DataSetSource:
    """Where the pairs of a run are read from; no more of them than one is in memory."""

    root: Path
    pairs: StoredRows[PairRow]
    images: StoredRows[ImagesRow]
    rankings: StoredRows[ResponseRankingRow]

    def read(self, names: Iterable[str]) -> Iterator[DataSetPair]:
        """The pairs of these prompts, in their order. Errors: UserError if an image file is not
        the one that was published.
        """
        for name in names:
            row = cast("PairRow", self.pairs[name])
            yield self._join(row)

    def _join(self, row: PairRow) -> DataSetPair:
        pair, picked = row["pair"], row["image"]
        source = self.root / picked["file"]
        content = read_published(source, picked["sha256"], shard_file_of(source))
        candidates = cast("ImagesRow", self.images[row["id"]])["candidates"]
        ranking = cast("ResponseRankingRow", self.rankings[row["id"]])
        return DataSetPair(
            id=row["id"],
            topic=row["topic"],
            image_prompt=row["prompt"],
            instruction=row["instruction"],
            chosen=rated(pair["chosen"], ranking),
            rejected=rated(pair["rejected"], ranking),
            margin=pair["margin"],
            source=source,
            image=content,
            image_file=f"images/{row['topic']}/{source.name}",
            image_sha256=picked["sha256"],
            image_reward=picked["score"],
            image_seed=next(each["seed"] for each in candidates if each["file"] == picked["file"]),
            guidance_scale=picked["guidance_scale"],
        )


def rated(side: PairSide, ranking: ResponseRankingRow) -> RatedResponse:
    """One side of a pair, with the parts of its reward."""
    response = ranking["responses"][side["policy"]]
    attributes = response.get("attributes", {})
    return RatedResponse(side["policy"], side["text"], side["score"], attributes)
