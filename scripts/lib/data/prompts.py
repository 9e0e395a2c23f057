"""Prompts: their identity, their shard, and the files they are read from.

A prompt's identity is its text: `<topic>-<first 10 hex digits of its sha256>`. Its line number
means nothing, so that inserting, deleting and reordering lines changes no other prompt.
"""

import unicodedata
from abc import abstractmethod
from array import array
from bisect import bisect_left
from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from heapq import merge
from itertools import accumulate
from pathlib import Path
from typing import overload

from lib.data.rows import PromptRow
from lib.data.texts import control_character_in, visible
from lib.errors import UserError
from lib.files import digest

ID_DIGITS = 10
#: So many files that no topic names are told by their names.
UNREAD_SHOWN = 10
TOPIC = r"[a-z0-9][a-z0-9_]*"
PROMPT_ID = rf"{TOPIC}-[0-9a-f]{{{ID_DIGITS}}}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text-to-image prompt. `id`: `<topic>-<10 hex digits>`, from the text alone."""

    topic: str
    text: str
    id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        digits = sha256(self.text.encode()).hexdigest()[:ID_DIGITS]
        object.__setattr__(self, "id", f"{self.topic}-{digits}")

    def row(self) -> PromptRow:
        """What the prompt's row begins with in every stage."""
        return {"id": self.id, "topic": self.topic, "prompt": self.text}


def shard_of(prompt_id: str, shards_per_topic: int) -> str:
    """The shard ("00", "01", ...) of its topic that a prompt id falls into: its hash modulo the
    number of shards. Of more than a hundred, the names have as many digits as the last one needs,
    so that they sort.
    """
    digits = max(2, len(str(shards_per_topic - 1)))
    return f"{number_in(prompt_id) % shards_per_topic:0{digits}d}"


def number_in(prompt_id: str) -> int:
    """The hash that a prompt id ends with."""
    return int(prompt_id.rsplit("-", 1)[1], 16)


def seed_of(seed: int, *identity: object) -> int:
    """A 31-bit seed from the configured seed and what it is for (prompt id, guidance scale, ...);
    never from a position.
    """
    return int(digest([seed, *map(str, identity)])[:8], 16) >> 1


def read_prompts(path: Path, topic: str, max_characters: int) -> list[Prompt]:
    """The prompts of one topic, in the file's order: UTF-8, one a line, surrounding blanks dropped.

    A missing file, other encodings, control characters, lines that show nothing, that look the same
    as another one, or that are too long are UserErrors that name file and line.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file. Topic '{topic}' needs it: one prompt a line, UTF-8."
        )
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {row}: not UTF-8 (byte 0x{raw[error.start]:02x}). Save the file as"
            " UTF-8, e.g. with `iconv -f latin1 -t utf-8`."
        ) from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if lines == [""]:
        raise UserError(
            f"{path}: the file is empty. Write one prompt a line, or take '{topic}' out of"
            " `topics`."
        )
    prompts: list[Prompt] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        content = unicodedata.normalize("NFC", line.strip())
        where = f"{path}, line {number}"
        seen = visible(content)
        if not content:
            raise UserError(f"{where}: the line is empty. Delete it.")
        if control := control_character_in(content):
            raise UserError(f"{where}: holds {control}. Delete it.")
        if not seen:
            raise UserError(
                f"{where}: the line is empty but for characters that show nothing (the first is"
                f" U+{ord(content[0]):04X}). Delete it."
            )
        if len(content) > max_characters:
            raise UserError(
                f"{where}: {len(content)} characters, over `max_prompt_characters`"
                f" ({max_characters}). Shorten it, or raise the limit."
            )
        if (other := lines_of.setdefault(seen, number)) != number:
            difference = _difference(content, prompts[other - 1].text)
            raise UserError(
                f"{where}: the same prompt as on line {other}{difference}. Delete one of them."
            )
        prompts.append(Prompt(topic, content))
    _refuse_equal_ids(path, prompts)
    return prompts


def _refuse_equal_ids(path: Path, prompts: Sequence[Prompt]) -> None:
    """Ends with a UserError where two prompts of a topic have one id: among 100,000 of them that
    happens once in 200 times, and everything of the one would be taken for the other's.
    """
    lines: dict[str, int] = {}
    for number, prompt in enumerate(prompts, start=1):
        if (other := lines.setdefault(prompt.id, number)) != number:
            raise UserError(
                f"{path}, line {number}: by chance this prompt has the same id as that on line"
                f" {other} ({prompt.id}: {ID_DIGITS} digits of the text's sha256). Change a word in"
                " one of them."
            )


def is_empty(path: Path) -> bool:
    """Whether a file of prompts is missing, or has nothing in it."""
    if not path.is_file():
        return True
    return path.read_bytes().removeprefix(BOM_UTF8) in (b"", b"\n", b"\r\n")


def _difference(text: str, other: str) -> str:
    """In which way two texts that look the same differ, if they do."""
    return "" if text == other else ", but for blanks or characters that show nothing"


class Prompts(Sequence[Prompt]):
    """The prompts of a shard, sorted by id, which are made when they are asked for."""

    @abstractmethod
    def ids(self) -> list[str]:
        """Their ids."""

    @abstractmethod
    def has(self, prompt_id: str) -> bool:
        """Whether one of them has this id."""

    @abstractmethod
    def at(self, place: int) -> Prompt:
        """One of them; `place`: from 0."""

    @overload
    def __getitem__(self, place: int) -> Prompt: ...

    @overload
    def __getitem__(self, place: slice) -> list[Prompt]: ...

    def __getitem__(self, place: int | slice) -> Prompt | list[Prompt]:
        places = range(len(self))[place]
        return self.at(places) if isinstance(places, int) else [self.at(each) for each in places]


class StoredPrompts(Prompts):
    """The prompts of one topic. A run holds all of its prompts, a million perhaps: as objects these
    are 300 MB, as one text with their numbers not half of it.
    """

    def __init__(self, topic: str, prompts: Iterable[Prompt]) -> None:
        prompts = sorted(prompts, key=lambda prompt: prompt.id)
        texts = [prompt.text.encode() for prompt in prompts]
        self.topic = topic
        self._text = b"".join(texts)
        self._ends = array("Q", accumulate(map(len, texts), initial=0))
        self._numbers = array("Q", (number_in(prompt.id) for prompt in prompts))

    def __len__(self) -> int:
        return len(self._numbers)

    def at(self, place: int) -> Prompt:
        """One of them."""
        text = self._text[self._ends[place] : self._ends[place + 1]]
        return Prompt(self.topic, text.decode())

    def ids(self) -> list[str]:
        """Their ids."""
        return [self._id_of(number) for number in self._numbers]

    def _id_of(self, number: int) -> str:
        return f"{self.topic}-{number:0{ID_DIGITS}x}"

    def has(self, prompt_id: str) -> bool:
        """Whether one of them has this id."""
        number = number_in(prompt_id)
        place = bisect_left(self._numbers, number)
        return place < len(self) and self._id_of(self._numbers[place]) == prompt_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredPrompts) and (
            (self.topic, self._text, self._ends) == (other.topic, other._text, other._ends)
        )


class MergedPrompts(Prompts):
    """The prompts of several shards."""

    def __init__(self, parts: Sequence[Prompts]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Prompt]:
        return merge(*self._parts, key=lambda prompt: prompt.id)

    def has(self, prompt_id: str) -> bool:
        """Whether one of them has this id."""
        return any(part.has(prompt_id) for part in self._parts)

    def at(self, place: int) -> Prompt:
        """One of them, for which all are made."""
        prompts: list[Prompt] = list(self)
        return prompts[place]

    def ids(self) -> list[str]:
        """Their ids."""
        return sorted(name for part in self._parts for name in part.ids())


@dataclass(frozen=True)
class Shard:
    """The prompts that one job works on, of one topic or of all of them, sorted by id."""

    topic: str
    name: str
    prompts: Prompts

    @cached_property
    def digest(self) -> str:
        """Changes when, and only when, the set of prompts in this shard changes."""
        return digest(self.prompts.ids())


def make_shards(prompts: Sequence[Prompt], shards_per_topic: int) -> list[Shard]:
    """The shards of one topic that hold at least one prompt, by name."""
    members: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        members.setdefault(shard_of(prompt.id, shards_per_topic), []).append(prompt)
    topic = prompts[0].topic
    return [Shard(topic, name, StoredPrompts(topic, members[name])) for name in sorted(members)]


def unread_files(folder: Path, topics: Sequence[str]) -> list[str]:
    """The names of files of prompts that no topic names: `<name>.txt` in the folder."""
    read = {f"{topic}.txt" for topic in topics}
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix.casefold() == ".txt"
        and path.name not in read
        and not path.name.startswith(".")
        and path.is_file()
    )


def tell_unread_files(folder: Path, topics: Sequence[str]) -> list[str]:
    """A warning, where there are files of prompts that no topic names: somebody may have forgotten
    to add theirs.
    """
    names = unread_files(folder, topics)
    if not names:
        return []
    shown = ", ".join(map(repr, names[:UNREAD_SHOWN]))
    more = f" and {len(names) - UNREAD_SHOWN} more" if len(names) > UNREAD_SHOWN else ""
    files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
    return [
        (
            f"{folder}: {files} of no topic that `topics` names, and this run has none of their"
            f" prompts: {shown}{more}. A topic is added to `topics` by the file's name without"
            " `.txt` (small letters, digits and underscores)."
        )
    ]


def read_topics(
    folder: Path,
    topics: Sequence[str],
    shards_per_topic: int,
    max_characters: int,
    to_be_written: Collection[str] = (),
) -> dict[tuple[str, str], Shard]:
    """All shards by (topic, shard name). A prompt that stands in two topics, or looks the same as
    one of another, is a UserError: its pairs would count twice.

    `to_be_written`: topics whose file may be missing or empty, since an LLM can write it.
    """
    shards: dict[tuple[str, str], Shard] = {}
    looks = Looks()
    for topic in topics:
        if topic in to_be_written and is_empty(folder / f"{topic}.txt"):
            continue
        prompts = read_prompts(folder / f"{topic}.txt", topic, max_characters)
        looks.add(prompts)
        for shard in make_shards(prompts, shards_per_topic):
            shards[topic, shard.name] = shard
    if looks.may_be_alike():
        read = dict.fromkeys(topic for topic, _ in shards)
        _refuse_alike(folder, [read_prompts(folder / f"{t}.txt", t, max_characters) for t in read])
    return shards


class Looks:
    """What the prompts of all topics look like, in so little memory that two may seem alike that
    are not.
    """

    def __init__(self) -> None:
        self._hashes: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))

    def add(self, prompts: Iterable[Prompt]) -> None:
        """Takes the prompts of a topic."""
        for prompt in prompts:
            number = hash(visible(prompt.text))
            self._hashes[number % 64].append(number)

    def may_be_alike(self) -> bool:
        """Whether two prompts may look the same."""
        return any(len(set(each)) < len(each) for each in self._hashes.values())


def _refuse_alike(folder: Path, topics: Iterable[Sequence[Prompt]]) -> None:
    """A UserError where a prompt of a topic looks the same as one of another."""
    home: dict[str, Prompt] = {}
    for prompts in topics:
        for line, prompt in enumerate(prompts, start=1):
            if (other := home.setdefault(visible(prompt.text), prompt)) is not prompt:
                raise UserError(
                    f"{folder / f'{prompt.topic}.txt'}, line {line}: the same prompt stands in"
                    f" topic '{other.topic}'{_difference(prompt.text, other.text)}. Delete one of"
                    " them."
                )
