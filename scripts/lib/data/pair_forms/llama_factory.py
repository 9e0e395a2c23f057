"""LLaMA-Factory's preference data (`ranking: true`), in its two formattings."""

from collections.abc import Mapping
from typing import Any, ClassVar

from lib.data.pair_forms.base import (
    BadRecordError,
    Conversation,
    Pictures,
    PreferencePair,
    Record,
    Where,
    conversation,
    id_of,
    picture_tokens_in,
    text_in,
    turn_of,
    turns_in,
    without_picture_tokens,
)


class LlamaFactory:
    """sharegpt: {"conversations" or "messages": turns, "chosen": turn, "rejected": turn, "images"};
    alpaca: {"instruction", "input", "chosen", "rejected", "images"}, the sides as texts.
    """

    name: ClassVar[str] = "llama_factory"
    title: ClassVar[str] = (
        "LLaMA-Factory's JSON: `conversations` with `chosen` and `rejected` as turns, or"
        " `instruction` with both as texts"
    )

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record has turns beside its sides, or an instruction and no prompt."""
        has_turns = "conversations" in record or "messages" in record
        is_alpaca = "instruction" in record and "prompt" not in record
        return (has_turns or is_alpaca) and ("chosen" in record or "rejected" in record)

    @staticmethod
    def read(record: Record, where: Where, pictures: Pictures) -> PreferencePair:
        """The pair of a record. Errors: BadRecordError."""
        asked = _asked(record)
        return PreferencePair(
            id=id_of(record, where),
            where=where,
            question=asked.question,
            chosen=_answer(record, "chosen"),
            rejected=_answer(record, "rejected"),
            images=pictures(record.get("images", record.get("image"))),
            picture_tokens=asked.picture_tokens,
            history=asked.history,
        )


def _asked(record: Record) -> Conversation:
    for key in ("conversations", "messages"):
        if key in record:
            return conversation(turns_in(record, key), key)
    parts = [text_in(record, "instruction"), record.get("input") or ""]
    text = "\n".join(str(part) for part in parts if part)
    return Conversation(without_picture_tokens(text), (), picture_tokens_in(text))


def _answer(record: Record, side: str) -> str:
    if side not in record:
        raise BadRecordError(f"has no `{side}`")
    value: Any = record[side]
    if not isinstance(value, Mapping):
        return text_in(record, side)
    turn = turn_of(value, side)
    if turn.role != "assistant":
        raise BadRecordError(f"`{side}` is no answer of the model")
    return turn.text
