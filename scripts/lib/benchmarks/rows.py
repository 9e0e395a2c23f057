"""Reading files that somebody else wrote: JSON arrays, JSON lines, JSON values one after the other,
each row with its line.

What makes a file unreadable (no such file, not UTF-8, not JSON, nothing in it) is a UserError; what
is wrong with one row is a Problem, and the other rows are read.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lib.benchmarks.answers import Answer, Answers, Problem
from lib.errors import UserError
from lib.files import STRICT_JSON

T = TypeVar("T")
_SPACE = re.compile(r"[ \t\r\n]*")
Json = dict[str, Any]
#: Where published files keep a model's answer.
TEXT_KEYS = ("response", "text", "answer", "caption", "model_answer")


@dataclass(frozen=True)
class FileRow:
    """A value of a file and the line where it begins; `key` where the file is an object of rows."""

    line: int
    value: Any
    key: str | None = None


def read_text(path: Path) -> str:
    """A file's text. Errors: UserError if there is no such file, it is not UTF-8 or is empty."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Correct the name.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 text (byte {content[error.start]:#04x}). Save the file"
            " as UTF-8."
        ) from None
    if not text.strip():
        raise UserError(f"{path}: the file is empty.")
    return text


def lines_of(text: str) -> list[str]:
    """The lines of a text. Line feeds alone end them (a carriage return before one belongs to it):
    words and JSON may hold what Python takes for other line ends (U+2028, U+0085).
    """
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


class _Scanner:
    """Walks over JSON text, counting lines."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.position = self._counted = 0
        self._line = 1

    def line(self) -> int:
        """The line of the position."""
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def skip(self) -> str:
        """Skips white space; the character that follows, "" at the end."""
        match = _SPACE.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return self.text[self.position : self.position + 1]

    def value(self) -> Any:
        """The value at the position."""
        try:
            value, self.position = STRICT_JSON.raw_decode(self.text, self.position)
        except json.JSONDecodeError as error:
            at_end = not self.text[error.pos :].strip() or error.msg.startswith(
                "Unterminated string"
            )
            why = "the file ends in the middle of a value" if at_end else error.msg
            raise UserError(
                f"{self.path}, line {error.lineno}: not valid JSON ({why}). Is the file whole?"
            ) from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path}, line {self.line()}: not valid JSON ({error}).") from None
        return value

    def members(self, closing: str, keyed: bool) -> Iterator[FileRow]:
        """The members of the array or object that the position is at."""
        self.position += 1
        if self.skip() == closing:
            self.position += 1
            return
        while True:
            self.skip()
            line = self.line()
            key = None
            if keyed:
                key = self.value()
                if not isinstance(key, str) or self.skip() != ":":
                    raise UserError(
                        f"{self.path}, line {line}: not valid JSON (a key and a colon are"
                        " expected)."
                    )
                self.position += 1
                self.skip()
            yield FileRow(line, self.value(), key)
            following = self.skip()
            self.position += 1
            if following == closing:
                return
            if following != ",":
                why = (
                    "the file ends too early"
                    if not following
                    else f"{following!r} instead of a comma"
                )
                raise UserError(
                    f"{self.path}, line {self.line()}: not valid JSON ({why}). Is the file whole?"
                )


def read_rows(path: Path, keyed: bool = False) -> list[FileRow]:
    """The rows of a file: the elements of an array, or values one after the other (JSON lines are
    that).

    `keyed`: the file is one object, its members are the rows; that two have one key is the caller's
    to tell. Errors: UserError as in `read_text`, or where it is not JSON or a key stands twice in
    an object, with the line.
    """
    scanner = _Scanner(path, read_text(path))
    first = scanner.skip()
    if keyed and first == "{":
        rows = list(scanner.members("}", keyed=True))
    elif not keyed and first == "[":
        rows = list(scanner.members("]", keyed=False))
    elif keyed:
        raise UserError(
            f"{path}: a JSON object is expected, one member an id, but the file begins with"
            f" {first!r}."
        )
    else:
        rows = []
        while scanner.skip():
            line = scanner.line()
            rows.append(FileRow(line, scanner.value()))
    if scanner.skip():
        raise UserError(
            f"{path}, line {scanner.line()}: more text after the end of the JSON value. Are two"
            " files glued together?"
        )
    if not rows:
        raise UserError(f"{path}: the file holds no rows.")
    return rows


def read_json(path: Path) -> Any:
    """The one JSON value of a file. Errors as in `read_rows`."""
    scanner = _Scanner(path, read_text(path))
    scanner.skip()
    value = scanner.value()
    if scanner.skip():
        raise UserError(
            f"{path}, line {scanner.line()}: more text after the end of the JSON value."
        )
    return value


def by_id(path: Path, rows: Sequence[FileRow], entries: Iterable[tuple[str, T]]) -> dict[str, T]:
    """The entries (id, value) of a reference's rows. Errors: UserError where two have one id."""
    values: dict[str, T] = {}
    for row, (name, value) in zip(rows, entries, strict=True):
        if name in values:
            raise UserError(f"{path}, line {row.line}: id {name!r} again. Delete one of the rows.")
        values[name] = value
    return values


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "an array",
        dict: "an object",
    }
    return names[type(value)]


def id_of(value: Any) -> str | None:
    """An id as text: ids are texts or whole numbers; None for anything else."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


class _AnswersReader:
    """Makes answers of a file's rows; what is wrong with a row becomes a problem."""

    def __init__(self, path: Path, rows: Sequence[FileRow]) -> None:
        self.file = str(path)
        self.answers: dict[str, Answer] = {}
        self.problems: list[Problem] = []
        self._rows_on_line = Counter(row.line for row in rows)

    def tell(self, row: FileRow, number: int, what: str) -> None:
        """Puts a problem on record. In an array on one line, the row is told by its number."""
        if self._rows_on_line[row.line] > 1:
            what = f"row {number}: {what}"
        self.problems.append(Problem(self.file, row.line, what))

    def add(self, row: FileRow, number: int, name: str, text: str, details: Json) -> None:
        """Takes an answer in; of several with one id, the first."""
        if name in self.answers:
            line = self.answers[name].line
            what = f"id {name!r} again: line {line} has it already, and that one is scored"
            self.tell(row, number, what)
            return
        if not text.strip():
            what = f"the answer of id {name!r} is empty; scored as the reference scores it"
            self.tell(row, number, what)
        self.answers[name] = Answer(name, text, row.line, details)


def answers_from(
    path: Path,
    rows: Sequence[FileRow],
    id_keys: Sequence[str],
    rename: Callable[[str, Mapping[str, Any]], str] = lambda name, row: name,
    details: Sequence[str] = (),
) -> Answers:
    """The answers of rows that are objects, with their bad rows told.

    id_keys   the row's id is under the first of these that it has
    rename    makes our id of the file's (id, row)
    details   keys of the row that are kept

    Of several rows with one id the first is scored. An empty answer is scored as the reference
    scores it, and told. Errors: UserError where not a single row is an answer.
    """
    reader = _AnswersReader(path, rows)
    for number, row in enumerate(rows, start=1):
        try:
            name, text = _id_and_text(row.value, id_keys)
        except ValueError as error:
            reader.tell(row, number, f"{error}; not scored")
            continue
        kept = {key: row.value[key] for key in details if key in row.value}
        reader.add(row, number, rename(name, row.value), text, kept)
    if not reader.answers:
        raise UserError(
            f"{reader.problems[0]} (and so with all of its {len(rows)} rows). Is this a file of"
            " answers?"
        )
    return Answers(reader.file, list(reader.answers.values()), reader.problems)


def _id_and_text(value: Any, id_keys: Sequence[str]) -> tuple[str, str]:
    """The id and the answer of a row. Errors: ValueError that says what is wrong with it."""
    if not isinstance(value, dict):
        raise ValueError(f"the row is {kind_of(value)}, not an object")
    id_key = next((key for key in id_keys if key in value), None)
    if id_key is None:
        raise ValueError(f"it has no id ({' or '.join(map(repr, id_keys))})")
    name = id_of(value[id_key])
    if name is None:
        raise ValueError(f"its {id_key!r} is {kind_of(value[id_key])}, not an id")
    text_key = next((key for key in TEXT_KEYS if key in value), None)
    if text_key is None:
        raise ValueError(f"id {name!r} has no answer ({' or '.join(map(repr, TEXT_KEYS))})")
    text = value[text_key]
    if not isinstance(text, str):
        raise ValueError(f"the answer of id {name!r} is {kind_of(text)}, not text")
    return name, text
