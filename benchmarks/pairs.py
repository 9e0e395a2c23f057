"""Checking pairs: seconds and peak memory, by the form and the number of pairs.

    python benchmarks/pairs.py [--pairs N ...]

`make bench` runs it. The pairs are made up here: answers of 20 to 200 words, each with a picture of
64 x 64 pixels. Each check is a process of its own, whose largest memory the system tells.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))
WORDS = 2000
#: Seconds that 10,000 pairs may take, apart from pictures.
LIMIT = 60.0


def made_up_words() -> list[str]:
    """A vocabulary."""
    draw = random.Random(0)  # noqa: S311 # no secret
    letters = "abcdefghijklmnoprstuvwy"
    return ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(WORDS)]


def answer(draw: random.Random, words: Sequence[str]) -> str:
    """An answer of several sentences."""
    sentences = []
    for _ in range(draw.randint(2, 14)):
        chosen = draw.choices(words, k=draw.randint(8, 15))
        sentences.append(" ".join(chosen).capitalize() + ".")
    return " ".join(sentences)


def picture(number: int) -> bytes:
    """A small picture, other for each number."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).resize((64, 64)).save(stream, "PNG")
    return stream.getvalue()


def made_up_pairs(number: int) -> Iterator[tuple[str, str, str, str]]:
    """Id, question, chosen and rejected of so many pairs."""
    draw, words = random.Random(1), made_up_words()  # noqa: S311 # no secret
    for index in range(number):
        question = f"What does the {' '.join(draw.choices(words, k=6))} in the picture say?"
        yield f"pair-{index}", question, answer(draw, words), answer(draw, words)


def write_llava(folder: Path, number: int) -> Path:
    """So many pairs as LLaVA's JSON with their pictures beside it."""
    (folder / "images").mkdir()
    path = folder / "llava.json"
    with open(path, "w", encoding="utf-8") as stream:
        for index, (name, question, chosen, rejected) in enumerate(made_up_pairs(number)):
            (folder / f"images/{name}.png").write_bytes(picture(index))
            asked = {"from": "human", "value": f"<image> {question}"}
            record = {
                "id": name,
                "image": f"images/{name}.png",
                "conversations": [asked, {"from": "gpt", "value": chosen}],
                "rejected_conversations": [asked, {"from": "gpt", "value": rejected}],
            }
            stream.write(("," if index else "[") + json.dumps(record) + "\n")
        stream.write("]\n")
    return path


def write_parquet(folder: Path, number: int) -> Path:
    """So many pairs as TRL's columns with their pictures inside."""
    import pyarrow as pa
    from pyarrow import parquet

    path, writer = folder / "pairs.parquet", None
    group: list[dict[str, Any]] = []
    for index, (name, question, chosen, rejected) in enumerate(made_up_pairs(number), start=1):
        asked = [{"type": "image", "text": None}, {"type": "text", "text": question}]
        group.append(
            {
                "id": name,
                "prompt": [{"role": "user", "content": asked}],
                "chosen": [{"role": "assistant", "content": [{"type": "text", "text": chosen}]}],
                "rejected": [
                    {"role": "assistant", "content": [{"type": "text", "text": rejected}]}
                ],
                "images": [{"bytes": picture(index), "path": f"{name}.png"}],
            }
        )
        if len(group) == 100 or index == number:
            table = pa.Table.from_pylist(group)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            group = []
    if writer:
        writer.close()
    return path


FORMS = {"llava.json": write_llava, "parquet": write_parquet}


def measure(path: Path, pictures: bool) -> tuple[float, float, int]:
    """Seconds, largest memory in MB, and how many pairs were checked."""
    import check_pairs
    from lib.data.pair_forms.sources import open_source

    words = [str(path), *([] if pictures else ["--no-pictures"])]
    arguments = check_pairs.parser().parse_args(words)
    started = time.perf_counter()
    options = check_pairs.options_of(arguments)
    source = open_source(str(path), contents=pictures)
    report = check_pairs.check(source, options)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, report["pairs"]


def main() -> int:
    """Measures, and prints a table; 1 if a limit is not held."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--pairs", type=int, nargs="+", default=[1000, 9000, 10_000])
    numbers = arguments.parse_args().pairs
    table = Table(title="Checking pairs")
    for name in ("form", "pairs", "pictures", "seconds", "MB"):
        table.add_column(name, justify="right")
    slow = False
    for number in numbers:
        for form, write in FORMS.items():
            with tempfile.TemporaryDirectory() as folder:
                path = write(Path(folder), number)
                for pictures in (False, True):
                    with get_context("spawn").Pool(1) as pool:
                        seconds, memory, pairs = pool.apply(measure, (path, pictures))
                    assert pairs == number
                    slow |= not pictures and seconds > LIMIT * max(1, number / 10_000)
                    looked = "looked at" if pictures else "not"
                    table.add_row(form, f"{number:,}", looked, f"{seconds:.1f}", f"{memory:.0f}")
    Console().print(table)
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
