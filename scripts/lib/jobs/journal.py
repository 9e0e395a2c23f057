"""The append-only record of a job's finished items, which makes every stage resumable.

One line an item, flushed as soon as the item is done. It lies outside Snakemake's declared outputs,
which Snakemake deletes before a job. Killing a job anywhere loses the batch in flight and nothing
else: a torn last line is dropped on reading.
"""

import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from lib.errors import UserError
from lib.files import json_line, mendable_storage_errors

FORMAT = 1


class Journal:
    """A journal opened for one job.

    `entries` holds the newest line of each finished or failed key: `{"key", "id", "status": "ok" |
    "failed", "result" | "reason", "seconds"}`. Lines `{"begin": [keys]}` say which items a batch
    set out to compute; they are evidence, and nothing is decided by them. A session's first has the
    `"versions"` of libraries that the items after it were computed under: `versions`, by key.
    """

    def __init__(self, path: Path, rule: str) -> None:
        self.path = path
        self.rule = rule
        self.entries: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self._versions_now: dict[str, str] = {}
        self.dropped_lines = 0
        self._unwritten: list[bytes] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with mendable_storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = open(self.path, "a+b", buffering=0)
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise UserError(
                f"{self.path}: another job is writing this journal. Wait for it to end, or cancel"
                " it, and run again."
            ) from error
        self._read()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self._stream.close()

    def _read(self) -> None:
        self._stream.seek(0)
        content = self._stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self.dropped_lines += 1
            self._stream.truncate(len(whole))
        lines = whole.split(b"\n")[:-1]
        if not lines:
            self._append({"journal": FORMAT, "rule": self.rule})
            return
        header = self._parse(lines[0])
        if header.get("journal") != FORMAT or header.get("rule") != self.rule:
            raise UserError(
                f"{self.path}, line 1: not a journal of {self.rule} in format {FORMAT} (found"
                f" {lines[0][:80].decode('utf-8', 'replace')!r}). It comes from another version of"
                " this workflow: move it away (its items are then computed again), or use that"
                " version."
            )
        for line in lines[1:]:
            entry = self._parse(line)
            if "key" in entry:
                self.entries[entry["key"]] = entry
                self.versions[entry["key"]] = self._versions_now
            elif isinstance(entry.get("versions"), dict):
                self._versions_now = entry["versions"]
            elif "begin" not in entry:
                self.dropped_lines += 1

    @staticmethod
    def _parse(line: bytes) -> dict[str, Any]:
        try:
            entry = orjson.loads(line)
        except ValueError:
            return {}
        return entry if isinstance(entry, dict) else {}

    def _append(self, entry: dict[str, Any], at_once: bool = True) -> None:
        line = json_line(entry)
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

    def finished(self, key: str) -> dict[str, Any] | None:
        """The result of an item that is done, or None if it has to be computed (again)."""
        entry = self.entries.get(key)
        return entry["result"] if entry and entry["status"] == "ok" else None

    def begin(self, keys: list[str], versions: dict[str, str] | None = None) -> None:
        """Notes that a batch is about to be computed, and under which versions of libraries, unless
        they are those of the batch before.
        """
        if versions is None or versions == self._versions_now:
            self._append({"begin": keys})
            return
        self._append({"begin": keys, "versions": versions})
        self._versions_now = versions

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
        the next batch's `begin` follows at once. Each write disturbs what is computed next.
        """
        entry: dict[str, Any] = {"key": key, "id": item_id, "seconds": round(seconds, 4)}
        entry |= (
            {"status": "ok", "result": result}
            if reason is None
            else {"status": "failed", "reason": reason}
        )
        self._append(entry, at_once)
        self.entries[key] = entry
        self.versions[key] = self._versions_now
