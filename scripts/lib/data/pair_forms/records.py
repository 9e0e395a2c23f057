"""The records of a file, one after the other: no more of it is in memory than a few of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import orjson

from lib.data.pair_forms.base import BadRecordError, Record, Where, kind_of
from lib.errors import UserError
from lib.files import STRICT_JSON

#: Pictures stand in rows of parquet files: so many rows are read at once.
ROWS_AT_ONCE = 16
BOM_UTF8 = b"\xef\xbb\xbf"
#: A byte order mark of UTF-16 or UTF-32, or what PowerShell writes for `>`.
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")

Records = Iterator[tuple[Where, Record | BadRecordError]]


class _UniqueKeys(dict[str, Any]):
    """An object of JSON, in which no key stands twice."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            raise ValueError(f"the key {key!r} stands twice in one object; delete one of them")
        super().__setitem__(key, value)


def read_records(path: Path, contents: bool = True) -> Records:
    """The records of a file with their places; what is wrong with one that is no object.

    `contents`: whether the pictures in parquet files are read. Errors: UserError for a file that
    cannot be read, or not to its end.
    """
    reader = READERS.get(path.suffix.casefold())
    if reader is None:
        raise UserError(
            f"{path}: pairs are read from {', '.join(READERS)}, and this is neither. Convert it, or"
            " name another file."
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
    import ijson

    with open(path, "rb") as stream:
        _first_byte(stream, path)
        try:
            items = ijson.items(stream, "item", use_float=True, map_type=_UniqueKeys)
            for number, record in enumerate(items, start=1):
                yield Where(path, "record", number), _object(record)
        except (ijson.JSONError, ValueError) as error:
            raise UserError(f"{path}: {_what_is_wrong(path, error)}") from error


def _what_is_wrong(path: Path, error: Exception) -> str:
    """What is wrong with a file of JSON, with its line: the file is read once more, as a whole."""
    try:
        STRICT_JSON.decode(path.read_bytes().removeprefix(BOM_UTF8).decode("utf-8"))
    except UnicodeDecodeError as wrong:
        line = path.read_bytes()[: wrong.start].count(b"\n") + 1
        return f"line {line} is not UTF-8. Save the file as UTF-8."
    except RecursionError:
        return "its brackets stand too deep in one another. Name another file."
    except ValueError as wrong:
        return f"not valid JSON ({wrong}). Mend that."
    return f"not valid JSON ({error}). Mend that."


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


READERS: dict[str, Callable[[Path, bool], Records]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
