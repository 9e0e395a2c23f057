"""Which pairs a data set of a given size has, why prompts gave none, and the format of the
published data.
"""

from collections.abc import Iterable
from typing import Literal, TypedDict

from lib.data.rows import MissingRow, PairRow
from lib.data.shards import is_missing, present

PAIRS = "pairs"
#: Reasons that a stage gives on purpose; everything else that is missing is a failed item.
ON_PURPOSE = ("all images blank", "image reward below minimum")


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


def reason_of(row: PairRow | MissingRow) -> str:
    """What became of a prompt: `PAIRS`, or why it has none. A failure's own words can be anything:
    it is counted by its rule.
    """
    if is_missing(row):
        rule, reason = row["missing"]["rule"], row["missing"]["reason"]
        return next((known for known in ON_PURPOSE if reason.startswith(known)), f"{rule} failed")
    return PAIRS if "pair" in row else row["no_pair"]


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
