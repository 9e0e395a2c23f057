"""Which pairs a data set of a given size has, and the format of the published data."""

from collections.abc import Iterable
from typing import Literal, TypedDict

from lib.data.rows import MissingRow, PairRow
from lib.data.shards import present


class Turn(TypedDict("Turn", {"from": Literal["human", "gpt"]})):
    """What one side says."""

    value: str


class LlavaRecord(TypedDict):
    """A pair in the published format; both conversations are [human, gpt]."""

    id: str
    image: str
    conversations: list[Turn]
    rejected_conversations: list[Turn]


def ordered_pairs(rows: Iterable[PairRow | MissingRow]) -> list[PairRow]:
    """The rows that have a pair, so ordered that every prefix is stratified by topic.

    Within a topic the order is that of the prompt ids, which are hashes; between topics each row
    stands at its fraction of its topic. A larger prefix contains the smaller one.
    """
    by_topic: dict[str, list[PairRow]] = {}
    with_pair = [row for row in present(rows) if "pair" in row]
    for row in sorted(with_pair, key=lambda row: row["id"]):
        by_topic.setdefault(row["topic"], []).append(row)
    placed = [
        ((rank + 0.5) / len(members), row["id"], row)
        for members in by_topic.values()
        for rank, row in enumerate(members)
    ]
    return [row for _, _, row in sorted(placed, key=lambda place: place[:2])]


def llava_record(row: PairRow) -> LlavaRecord:
    """One pair in the published format."""
    question: Turn = {"from": "human", "value": f"<image> {row['instruction']}"}
    chosen, rejected = row["pair"]["chosen"], row["pair"]["rejected"]
    return {
        "id": row["id"],
        "image": row["image"]["file"],
        "conversations": [question, {"from": "gpt", "value": chosen["text"]}],
        "rejected_conversations": [question, {"from": "gpt", "value": rejected["text"]}],
    }
