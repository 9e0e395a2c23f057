"""ms-swift's preference data: messages that end with the chosen answer, and the rejected one."""

from itertools import chain
from typing import ClassVar

from lib.data.pair_forms.base import (
    BadRecordError,
    Conversation,
    Message,
    Pictures,
    PreferencePair,
    Record,
    Where,
    answered,
    as_text,
    id_of,
    text_in,
    turns_in,
)


class MsSwift:
    """{"messages": [..., user, assistant], "rejected_response": text, "images"}, or with
    "rejected_messages" in its place; in place of "messages", too, "query", "response" and the
    "history" of those before, a list of two texts each.
    """

    name: ClassVar[str] = "ms_swift"
    title: ClassVar[str] = (
        "ms-swift's JSON: `messages` (or `query`, `response`) with `rejected_response` or"
        " `rejected_messages`"
    )

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record has messages and a rejected answer in ms-swift's way."""
        return "rejected_response" in record or "rejected_messages" in record

    @staticmethod
    def read(record: Record, where: Where, pictures: Pictures) -> PreferencePair:
        """The pair of a record. Errors: BadRecordError."""
        asked, chosen = _chosen(record)
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


def _chosen(record: Record) -> tuple[Conversation, str]:
    if "messages" in record or "query" not in record:
        return answered(turns_in(record, "messages"), "messages")
    asked = [*_texts_of_history(record), text_in(record, "query"), text_in(record, "response")]
    turns = [
        Message("assistant" if number % 2 else "user", text) for number, text in enumerate(asked)
    ]
    return answered(turns, "query")


def _texts_of_history(record: Record) -> list[str]:
    """Questions and answers in turn. Errors: BadRecordError."""
    history = record.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(turn, list) and len(turn) == 2 for turn in history
    ):
        raise BadRecordError("`history` is no list of a question and its answer each")
    return [as_text(text, "history") for text in chain.from_iterable(history)]


def _rejected(record: Record, question: str) -> str:
    if record.get("rejected_messages") is None:
        return text_in(record, "rejected_response")
    asked, rejected = answered(turns_in(record, "rejected_messages"), "rejected_messages")
    if asked.question != question:
        raise BadRecordError("asks chosen and rejected two different questions")
    return rejected
