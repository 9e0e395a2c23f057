"""Measures what it costs that what is kept is whole: `verify` at the paper's size, the checksums of
journal lines, and waiting for the disk.

    PYTHONPATH=scripts python benchmarks/kept.py [--folder DIR] [--kilobytes 100]
"""

import argparse
import os
import shutil
import tempfile
import time
import timeit
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from lib.files import json_line, sync_file_system, write_json, write_jsonl
from lib.head.verification import verify_run
from lib.jobs import journal as journals
from lib.jobs.journal import Journal
from lib.jobs.record import Record

PROMPTS, SHARDS, IMAGES = 9000, 20, 4
LINES = 20_000
RESULT = {"scores": [0.1234567] * 4, "ranking": [0, 1, 2, 3], "winner": 0, "blank": []}


def timed(work: Callable[[], object], repeats: int = 1) -> float:
    """Seconds of the fastest call."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def make_run(root: Path, kilobytes: int) -> None:
    """Writes stage images of a run of the paper's size, with records and journals."""
    each = PROMPTS // SHARDS
    for shard in range(SHARDS):
        topic, name = f"topic{shard // 2}", f"{shard % 2:02d}"
        record = Record("generate_images", f"{topic}/{name}", "", finished="2026")
        folder = root / "images" / topic / name
        folder.mkdir(parents=True)
        rows = []
        path = root / "work/generate_images" / topic / f"{name}.journal.jsonl"
        with Journal(path, "generate_images") as journal:
            for prompt in range(each):
                for image in range(IMAGES):
                    file = folder / f"{topic}-{prompt:010x}-g{image}.png"
                    content = os.urandom(64) * (kilobytes * 16)
                    file.write_bytes(content)
                    digest = sha256(content).hexdigest()
                    record.beside[file.relative_to(root).as_posix()] = digest
                rows.append({"id": f"{topic}-{prompt:010x}", "prompt": "a cat " * 10})
                journal.add(f"{prompt:064x}", f"{prompt}", seconds=1, result=RESULT, at_once=False)
        shard_file = root / f"images/{topic}/{name}.jsonl"
        write_jsonl(shard_file, rows)
        record.files[shard_file.relative_to(root).as_posix()] = sha256(
            shard_file.read_bytes()
        ).hexdigest()
        write_json(root / f"work/generate_images/{topic}/{name}.json", vars(record))


def measure_verify(folder: Path, kilobytes: int) -> None:
    """Prints how long `verify` takes."""
    root = folder / "run"
    make_run(root, kilobytes)
    for state in ("first", "again"):
        seconds = timed(lambda: verify_run(root))
        gigabytes = PROMPTS * IMAGES * kilobytes / 1e6
        print(
            f"verify, {PROMPTS} prompts, {PROMPTS * IMAGES} images of {kilobytes} kB"
            f" ({gigabytes:.1f} GB), {state}: {seconds:.1f} s"
        )
    shutil.rmtree(root)


def measure_sums(folder: Path) -> None:
    """Prints what a line's checksum costs to write and to read."""
    entry = {"key": "0" * 64, "id": "art-0", "seconds": 1.0, "status": "ok", "result": RESULT}
    line = json_line(entry)
    without = min(timeit.repeat(lambda: json_line(entry), number=LINES))
    written = min(timeit.repeat(lambda: journals.with_sum(json_line(entry)), number=LINES))
    content = journals.with_sum(line) * LINES
    read = timed(lambda: list(journals.read_lines(content)), 5)
    old = timed(lambda: list(journals.read_lines(line * LINES)), 5)
    print(
        f"a journal line: {1e6 * written / LINES:.1f} µs to encode ({1e6 * without / LINES:.1f}"
        f" without its checksum), {1e6 * read / LINES:.1f} µs to read ({1e6 * old / LINES:.1f})"
    )


def measure_syncs(folder: Path) -> None:
    """Prints what waiting for the disk takes, for a shard's images and for its file."""
    images = [folder / f"{number}.png" for number in range(400)]
    for image in images:
        image.write_bytes(os.urandom(100_000))
    for what in ("syncing 400 images of 100 kB", "syncing them again"):
        print(f"{what}: {1e3 * timed(lambda: sync_file_system(folder)):.0f} ms")
    rows = [{"id": str(number), "text": "a cat " * 50} for number in range(100)]
    seconds = timed(lambda: write_jsonl(folder / "00.jsonl", rows))
    print(f"publishing a shard file of 100 rows: {1e3 * seconds:.1f} ms")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="on which file system (the temporary folder's)")
    parser.add_argument("--kilobytes", type=int, default=100, help="of an image")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure_sums(Path(folder))
        measure_syncs(Path(folder))
        measure_verify(Path(folder), arguments.kilobytes)


if __name__ == "__main__":
    main()
