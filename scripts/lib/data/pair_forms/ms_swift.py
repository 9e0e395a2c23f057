"""ms-swift's preference data: messages that end with the chosen answer, and the rejected one."""

from typing import ClassVar

from lib.data.pair_forms.base import (
    BadRecordError,
    Pictures,
    PreferencePair,
    Record,
    Where,
    answered,
    id_of,
    text_in,
    turns_in,
)


class MsSwift:
    """{"messages": [..., user, assistant], "rejected_response": text, "images"}, or with
    "rejected_messages" in its place.
    """

    name: ClassVar[str] = "ms_swift"
    title: ClassVar[str] = (
        "ms-swift's JSON: `messages` with `rejected_response` or `rejected_messages`"
    )

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record has messages and a rejected answer in ms-swift's way."""
        return "rejected_response" in record or "rejected_messages" in record

    @staticmethod
    def read(record: Record, where: Where, pictures: Pictures) -> PreferencePair:
        """The pair of a record. Errors: BadRecordError."""
        asked, chosen = answered(turns_in(record, "messages"), "messages")
        images = pictures(record.get("images", record.get("image")))
        return PreferencePair(
            id=id_of(record, where),
            where=where,
            question=asked.question,
            chosen=chosen,
            rejected=_rejected(record, asked.question),
            images=images,
            # It puts pictures without a token of their own before the first message.
            picture_tokens=max(asked.picture_tokens, len(images)),
            history=asked.history,
        )


def _rejected(record: Record, question: str) -> str:
    if record.get("rejected_messages") is None:
        return text_in(record, "rejected_response")
    asked, rejected = answered(turns_in(record, "rejected_messages"), "rejected_messages")
    if asked.question != question:
        raise BadRecordError("asks chosen and rejected two different questions")
    return rejected
