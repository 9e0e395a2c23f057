"""The append-only record of a job's finished items, which makes every stage resumable.

One line an item, flushed as soon as the item is done. It lies outside Snakemake's declared outputs,
which Snakemake deletes before a job. Killing a job anywhere loses what was handed out and had not
ended, and nothing else: a torn last line is dropped on reading. Each line begins with a checksum of
itself, so that one that was edited or damaged is dropped, too, and its item computed again. Dropped
lines are blanked, and so told once.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Any, Self

import orjson

from lib.errors import UserError
from lib.files import json_line, make_folder, mendable_storage_errors, sync_descriptor
from lib.jobs.locks import Lock, TakenError

FORMAT = 1
KEY = re.compile(rb'"key": ?"([^"]+)"')
#: How a line with a checksum begins: `{"sum":"<16 hex digits>",`.
SUM = b'{"sum":"'
DIGITS = 16
LENGTH_OF_SUM = len(SUM) + DIGITS + len(b'",')
#: Waiting for the disk takes less than one part in so many of a job's time.
SHARE_OF_SYNCING = 200
#: What a disk is thought to take before it was waited for.
SECONDS_TO_SYNC = 0.05


def with_sum(line: bytes) -> bytes:
    """A line of JSON, its line end included, with its checksum as the first key."""
    return b'%s%s",%s' % (SUM, _sum_of(line[1:-1]), line[1:])


def is_whole(line: bytes, needs_sum: bool) -> bool:
    """Whether a line, without its line end, is as it was written. `needs_sum`: lines of older
    versions have no checksum, and are believed.
    """
    if not has_sum(line):
        return not needs_sum
    return line[:LENGTH_OF_SUM] == b'%s%s",' % (SUM, _sum_of(line[LENGTH_OF_SUM:]))


def has_sum(line: bytes) -> bool:
    """Whether a line begins with a checksum, right or wrong."""
    return line.startswith(SUM)


def _sum_of(body: bytes) -> bytes:
    return sha256(body).hexdigest()[:DIGITS].encode()


@dataclass
class Line:
    """A line of a journal: its number from 1, where it begins, what it holds (nothing where it is
    damaged, None where it was blanked).
    """

    number: int
    start: int
    content: bytes
    entry: dict[str, Any] | None


def read_lines(content: bytes) -> Iterator[Line]:
    """The whole lines of a journal."""
    needs_sum, start = False, 0
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        needs_sum = needs_sum or has_sum(line)
        entry = None if number > 1 and not line.strip(b" ") else _parse(line, needs_sum)
        yield Line(number, start, line, entry)
        start += len(line) + 1


def _parse(line: bytes, needs_sum: bool) -> dict[str, Any]:
    if not is_whole(line, needs_sum):
        return {}
    try:
        entry = orjson.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and _is_known(entry) else {}


def _is_known(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is one of a journal's: the header, what was begun, or an item."""
    if "key" not in entry:
        return "journal" in entry or "begin" in entry
    return {"ok": "result", "failed": "reason"}.get(entry.get("status", "")) in entry


@dataclass(frozen=True)
class FinishedItem:
    """An item that another journal holds: its result, the seconds that it took, and the versions of
    libraries that it was computed under.
    """

    key: str
    id: str
    result: Any
    seconds: float
    versions: dict[str, str]


class Journal:
    """A journal opened for one job.

    `entries` holds the newest line of each finished or failed key: `{"key", "id", "status": "ok" |
    "failed", "result" | "reason", "seconds"}`. Lines `{"begin": [keys]}` say which items were
    handed out together to be computed; they are evidence, and nothing is decided by them. A
    session's first has the `"versions"` of libraries that the items after it were computed under:
    `versions`, by key.
    """

    def __init__(self, path: Path, rule: str) -> None:
        self.path = path
        self.rule = rule
        self.entries: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.versions_now: dict[str, str] = {}
        self.dropped_lines = 0
        self._unwritten: list[bytes] = []
        self._lock = threading.Lock()
        self._next_sync = time.monotonic() + SHARE_OF_SYNCING * SECONDS_TO_SYNC

    def __enter__(self) -> Self:
        with mendable_storage_errors(self.path):
            make_folder(self.path.parent)
            self._stream = open(self.path, "a+b", buffering=0)
        try:
            self._held = Lock(self._stream, self.path)
        except TakenError as error:
            self._stream.close()
            by = f" ({error.owner})" if error.owner else ""
            raise UserError(
                f"{self.path}: another job is writing this journal{by}. Wait for it to end, or"
                " cancel it, and run again."
            ) from error
        try:
            self._read()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
            self._sync()
        finally:
            self._close()

    def _close(self) -> None:
        self._stream.close()
        self._held.release()

    def _sync(self) -> None:
        with mendable_storage_errors(self.path):
            sync_descriptor(self._stream.fileno())

    def _read(self) -> None:
        self._stream.seek(0)
        content = self._stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self.dropped_lines += 1
            self._stream.truncate(len(whole))
        lines = list(read_lines(whole))
        if not lines:
            self._append({"journal": FORMAT, "rule": self.rule})
            return
        header = lines[0].entry or {}
        if header.get("journal") != FORMAT or header.get("rule") != self.rule:
            raise UserError(
                f"{self.path}, line 1: not a journal of {self.rule} in format {FORMAT} (found"
                f" {lines[0].content[:80].decode('utf-8', 'replace')!r}). It comes from another"
                " version of this workflow, or is damaged: use that version, or move it away"
                f" (`mv {quote(str(self.path))} {quote(f'{self.path}.old')}`) and run again; its"
                " items are then computed again."
            )
        for line in lines[1:]:
            entry = line.entry or {}
            if "key" in entry:
                self.entries[entry["key"]] = entry
                self.versions[entry["key"]] = self.versions_now
            elif isinstance(entry.get("versions"), dict):
                self.versions_now = entry["versions"]
        self._blank([line for line in lines if line.entry == {}])

    def _blank(self, damaged: list[Line]) -> None:
        """Takes lines away that are not to be believed."""
        self.dropped_lines += len(damaged)
        if damaged:
            with mendable_storage_errors(self.path), open(self.path, "r+b") as stream:
                for line in damaged:
                    stream.seek(line.start)
                    stream.write(b" " * len(line.content))

    def _append(self, entry: dict[str, Any], at_once: bool = True) -> None:
        line = with_sum(json_line(entry))
        with self._lock:
            self._unwritten.append(line)
            if at_once:
                self._write()

    def flush(self) -> None:
        """Writes the lines that were not to be written at once."""
        with self._lock:
            if self._unwritten:
                self._write()

    def _write(self) -> None:
        lines = b"".join(self._unwritten)
        self._unwritten.clear()
        with mendable_storage_errors(self.path):
            written = self._stream.write(lines)
            if written != len(lines):
                # A full disk can take half a line; a later line must not be glued to it.
                self._stream.truncate(os.fstat(self._stream.fileno()).st_size - (written or 0))
                raise OSError(28, "No space left on device")
            self._sync_now_and_then()

    def _sync_now_and_then(self) -> None:
        """Has the disk keep what is written, so often that it costs next to nothing; at the end it
        is done in any case.
        """
        started = time.monotonic()
        if started > self._next_sync:
            self._sync()
            ended = time.monotonic()
            self._next_sync = ended + SHARE_OF_SYNCING * (ended - started)

    def finished(self, key: str) -> dict[str, Any] | None:
        """The result of an item that is done, or None if it has to be computed (again)."""
        entry = self.entries.get(key)
        return entry["result"] if entry and entry["status"] == "ok" else None

    def begin(self, keys: list[str], versions: dict[str, str] | None = None) -> None:
        """Notes that items are about to be computed, and under which versions of libraries, unless
        they are those of the items before.
        """
        if versions is None or versions == self.versions_now:
            self._append({"begin": keys})
            return
        self._append({"begin": keys, "versions": versions})
        self.versions_now = versions

    def add(
        self,
        key: str,
        item_id: str,
        *,
        seconds: float,
        result: Any = None,
        reason: str | None = None,
        at_once: bool = True,
    ) -> None:
        """Records one item: done with its result, or failed with its reason.

        `at_once`: without it the line is written with the next one, or by `flush`: for an item that
        the next `begin` or `flush` follows at once. Each write disturbs what is computed next.
        """
        entry: dict[str, Any] = {"key": key, "id": item_id, "seconds": round(seconds, 4)}
        entry |= (
            {"status": "ok", "result": result}
            if reason is None
            else {"status": "failed", "reason": reason}
        )
        self._append(entry, at_once)
        self.entries[key] = entry
        self.versions[key] = self.versions_now

    def take_over(self, found: FinishedItem, item_id: str, result: Any) -> None:
        """Records an item that another journal holds, with what its result is here; `flush` writes
        it.
        """
        if found.versions != self.versions_now:
            self.begin([], found.versions)
        self.add(found.key, item_id, seconds=found.seconds, result=result, at_once=False)


def finished_elsewhere(path: Path, is_wanted: Callable[[str], bool]) -> list[FinishedItem]:
    """The newest results of the items that a journal holds as finished under a key that is wanted.

    The journal may be another job's that writes it at this moment; nothing is locked or changed.
    """
    items: dict[str, FinishedItem | None] = {}
    versions: dict[str, str] = {}
    needs_sum = False
    for line in path.read_bytes().split(b"\n")[:-1]:
        needs_sum = needs_sum or has_sum(line)
        if b'"versions":' in line and "key" not in (begin := _parse(line, needs_sum)):
            versions = begin.get("versions", versions)
        elif (found := KEY.search(line)) and is_wanted(found[1].decode()):
            entry = _parse(line, needs_sum)
            items[found[1].decode()] = (
                FinishedItem(entry["key"], entry["id"], entry["result"], entry["seconds"], versions)
                if entry.get("status") == "ok"
                else None
            )
    return [item for item in items.values() if item]
