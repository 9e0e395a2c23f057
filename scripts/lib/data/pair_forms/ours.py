"""This workflow's own data sets, and the rows that they are made from."""

from pathlib import Path
from typing import ClassVar

from lib.data.pair_forms.base import (
    Conversation,
    Picture,
    Pictures,
    PreferencePair,
    Record,
    Where,
    id_of,
    text_in,
)
from lib.data.pair_forms.trl import read_sides
from lib.data.rows import PairRow


class Ours:
    """TRL's columns with policies, topic and `image_prompt` beside them. Data sets of before have
    the text-to-image prompt in `prompt`, the question in `instruction`, and texts as sides.
    """

    name: ClassVar[str] = "ours"
    title: ClassVar[str] = (
        "this workflow's data sets: TRL's columns with `chosen_policy` and `image_prompt`"
    )

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record says whose answers it has."""
        return "chosen_policy" in record and "rejected_policy" in record

    @staticmethod
    def read(record: Record, where: Where, pictures: Pictures) -> PreferencePair:
        """The pair of a record. Errors: BadRecordError."""
        is_former = "instruction" in record and isinstance(record.get("prompt"), str)
        asked, chosen, rejected = _former_sides(record) if is_former else read_sides(record)
        prompt = record.get("prompt") if is_former else record.get("image_prompt")
        return PreferencePair(
            id=id_of(record, where),
            where=where,
            question=asked.question,
            chosen=chosen,
            rejected=rejected,
            images=pictures(record.get("images")),
            picture_tokens=None if is_former else asked.picture_tokens,
            history=asked.history,
            policies=(text_in(record, "chosen_policy"), text_in(record, "rejected_policy")),
            prompt=str(prompt or ""),
            topic=str(record.get("topic") or ""),
        )


def _former_sides(record: Record) -> tuple[Conversation, str, str]:
    question = text_in(record, "instruction")
    return Conversation(question, (), 0), text_in(record, "chosen"), text_in(record, "rejected")


def pair_of_row(row: PairRow, root: Path, number: int) -> PreferencePair:
    """The pair of a row of stage pairs that has one. `root`: the run's folder; `number`: of the row
    among all.
    """
    chosen, rejected = row["pair"]["chosen"], row["pair"]["rejected"]
    image = row["image"]
    return PreferencePair(
        id=row["id"],
        where=Where(root / "pairs", "row", number),
        question=row["instruction"],
        chosen=chosen["text"],
        rejected=rejected["text"],
        images=(Picture(image["file"], root / image["file"]),),
        policies=(chosen["policy"], rejected["policy"]),
        prompt=row["prompt"],
        topic=row["topic"],
    )
