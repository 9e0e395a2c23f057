"""The rows of many shard files, read when they are asked for: what is held in memory is where each
of them stands, however long its texts are.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Generic, NamedTuple, cast

import orjson

from lib.data.rows import MissingRow
from lib.data.shards import Row, refuse_other_prompts
from lib.files import read_json_lines
from lib.jobs.job import Job


class Place(NamedTuple):
    """Where a row stands: the number of its file, and its line's first byte."""

    file: int
    offset: int


class StoredRows(Mapping[str, Row | MissingRow], Generic[Row]):
    """The rows of a stage's shard files by prompt id, in the order of the files.

    ids  the prompt ids of each file, one a line
    """

    def __init__(self, paths: Iterable[str | Path], row: type[Row]) -> None:
        """`row`: what the stage publishes (lib/data/rows.py)."""
        self.paths = [Path(path) for path in paths]
        self._streams: dict[int, BinaryIO] = {}
        self._places: dict[str, Place] = {}
        self.ids: list[list[str]] = [[] for _ in self.paths]
        for number, path in enumerate(self.paths):
            for offset, entry in read_json_lines(path):
                name = str(entry.get("id"))
                self.ids[number].append(name)
                self._places[name] = Place(number, offset)

    def __getitem__(self, prompt_id: str) -> Row | MissingRow:
        place = self._places[prompt_id]
        if place.file not in self._streams:
            self._streams[place.file] = open(self.paths[place.file], "rb")  # noqa: SIM115
        stream = self._streams[place.file]
        stream.seek(place.offset)
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
