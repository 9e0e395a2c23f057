"""Builds the random run's tiny benchmarks: drawn shapes with known answers, in the formats that are
read of the real ones.

    python demo/build_benchmarks.py --output demo/benchmarks

`<benchmark>.parquet`, of 4 to 12 questions, have the columns that lmms-eval 0.7.3 reads of POPE,
MME, VQAv2, ScienceQA, TextVQA, MM-Vet and MMBench. The folders `amber`, `chair`, `mmhal_bench`,
`object_halbench` and `pope` have the files that these benchmarks publish: questions, images and
what answers are held against. Each is one file in `demo/tiny/benchmarks/`. Nothing is random and
nothing is downloaded: two builds give the same bytes, and a file that would not change is not
touched.
"""

import argparse
import sys
from pathlib import Path

from tiny.benchmarks.files import Files, parquet_bytes, write_if_changed
from tiny.benchmarks.registry import BENCHMARKS, FOLDERS


def write_folder(folder: Path, files: Files) -> str:
    """Writes a benchmark's files.

    Returns:
        `there`, or `built` if one of them was not.
    """
    outcomes = set()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        outcomes.add(write_if_changed(path, content))
    return "built" if "built" in outcomes else "there"


def main(arguments: list[str] | None = None) -> int:
    """Builds all benchmarks, and prints a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the files, such as demo/benchmarks"
    )
    output = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    for name, (make_rows, columns) in BENCHMARKS.items():
        rows = make_rows()
        outcome = write_if_changed(output / f"{name}.parquet", parquet_bytes(rows, columns))
        print(f"{name:27s} {outcome:6s} {len(rows)} questions")
    for name, make_files in FOLDERS.items():
        print(f"{name + '/':27s} {write_folder(output / name, make_files())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
