"""The records of a file, one after the other: no more of it is in memory than a few of them."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, TextIO

import orjson

from lib.data.pair_forms.base import SUFFIXES, BadRecordError, Record, Where, kind_of
from lib.errors import UserError
from lib.files import STRICT_JSON

#: Pictures stand in rows of parquet files: so many rows are read at once.
ROWS_AT_ONCE = 16
#: So many characters of JSON are read at once.
PIECE = 2**18
#: No word or escape of JSON is as long.
LONGEST_WORD = 16
_BLANKS = re.compile(r"[ \t\n\r]*")
BOM_UTF8 = b"\xef\xbb\xbf"
#: A byte order mark of UTF-16 or UTF-32, or what PowerShell writes for `>`.
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")

Records = Iterator[tuple[Where, Record | BadRecordError]]


def read_records(path: Path, contents: bool = True) -> Records:
    """The records of a file with their places; what is wrong with one that is no object.

    `contents`: whether the pictures in parquet files are read. Errors: UserError for a file that
    cannot be read, or not to its end.
    """
    reader = READERS.get(path.suffix.casefold())
    if reader is None:
        raise UserError(
            f"{path}: no pairs can be read from a file of this kind. Convert it to one whose name"
            f" ends in {', '.join(READERS)}, or name another file."
        )
    try:
        yield from reader(path, contents)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}). Mend that, or name another file."
        ) from error


def _json(path: Path, contents: bool) -> Records:
    """A list of objects; what a file of this name holds one object a line of is read so, too."""
    with open(path, "rb") as stream:
        first = _first_byte(stream, path)
    if first == b"[":
        return _json_list(path)
    if first == b"{" and _is_one_object_a_line(path):
        return _json_lines(path, contents)
    found = "one object" if first == b"{" else "neither a list nor an object"
    raise UserError(
        f"{path}: holds {found}, where a list of pairs belongs. Write `[{{...}}, ...]`, or one"
        " object a line."
    )


def _first_byte(stream: BufferedReader, path: Path) -> bytes:
    """The first byte of JSON that is no blank, where the stream then stands. Errors: UserError."""
    start = stream.read(4)
    if start.startswith(_OTHER_ENCODINGS):
        raise UserError(f"{path}: is UTF-16 or UTF-32, not UTF-8. Save it as UTF-8.")
    stream.seek(len(BOM_UTF8) if start.startswith(BOM_UTF8) else 0)
    while (byte := stream.read(1)).isspace():
        pass
    if not byte:
        raise UserError(f"{path}: is empty. Name a file with pairs.")
    stream.seek(-1, 1)
    return byte


def _is_one_object_a_line(path: Path) -> bool:
    with open(path, "rb") as stream:
        lines = (line for line in stream if line.strip(b"\xef\xbb\xbf \t\r\n"))
        line = next(lines, b"").removeprefix(BOM_UTF8)
        with suppress(ValueError):
            return isinstance(orjson.loads(line), dict)
    return False


def _json_list(path: Path) -> Records:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        try:
            for number, record in enumerate(_items(stream), start=1):
                yield Where(path, "record", number), _object(record)
        except UnicodeDecodeError:
            line = _first_line_that_is_not_utf_8(path)
            raise UserError(f"{path}: line {line} is not UTF-8. Save the file as UTF-8.") from None
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}). Mend that.") from error


def _items(stream: TextIO) -> Iterator[Any]:
    """The items of a list of JSON, as they are read. Errors: ValueError with the line."""
    text = _Text(stream)
    text.take("[")
    if text.next() == "]":
        text.take("]")
    else:
        yield text.value()
        while text.next() == ",":
            text.take(",")
            yield text.value()
        text.take("]")
    if rest := text.next():
        raise text.error(f"{rest!r} stands behind the list")


class _Text:
    """JSON that is read piece by piece: what was taken from it is forgotten."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0
        self._lines = 1

    def next(self) -> str:
        """The next character that is no blank; nothing at the end."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr] # it matches nothing, too
            if self._at < len(self._text) or not self._read_on(PIECE):
                return self._text[self._at : self._at + 1]

    def take(self, sign: str) -> None:
        """Goes on behind a sign. Errors: ValueError where it does not come next."""
        if (found := self.next()) != sign:
            raise self.error(
                f"{found!r} stands where {sign!r} belongs" if found else "it is cut off"
            )
        self._at += 1

    def value(self) -> Any:
        """The next value. Errors: ValueError where none comes next."""
        self.next()
        piece = PIECE
        while True:
            try:
                value, end = STRICT_JSON.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not _may_be_cut(error):
                    raise self.error(error.msg, error.pos) from None
                if not self._read_on(piece):
                    raise self.error(f"it is cut off ({error.msg})", error.pos) from None
            except RecursionError:
                raise self.error("its brackets stand too deep in one another") from None
            except ValueError as error:
                raise self.error(str(error)) from None
            else:
                # A number may go on in the next piece.
                if end < len(self._text) or not self._read_on(piece):
                    self._at = end
                    return value
            piece *= 2

    def error(self, problem: str, at: int | None = None) -> ValueError:
        """The error of a place in what is read, with its line."""
        line = self._lines + self._text.count("\n", 0, self._at if at is None else at)
        return ValueError(f"line {line}: {problem}")

    def _read_on(self, characters: int) -> bool:
        """Reads on, and forgets what was taken; whether there was more."""
        more = self._stream.read(characters)
        if more:
            self._lines += self._text.count("\n", 0, self._at)
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)


def _may_be_cut(error: json.JSONDecodeError) -> bool:
    """Whether a value may be incomplete, not wrong: it ends where the text does."""
    return error.msg.startswith("Unterminated string") or error.pos > len(error.doc) - LONGEST_WORD


def _first_line_that_is_not_utf_8(path: Path) -> int:
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def _json_lines(path: Path, _: bool) -> Records:
    with open(path, "rb") as stream:
        _first_byte(stream, path)
        stream.seek(0)
        for number, line in enumerate(stream, start=1):
            if text := line.removeprefix(BOM_UTF8 if number == 1 else b"").strip():
                yield Where(path, "line", number), _decoded(text)


def _decoded(line: bytes) -> Record | BadRecordError:
    try:
        return _object(STRICT_JSON.decode(line.decode("utf-8")))
    except UnicodeDecodeError:
        return BadRecordError("is not UTF-8")
    except RecursionError:
        return BadRecordError("has brackets too deep in one another")
    except json.JSONDecodeError as error:
        return BadRecordError(f"is not valid JSON ({error.msg} at column {error.colno})")
    except ValueError as error:
        return BadRecordError(f"is not valid JSON ({error})")


def _object(value: Any) -> Record | BadRecordError:
    return value if isinstance(value, dict) else BadRecordError(f"is {kind_of(value)}, no object")


def _parquet(path: Path, contents: bool) -> Records:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
        columns = None if contents else _without_contents(file)
        batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
        yield from _rows(path, batches)
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{path}: is no whole parquet file ({_in_short(error)}). Get it anew."
        ) from error


def _arrow(path: Path, _: bool) -> Records:
    """What `datasets` saves to disk."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as batches:
            yield from _rows(path, batches)
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{path}: is no whole arrow file ({_in_short(error)}). Get it anew."
        ) from error


def _rows(path: Path, batches: Iterator[Any]) -> Records:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield Where(path, "row", number), row


def _without_contents(file: Any) -> Sequence[str]:
    """The leaves of a parquet file's columns but for the content of pictures."""
    columns = [file.schema.column(index).path for index in range(len(file.schema))]
    return [name for name in columns if not name.endswith(".bytes")]


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


READERS: dict[str, Callable[[Path, bool], Records]] = dict(
    zip(SUFFIXES, (_json, _json_lines, _json_lines, _parquet, _arrow), strict=True)
)
