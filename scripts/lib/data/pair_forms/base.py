"""What a pair is, whatever it was read from, and what reads one form of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

Record = Mapping[str, Any]
#: How texts mark the place of a picture: LLaVA's way, and those of other models' templates.
PICTURE_TOKEN = re.compile(
    r"<image>|<\|image_pad\|>|<\|image\|>|<image_soft_token>|<start_of_image>|\[IMG\]"
)
#: What stands around the token of a picture in Qwen's templates, and says nothing without it.
_AROUND_TOKEN = re.compile(r"<\|vision_start\|>|<\|vision_end\|>|<end_of_image>|\[IMG_END\]")

#: How files that pairs are read from end (records.py).
SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow")


class BadRecordError(ValueError):
    """Why a record is no pair, in words that go on behind its place: "has no `rejected`"."""


class Where(NamedTuple):
    """The place of a record: a file, and the number in it from 1."""

    file: Path
    unit: Literal["line", "record", "row"]
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


class Picture(NamedTuple):
    """A picture of a pair: what the data call it, and its file or content; None where it is an
    address on the web, or was not to be read.
    """

    name: str
    source: Path | bytes | None


class Message(NamedTuple):
    """What one side says."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A pair of any form. Texts are as they are written, but for the tokens of pictures in what is
    asked, which are taken out and counted.

    history         what was said before the question
    picture_tokens  how many pictures the texts have a place for; None where the trainers of this
                    form place them themselves
    policies        whose answers chosen and rejected are
    prompt          what the picture was generated from, where that is known
    topic           the topic of that, or the source of the data
    """

    id: str
    where: Where
    question: str
    chosen: str
    rejected: str
    images: tuple[Picture, ...] = ()
    picture_tokens: int | None = None
    history: tuple[Message, ...] = ()
    policies: tuple[str, str] | None = None
    prompt: str = ""
    topic: str = ""


class Pictures(Protocol):
    """Finds the pictures that a record names."""

    def __call__(self, value: Any, /) -> tuple[Picture, ...]:
        """The pictures of a record's value: names, contents, or a list of these."""
        ...


class PairForm(Protocol):
    """A form that pairs are written in."""

    name: ClassVar[str]
    #: Who writes and reads it, and by which fields it is known: a line for people.
    title: ClassVar[str]

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record has the fields of this form."""
        ...

    @staticmethod
    def read(record: Record, where: Where, pictures: Pictures) -> PreferencePair:
        """The pair of a record. Errors: BadRecordError."""
        ...


def text_in(record: Record, key: str) -> str:
    """A text of a record. Errors: BadRecordError where it is missing, or no text."""
    if key not in record:
        raise BadRecordError(f"has no `{key}`")
    return as_text(record[key], key)


def as_text(value: Any, key: str) -> str:
    """A value that is a text. Errors: BadRecordError."""
    if not isinstance(value, str):
        raise BadRecordError(f"`{key}` is {kind_of(value)}, no text")
    return value


def kind_of(value: Any) -> str:
    """What a value is, as JSON says it."""
    names = {type(None): "null", dict: "an object", list: "a list", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "a text")


def list_in(record: Record, key: str) -> Sequence[Any]:
    """A list of a record. Errors: BadRecordError where it is missing, no list, or empty."""
    if key not in record:
        raise BadRecordError(f"has no `{key}`")
    value = record[key]
    if not isinstance(value, list):
        raise BadRecordError(f"`{key}` is {kind_of(value)}, no list")
    if not value:
        raise BadRecordError(f"`{key}` is an empty list")
    return value


def id_of(record: Record, where: Where, *keys: str) -> str:
    """What a record is called: the first of these keys that it has, or its place."""
    named = next((record[key] for key in (*keys, "id") if record.get(key) not in (None, "")), None)
    return str(named) if isinstance(named, str | int) else f"{where.unit} {where.number}"


def without_picture_tokens(text: str) -> str:
    """A text without the tokens of pictures."""
    if "<" not in text and "[IMG" not in text:
        return text.strip()
    return _AROUND_TOKEN.sub("", PICTURE_TOKEN.sub("", text)).strip()


def picture_tokens_in(*texts: str) -> int:
    """How many pictures some texts have a token for."""
    return sum(len(PICTURE_TOKEN.findall(text)) for text in texts)


class Conversation(NamedTuple):
    """Turns that end with a question: it, what was said before, and the tokens of pictures."""

    question: str
    history: tuple[Message, ...]
    picture_tokens: int


_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
}


def turn_of(turn: Any, key: str) -> Message:
    """A turn as LLaVA's JSON or OpenAI's chat has it. Errors: BadRecordError."""
    if not isinstance(turn, Mapping):
        raise BadRecordError(f"`{key}` has {kind_of(turn)} where a turn belongs")
    role_key, text_key = ("from", "value") if "from" in turn else ("role", "content")
    for needed in (role_key, text_key):
        if needed not in turn:
            raise BadRecordError(f"a turn of `{key}` has no `{needed}`")
    role = _ROLES.get(str(turn[role_key]))
    if role is None:
        raise BadRecordError(f"a turn of `{key}` is of {turn[role_key]!r}, neither user nor model")
    return Message(role, _text_of_content(turn[text_key], key))


def _text_of_content(content: Any, key: str) -> str:
    """The text of a turn, `<image>` for each picture among its parts."""
    if not isinstance(content, list):
        return as_text(content, f"{key}.content")
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise BadRecordError(f"a part of a turn of `{key}` has no `type`")
        if part["type"] in ("image", "image_url"):
            texts.append("<image>")
        elif part["type"] == "text":
            texts.append(as_text(part.get("text"), f"{key}.content.text"))
        else:
            raise BadRecordError(f"a part of a turn of `{key}` is of type {part['type']!r}")
    return "".join(texts)


def turns_in(record: Record, key: str) -> list[Message]:
    """The turns of a record. Errors: BadRecordError."""
    return [turn_of(turn, key) for turn in list_in(record, key)]


def conversation(turns: Sequence[Message], key: str) -> Conversation:
    """What turns ask. Errors: BadRecordError where they do not end with a user's."""
    if not turns or turns[-1].role != "user":
        raise BadRecordError(f"`{key}` does not end with a question")
    tokens = picture_tokens_in(*(turn.text for turn in turns if turn.role == "user"))
    plain = [Message(turn.role, without_picture_tokens(turn.text)) for turn in turns]
    return Conversation(plain[-1].text, tuple(plain[:-1]), tokens)


def unlike(pictures: int, *tokens: int) -> int:
    """Of several numbers of tokens, the one that fits so many pictures least."""
    return max(tokens, key=lambda number: abs(number - pictures))


def answered(turns: Sequence[Message], key: str) -> tuple[Conversation, str]:
    """What turns ask, and their last answer. Errors: BadRecordError where they do not end so."""
    if not turns or turns[-1].role != "assistant":
        raise BadRecordError(f"`{key}` does not end with an answer")
    return conversation(turns[:-1], key), turns[-1].text
