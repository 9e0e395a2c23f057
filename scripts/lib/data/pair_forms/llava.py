"""LLaVA's JSON with a second conversation, as the authors of the paper publish their data."""

from typing import ClassVar

from lib.data.pair_forms.base import (
    BadRecordError,
    Pictures,
    PreferencePair,
    Record,
    Where,
    answered,
    id_of,
    turns_in,
    unlike,
)


class Llava:
    """{"id", "image", "conversations": [human, gpt], "rejected_conversations": [human, gpt]}."""

    name: ClassVar[str] = "llava"
    title: ClassVar[str] = "LLaVA's JSON: `conversations` and `rejected_conversations`"

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record has a rejected conversation, or what is left of such a one."""
        return "rejected_conversations" in record

    @staticmethod
    def read(record: Record, where: Where, pictures: Pictures) -> PreferencePair:
        """The pair of a record. Errors: BadRecordError."""
        asked, chosen = answered(turns_in(record, "conversations"), "conversations")
        rejected_asked, rejected = answered(
            turns_in(record, "rejected_conversations"), "rejected_conversations"
        )
        if asked.question != rejected_asked.question:
            raise BadRecordError("asks chosen and rejected two different questions")
        images = pictures(record.get("image", record.get("images")))
        return PreferencePair(
            id=id_of(record, where),
            where=where,
            question=asked.question,
            chosen=chosen,
            rejected=rejected,
            images=images,
            picture_tokens=unlike(len(images), asked.picture_tokens, rejected_asked.picture_tokens),
            history=asked.history,
        )
