"""The rows of shard files, read where they stand."""

import os
from pathlib import Path

from data_set_run import pair_row
from lib.data.rows import PairRow
from lib.data.stored_rows import OPEN, StoredRows
from lib.files import write_jsonl


def test_rows_of_more_shards_than_a_process_may_open_files_are_read(tmp_path: Path) -> None:
    rows = {row["id"]: row for row in (pair_row("art", n) for n in range(3 * OPEN))}
    paths = [tmp_path / f"{number:03}.jsonl" for number in range(len(rows))]
    for path, row in zip(paths, rows.values(), strict=True):
        write_jsonl(path, [row])
    before = len(os.listdir("/proc/self/fd"))
    stored = StoredRows(paths, PairRow)
    assert dict(stored) == rows
    assert list(stored) == list(rows)
    assert list(stored.read()) == list(rows.values())
    assert [stored[name] for name in reversed(rows)] == [*rows.values()][::-1]
    assert len(os.listdir("/proc/self/fd")) - before < OPEN + 10
