"""Rule index_benchmarks: the questions of the configured benchmarks and the perceptual hashes of
their images, where they are files here.

The data of lmms-eval's tasks that come from the hub are not here: `coverage.json` says of each
benchmark whether it is in the index.
"""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lib.benchmarks.questions import read_questions
from lib.contamination import parquet_rows, perceptual_hash
from lib.data.image_files import read_image
from lib.errors import UserError
from lib.files import digest_of_file, write_json, write_jsonl
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script

VERSION = 1
ON_THE_HUB = "its data are on the hub, not here: give local copies (`data`) to have them checked"

Json = dict[str, Any]


def hash_of_bytes(content: bytes) -> str:
    """The perceptual hash of an image file's bytes."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return perceptual_hash(image.convert("RGB"))


@cache
def hash_of_file(path: Path) -> str:
    """The perceptual hash of an image file."""
    return perceptual_hash(read_image(path))


def rows_of(name: str, block: Json) -> Iterator[Json]:
    """The rows of one benchmark. A question with several images has a row for each; one without an
    image has one row.
    """
    if block.get("task"):
        for path in block["data"].values():
            for identity, question, images in parquet_rows(Path(path)):
                hashes: list[str | None] = [hash_of_bytes(image) for image in images]
                for found in hashes or [None]:
                    yield {"benchmark": name, "id": identity, "question": question, "image": found}
        return
    for asked in read_questions(block["scorer"], block["questions"], block["images"]):
        image = hash_of_file(asked.image) if asked.image else hash_of_bytes(asked.embedded or b"")
        yield {"benchmark": name, "id": asked.id, "question": asked.text, "image": image}


def files_of(block: Json) -> list[str]:
    """The files of a benchmark's questions."""
    return list((block["data"] or {}).values()) if block.get("task") else block["questions"]


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    rows: list[Json] = []
    coverage: Json = {}
    for name, block in job.settings["benchmarks"].items():
        files = files_of(block)
        if not files:
            coverage[name] = {"checked": False, "why": ON_THE_HUB}
            continue
        try:
            found = list(rows_of(name, block))
        except KeyError as error:
            coverage[name] = {"checked": False, "why": str(error.args[0])}
            continue
        except OSError as error:
            raise UserError(
                f"evaluation.benchmarks.{name}: an image of it cannot be read ({error}). Replace"
                " the file."
            ) from error
        rows += found
        images = len({row["image"] for row in found} - {None})
        coverage[name] = {
            "checked": True,
            "questions": len({(row["id"], row["question"]) for row in found}),
            "different_images": images,
            "files": {Path(file).name: digest_of_file(Path(file)) for file in files},
        }
    write_jsonl(Path(snakemake.output.index), rows)
    write_json(Path(snakemake.output.coverage), coverage)
    job.record.items = job.record.computed = len(rows)
    job.write_record()


if __name__ == "__main__":
    run_script(main)
