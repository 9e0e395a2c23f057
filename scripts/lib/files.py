"""Files that are whole or absent, and text whose bytes depend on its content only."""

import ctypes
import errno
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from lib.errors import UserError

CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False)
#: The folder of this project.
PROJECT = Path(__file__).resolve().parents[2]
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def expand(path: str) -> str:
    """A path with `~` and environment variables filled in. Errors: ValueError where there is no
    such variable or user.
    """
    filled = os.path.expandvars(path)
    if unset := re.findall(r"\$(?:\w+|\{[^}]*\})", filled):
        raise ValueError(
            f"the environment has no {', '.join(unset)}. Set it where the run is started and"
            " where its jobs run, or write the path itself"
        )
    try:
        return str(Path(filled).expanduser())
    except RuntimeError:
        raise ValueError(f"'{path}' begins with a user that is not there. Correct it") from None


def canonical_json(value: Any) -> str:
    """One line of JSON, keys sorted, no escapes beyond what JSON needs: equal values give equal
    text. NaN is refused.

    Keys of items are hashes of it, which is why it stays the standard library's: another encoder
    may print a float in another way.
    """
    return CANONICAL.encode(value)


def json_line(value: Any) -> bytes:
    """One line of JSON with its line end, keys sorted: equal values give equal bytes. NaN, infinity
    and lone surrogates are a ValueError.

    For the lines of shard files and journals, where an encoder in Python would take a third of a
    small reward model's time.
    """
    try:
        line = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"no JSON can hold this: {error}") from error
    if b"null" in line:
        json.dumps(
            value, allow_nan=False
        )  # orjson makes NaN a null; this refuses it, and lets a None pass
    return line


def digest(value: Any) -> str:
    """sha256 (hex) of a value's canonical JSON."""
    return sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def digest_of_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with open(path, "rb", buffering=0) as stream:
        return file_digest(stream, "sha256").hexdigest()


@contextmanager
def mendable_storage_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a read-only folder into a message that says what to do; nothing
    published is touched.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise UserError(
                f"{path}: no space left on this file system. What is finished is kept: free some"
                " room and run again."
            ) from error
        if error.errno in READ_ONLY:
            raise UserError(
                f"{path}: cannot be written ({os.strerror(error.errno)}). Make its folder writable,"
                " or choose another `results` folder in the configuration, and run again; what is"
                " finished is kept."
            ) from error
        raise


def sync(path: Path) -> None:
    """Returns when a file, or a folder's list of names, is on the disk and not in memory only."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """`sync` of an open file or folder."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have nothing to wait for, in a folder for instance.
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def sync_file_system(folder: Path) -> None:
    """Returns when all that was written to a folder's file system is on the disk: for hundreds of
    files, a fraction of what `sync` of each takes.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not sys.platform.startswith("linux") or ctypes.CDLL(None).syncfs(descriptor):
            os.sync()
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; their names are on the disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def part_of(path: Path) -> Path:
    """Where a file or folder is made before it has its name: beside it, since a name can be given
    within one file system only. Always the same, so that what a killed job left is written over.
    """
    return path.with_name(f".{path.stem}.part{path.suffix}")


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path to write to, renamed onto `path` at the end, so that `path` is never
    half-written; no two processes may do so at once.

    `durable`: at the end it is on the disk, power cut or not. Without it the caller has yet to
    `sync` it and its folder.
    """
    with mendable_storage_errors(path):
        make_folder(path.parent)
        temporary = part_of(path)
        try:
            temporary.write_bytes(b"")
            yield temporary
            if durable:
                sync(temporary)
            temporary.replace(path)
            if durable:
                sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to be filled, which then takes the place of `folder`, whole; what an
    error leaves of it is written over. Errors: as those of `mendable_storage_errors`.
    """
    with mendable_storage_errors(folder.parent):
        unfinished = part_of(folder)
        _delete_folder(unfinished)
        make_folder(unfinished)
        yield unfinished
        sync_file_system(unfinished)
        _delete_folder(folder)
        unfinished.rename(folder)


def _delete_folder(folder: Path) -> None:
    """Deletes a folder, if it is there: `shutil.rmtree` alone makes lists of what is in it. What a
    link leads to is not ours.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    with suppress(OSError):
        for file in files_below(str(folder)):
            Path(file).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Has a file at `target` too. A hard link where the file system allows one: it takes no room,
    and stays when `source` is deleted.
    """
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Writes UTF-8 text, in one or in pieces, whole or not at all."""
    pieces = [text] if isinstance(text, str) else text
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(pieces)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON document for people to read: two spaces, keys sorted, a newline at the end.

    Of a mapping that is no dict, and is in the order of its keys, and of an iterator, which is
    written as an array, no more than one entry is held in memory.
    """
    write_text(path, chain(_pieces_of_json(value, "\n"), ["\n"]))


def _pieces_of_json(value: Any, margin: str) -> Iterator[str]:
    """`margin`: what stands before each line of it but the first."""
    inner = f"{margin}  "
    if isinstance(value, str):
        yield CANONICAL.encode(value)
        return
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        items = sorted(value.items()) if isinstance(value, dict) else value.items()
        entries = ((f"{CANONICAL.encode(key)}: ", each) for key, each in items)
        begin, end = "{}"
    elif isinstance(value, list | Iterator):
        entries = (("", each) for each in value)
        begin, end = "[]"
    else:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=2, allow_nan=False)
        yield text.replace("\n", margin)
        return
    is_empty = True
    for key, each in entries:
        yield f"{begin if is_empty else ','}{inner}{key}"
        yield from _pieces_of_json(each, inner)
        is_empty = False
    yield f"{begin}{end}" if is_empty else f"{margin}{end}"


def files_below(path: str) -> Iterator[str]:
    """The path of every file in a folder and below it, in no order; of a file, itself. No list is
    made of them: a data set has a million.
    """
    if not Path(path).is_dir():
        yield path
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(entry.path)
            elif entry.is_file():
                yield entry.path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON document a line, as `json_line` gives it."""
    lines = b"".join(map(json_line, rows))
    with replacing(path) as temporary:
        temporary.write_bytes(lines)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Errors: ValueError if a key stands twice, of which json keeps the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {key!r} stands twice in one object; delete one of them")
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


#: For JSON that somebody wrote by hand or with another program: equal keys of an object, NaN and
#: infinity are a ValueError, as is what is no JSON.
STRICT_JSON = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Reads what `write_jsonl` wrote. A line that is no JSON is a UserError with file and line."""
    return [row for _, row in read_json_lines(Path(path))]


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file that `write_jsonl` wrote, each with the place of its first byte. Errors:
    as those of `read_jsonl`.
    """
    offset = 0
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip(b"\n"):
                try:
                    row = orjson.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("it is no object")
                except ValueError as error:
                    raise UserError(
                        f"{path}, line {number}: not valid JSON ({error}). Delete the file and run"
                        " again: it is made anew from its journal."
                    ) from error
                yield offset, row
            offset += len(line)
