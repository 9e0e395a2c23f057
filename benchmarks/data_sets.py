"""Data sets of many pairs with small pictures: seconds and peak memory of building one, of writing
its card, and of loading it.

    python benchmarks/data_sets.py [--pairs N ...] [--side PIXELS] [--steps STEP ...]

`make bench` runs it. The run is made up: pictures of noise, texts of the length that answers have.
Each step is a process of its own, so that its peak is its own. Memory that grew with the number of
pairs would show between the rows.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

TOPICS = 10
SIDE = 64
WORDS = 120
WORD = ("lamp", "table", "near", "the", "small", "red", "house", "stands", "behind", "window")


class Parameters(dict[str, Any]):
    """A rule's parameters, by attribute and by name."""

    __getattr__ = dict.__getitem__


class Wildcards(Parameters):
    """A rule's wildcards: their values, and each by its name."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.values())


@dataclass(frozen=True)
class Measured:
    """What a step cost: by the clock, in CPU seconds (user and system), and its peak memory."""

    seconds: float
    cpu_seconds: float
    megabytes: float


def rows_of(number: int, root: Path, side: int) -> dict[str, dict[str, Any]]:
    """A pair, with its picture's file: a row of each stage that a data set is made from. `side`: of
    the picture, in pixels.
    """
    from PIL import Image

    rng = random.Random(number)  # noqa: S311  # nothing is to be secret
    topic = f"topic_{number % TOPICS}"
    name = f"{topic}-{sha256(str(number).encode()).hexdigest()[:10]}"
    file = f"images/{topic}/00/{name}.png"
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("RGB", (side, side), rng.randbytes(side * side * 3)).save(root / file)
    digest = sha256((root / file).read_bytes()).hexdigest()
    texts = [" ".join(rng.choices(WORD, k=WORDS)) for _ in range(4)]
    begin = {"id": name, "topic": topic, "prompt": texts[0]}
    image = {"file": file, "sha256": digest, "guidance_scale": 7.0, "score": rng.random()}
    sides = {
        side: {"policy": side, "text": text, "score": score}
        for side, text, score in (("chosen", texts[1], 1.0), ("rejected", texts[2], 0.0))
    }
    attributes = {name: rng.random() for name in ("helpfulness", "correctness", "verbosity")}
    responses = {policy: {"attributes": attributes, **side} for policy, side in sides.items()}
    picked = {**begin, "image": image, "instruction": texts[3][:80]}
    return {
        "pairs": {**picked, "invalid_responses": {}, "pair": {**sides, "margin": 1.0}},
        "images": {**begin, "candidates": [{**image, "seed": number, "blank": False}]},
        "response_ranking": {**picked, "responses": responses},
    }


def make_run(root: Path, pairs: int, side: int = SIDE) -> None:
    """Writes a run's shard files, one a topic and stage, row by row."""
    from lib.files import json_line

    for number in range(pairs):
        for stage, row in rows_of(number, root, side).items():
            path = root / stage / row["topic"] / "00.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab") as stream:
                stream.write(json_line(row))


def rule_object(rule: str, root: Path, inputs: Any, output: Any, settings: Any) -> SimpleNamespace:
    """What Snakemake hands to a rule's script."""
    common = {"root": str(root), "device": "cpu", "seed": 0, "max_failed_fraction": 0}
    return SimpleNamespace(
        rule=rule,
        wildcards=Wildcards(size="all"),
        input=SimpleNamespace(**inputs),
        output=SimpleNamespace(**output),
        params=Parameters(common=common, settings=settings),
        log=[],
    )


def shards(root: Path, stage: str) -> list[str]:
    """The shard files of a stage."""
    return [str(path) for path in sorted((root / stage).glob("*/*.jsonl"))]


def build(root: Path) -> None:
    """Rule merge_pairs."""
    import merge_pairs

    stages = {"pairs": "pairs", "images": "images", "rankings": "response_ranking"}
    inputs = {name: shards(root, stage) for name, stage in stages.items()}
    output = {"summary": str(root / "dataset/all/dataset.json")}
    merge_pairs.main(rule_object("merge_pairs", root, inputs, output, {"validation": 0.02}))


def describe(root: Path) -> None:
    """Rule data_set_card."""
    import data_set_card
    from lib.report.data_set_card import DataSetCardJob

    folder = root / "dataset/all"
    inputs = {
        "pairs": shards(root, "pairs"),
        "ids": str(folder / "prompt_ids.txt"),
        "summary": str(folder / "dataset.json"),
    }
    files = {"card": "README.md", "licence": "LICENSE.md", "croissant": "croissant.json"}
    output = {name: str(folder / file) for name, file in (files | {"sums": "SHA256SUMS"}).items()}
    job = DataSetCardJob(
        run="bench",
        label="ours",
        license=None,
        languages=["en"],
        code=None,
        models=[],
        instructions="was made up",
        configuration={},
    )
    settings = job.model_dump(mode="json")
    data_set_card.main(rule_object("data_set_card", root, inputs, output, settings))


def load(root: Path) -> None:
    """`load_dataset`, and every row with its picture decoded."""
    from datasets import load_dataset

    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset(str(root / "dataset/all"), split="train", cache_dir=cache)
        for row in rows:
            row["images"][0].load()


def stream(root: Path) -> None:
    """The same, streamed: nothing is written to the disk before the first row."""
    from datasets import load_dataset

    for row in load_dataset(str(root / "dataset/all"), split="train", streaming=True):
        row["images"][0].load()


STEPS: dict[str, Callable[[Path], None]] = {
    "build": build,
    "card": describe,
    "load": load,
    "stream": stream,
}


def measure(step: str, root: Path) -> Measured:
    """Runs a step in a process of its own."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, "--step", step, str(root)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"},
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{step} failed")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Measured(time.monotonic() - began, cpu_seconds, usage.ru_maxrss / 1000)


def cells_of(cost: Measured) -> tuple[str, str, str]:
    """What a step cost, as the table shows it."""
    return f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", f"{cost.megabytes:.0f}"


def main() -> None:
    """Prints a table: a row for each number of pairs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[1000, 9000])
    parser.add_argument("--side", type=int, default=SIDE, help="of the pictures, in pixels")
    parser.add_argument("--steps", nargs="+", choices=[*STEPS], default=[*STEPS])
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, folder = arguments.step
        STEPS[step](Path(folder))
        return
    units = ("s", "CPU s", "MB")
    table = Table("pairs", *(f"{step}, {unit}" for step in arguments.steps for unit in units))
    for pairs in arguments.pairs:
        with tempfile.TemporaryDirectory() as folder:
            make_run(Path(folder), pairs, arguments.side)
            costs = [measure(step, Path(folder)) for step in arguments.steps]
            table.add_row(f"{pairs:,}", *(cell for cost in costs for cell in cells_of(cost)))
            print(
                json.dumps(
                    {"pairs": pairs}
                    | {s: vars(c) for s, c in zip(arguments.steps, costs, strict=True)}
                )
            )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
