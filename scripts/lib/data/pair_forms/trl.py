"""What TRL's trainers read: `prompt`, `chosen`, `rejected`, as texts or as messages."""

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, ClassVar

from lib.data.pair_forms.base import (
    BadRecordError,
    Conversation,
    Message,
    Pictures,
    PreferencePair,
    Record,
    Where,
    answered,
    conversation,
    id_of,
    picture_tokens_in,
    text_in,
    turns_in,
    without_picture_tokens,
)

_LAST_WORD = re.compile(r"\S+\Z")


class Trl:
    """{"prompt", "chosen", "rejected", "images"}. Without `prompt`, or where it is a text beside
    messages that hold it too, chosen and rejected are whole conversations that differ in their last
    answer. Texts without `prompt` ask what they begin with alike.
    """

    name: ClassVar[str] = "trl"
    title: ClassVar[str] = (
        "TRL's columns: `prompt`, `chosen`, `rejected` (texts or messages), `images`"
    )

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record has both sides."""
        return "chosen" in record or "rejected" in record

    @staticmethod
    def read(record: Record, where: Where, pictures: Pictures) -> PreferencePair:
        """The pair of a record. Errors: BadRecordError."""
        asked, chosen, rejected = read_sides(record)
        images = pictures(record.get("images", record.get("image")))
        return PreferencePair(
            id=id_of(record, where, "prompt_id"),
            where=where,
            question=asked.question,
            chosen=chosen,
            rejected=rejected,
            images=images,
            picture_tokens=None if _is_placed_by_trainer(record) else asked.picture_tokens,
            history=asked.history,
        )


def read_sides(record: Record) -> tuple[Conversation, str, str]:
    """What is asked, the chosen and the rejected answer. Errors: BadRecordError."""
    if _holds_prompt_in_sides(record):
        return _without_prompt(record)
    chosen, rejected = (_answer(record, side) for side in ("chosen", "rejected"))
    if isinstance(record["prompt"], list):
        asked = conversation(turns_in(record, "prompt"), "prompt")
    else:
        text = text_in(record, "prompt")
        asked = Conversation(without_picture_tokens(text), (), picture_tokens_in(text))
    return asked, chosen, rejected


def _holds_prompt_in_sides(record: Record) -> bool:
    """Whether TRL takes what is asked from the sides: a prompt of text beside messages that begin
    with a user's is not read.
    """
    prompt = record.get("prompt")
    sides = [record.get(side) for side in ("chosen", "rejected")]
    return prompt is None or (
        isinstance(prompt, str) and all(isinstance(side, list) and len(side) > 1 for side in sides)
    )


def _answer(record: Record, side: str) -> str:
    """The answer of a side: a text, or the one message that it is."""
    if not isinstance(record.get(side), list):
        return text_in(record, side)
    turns = turns_in(record, side)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise BadRecordError(f"`{side}` beside a `prompt` is not one answer of the model")
    return turns[0].text


def _without_prompt(record: Record) -> tuple[Conversation, str, str]:
    if all(isinstance(record.get(side), str) for side in ("chosen", "rejected")):
        return _without_common_beginning(record["chosen"], record["rejected"])
    sides = [_conversation_of(record, side) for side in ("chosen", "rejected")]
    (asked, chosen), (rejected_asked, rejected) = sides
    if (asked.question, asked.history) != (rejected_asked.question, rejected_asked.history):
        raise BadRecordError("asks chosen and rejected two different questions")
    return asked, chosen, rejected


def _without_common_beginning(chosen: str, rejected: str) -> tuple[Conversation, str, str]:
    alike = takewhile(lambda letters: letters[0] == letters[1], zip(chosen, rejected, strict=False))
    common = "".join(letter for letter, _ in alike)
    if all(side[len(common) :][:1].strip() for side in (chosen, rejected)):
        common = _LAST_WORD.sub("", common)  # it is in the middle of a word of both
    if not common.strip() or chosen == rejected:
        raise BadRecordError(
            "has no `prompt`, and `chosen` and `rejected` are texts that do not begin alike and go"
            " on differently: what is asked is not known"
        )
    asked = Conversation(without_picture_tokens(common), (), picture_tokens_in(common))
    return asked, chosen[len(common) :], rejected[len(common) :]


def _conversation_of(record: Record, side: str) -> tuple[Conversation, str]:
    if isinstance(record.get(side), str):
        raise BadRecordError(f"has no `prompt`, and `{side}` is a text: what is asked is not known")
    turns: list[Message] = turns_in(record, side)
    return answered(turns, side)


def _is_placed_by_trainer(record: Record) -> bool:
    """Whether TRL puts the pictures before the first message: where that is a plain text."""
    turns: Any = record.get("chosen" if _holds_prompt_in_sides(record) else "prompt")
    contents = (
        [turn.get("content") for turn in turns if isinstance(turn, Mapping)]
        if isinstance(turns, list)
        else []
    )
    return bool(contents) and all(isinstance(content, str) for content in contents)
