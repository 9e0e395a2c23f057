"""The rows of many shard files, read when they are asked for: what is held in memory is where each
of them stands, however long its texts are.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Generic, cast

import orjson

from lib.data.rows import MissingRow
from lib.data.shards import Row, refuse_other_prompts
from lib.files import read_json_lines
from lib.jobs.job import Job


class StoredRows(Mapping[str, Row | MissingRow], Generic[Row]):
    """The rows of a stage's shard files by prompt id, in the order of the files.

    ids  the prompt ids of each file, one a line
    """

    def __init__(self, paths: Iterable[str | Path], row: type[Row]) -> None:
        """`row`: what the stage publishes (lib/data/rows.py)."""
        self.paths = [Path(path) for path in paths]
        self._streams: dict[int, BinaryIO] = {}
        #: Where a row stands, in one number: its line's first byte, and the number of its file.
        self._places: dict[str, int] = {}
        self.ids: list[list[str]] = [[] for _ in self.paths]
        for number, path in enumerate(self.paths):
            for offset, entry in read_json_lines(path):
                name = sys.intern(str(entry.get("id")))  # the same text in each stage's rows
                self.ids[number].append(name)
                self._places[name] = offset * len(self.paths) + number

    def __getitem__(self, prompt_id: str) -> Row | MissingRow:
        offset, file = divmod(self._places[prompt_id], len(self.paths))
        if file not in self._streams:
            self._streams[file] = open(self.paths[file], "rb")  # noqa: SIM115
        stream = self._streams[file]
        stream.seek(offset)
        return cast("Row", orjson.loads(stream.readline()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def whole_stored_rows(
    job: Job[Any], paths: Iterable[str | Path], row: type[Row]
) -> StoredRows[Row]:
    """The rows of shard files that a job goes on from.

    Errors: UserError if those of a file are not of its shard's prompts, each once.
    """
    rows = StoredRows(paths, row)
    for path, ids in zip(rows.paths, rows.ids, strict=True):
        refuse_other_prompts(job, path, ids)
    return rows
