"""Builds the small world's benchmarks of unseen scenes, in the forms that are read of the real
ones, and, if asked, prompts.

    python demo/build_world.py --output demo/world/benchmarks
    python demo/build_world.py --prompts results/claims/prompts --prompts-per-topic 160

`chair`, `object_halbench` and `pope` have the files that these benchmarks publish, `pope.parquet`
the columns that lmms-eval reads of POPE. All is a function of the seed; a file that would not
change is not touched.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tiny.benchmarks.files import Files, parquet_bytes, write_if_changed
from tiny.benchmarks.pope import COLUMNS
from world import benchmarks
from world.answerer import CALLS

CHAIR_PICTURES, OBJECT_HALBENCH_PICTURES = 300, 100
POPE_PICTURES = 50  # in each of its three ways
#: Of the scenes that are reported. Whoever tries something out takes another one, so that nothing
#: is tuned on these.
SEED = 1


def pope_rows(files: Files) -> list[dict[str, Any]]:
    """The questions of POPE's files as rows of the parquet file that lmms-eval reads."""
    rows: list[dict[str, Any]] = []
    for way in ("random", "popular", "adversarial"):
        for line in files[f"coco_pope_{way}.json"].decode().splitlines():
            question = json.loads(line)
            rows.append(
                {
                    "id": str(len(rows)),
                    "question_id": str(question["question_id"]),
                    "question": question["text"],
                    "answer": question["label"],
                    "image_source": question["image"].removesuffix(".png"),
                    "image": {
                        "bytes": files[f"images/{question['image']}"],
                        "path": question["image"],
                    },
                    "category": way,
                }
            )
    return rows


def benchmark_files(seed: int) -> Files:
    """All benchmarks' files by path."""
    pope = benchmarks.pope(POPE_PICTURES, 1000 * seed + 1, CALLS)
    folders = {
        "chair": benchmarks.chair(CHAIR_PICTURES, 1000 * seed),
        "object_halbench": benchmarks.object_halbench(OBJECT_HALBENCH_PICTURES, 1000 * seed + 10),
        "pope": pope,
    }
    files = {
        f"{folder}/{name}": content
        for folder, contents in folders.items()
        for name, content in contents.items()
    }
    return files | {"pope.parquet": parquet_bytes(pope_rows(pope), COLUMNS)}


def main(arguments: list[str] | None = None) -> int:
    """Builds what the command line asks for, and says how much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--output", type=Path, help="folder for the benchmarks, such as demo/world/benchmarks"
    )
    parser.add_argument("--prompts", type=Path, help="folder for the prompts, one file a topic")
    parser.add_argument("--prompts-per-topic", type=int, default=48)
    parser.add_argument("--seed", type=int, default=SEED, help="of scenes and prompts")
    options = parser.parse_args(arguments)
    files: dict[Path, bytes] = {}
    if options.output:
        files |= {
            options.output / name: content
            for name, content in benchmark_files(options.seed).items()
        }
    if options.prompts:
        texts = benchmarks.prompts(options.prompts_per_topic, options.seed)
        files |= {options.prompts / f"{topic}.txt": text.encode() for topic, text in texts.items()}
    built = 0
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        built += write_if_changed(path, content) == "built"
    print(f"the small world: {built} files built, {len(files) - built} there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
