"""The rows of many shard files, read when they are asked for: neither they nor where each of them
stands are held in memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Generic, cast

import orjson

from lib.data.rows import MissingRow
from lib.data.shards import Row, refuse_other_prompts
from lib.data.stored_mapping import StoredMapping
from lib.files import read_json_lines
from lib.jobs.job import Job

#: No file has so many bytes.
PLACES = 2**40
#: So many files are open at once: a process may often have no more than 1024, each takes 8 KB, and
#: a run may have more shards.
OPEN = 100


class StoredRows(Mapping[str, Row | MissingRow], Generic[Row]):
    """The rows of a stage's shard files by prompt id, in the order of the files."""

    def __init__(
        self, paths: Iterable[str | Path], row: type[Row], job: Job[Any] | None = None
    ) -> None:
        """`row`: what the stage publishes (lib/data/rows.py). `job`: see `whole_stored_rows`."""
        self.paths = [Path(path) for path in paths]
        self._streams: dict[int, BinaryIO] = {}
        #: Where a row stands, in one number: that of its file, and its line's first byte.
        self._places = StoredMapping(self._places_in_files(job))

    def _places_in_files(self, job: Job[Any] | None) -> Iterator[tuple[str, int]]:
        for number, path in enumerate(self.paths):
            places = [
                (str(entry.get("id")), number * PLACES + offset)
                for offset, entry in read_json_lines(path)
            ]
            if job:
                refuse_other_prompts(job, path, [name for name, _ in places])
            yield from places

    def __getitem__(self, prompt_id: str) -> Row | MissingRow:
        file, offset = divmod(self._places[prompt_id], PLACES)
        if file not in self._streams:
            if len(self._streams) == OPEN:
                self._streams.pop(next(iter(self._streams))).close()
            self._streams[file] = open(self.paths[file], "rb")  # noqa: SIM115
        stream = self._streams[file]
        stream.seek(offset)
        return cast("Row", orjson.loads(stream.readline()))

    def read(self) -> Iterator[Row | MissingRow]:
        """All rows in their order: read from the first byte to the last, and not each by its id."""
        return (cast("Row", row) for path in self.paths for _, row in read_json_lines(path))

    def __iter__(self) -> Iterator[str]:
        return self._places.by_value()

    def __len__(self) -> int:
        return len(self._places)


def whole_stored_rows(
    job: Job[Any], paths: Iterable[str | Path], row: type[Row]
) -> StoredRows[Row]:
    """The rows of shard files that a job goes on from.

    Errors: UserError if those of a file are not of its shard's prompts, each once.
    """
    return StoredRows(paths, row, job)
