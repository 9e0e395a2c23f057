"""Rule index_benchmarks: the questions of the configured benchmarks and the perceptual hashes of
their images, where they are files here.

The data of lmms-eval's tasks that come from the hub are not here: `coverage.json` says of each
benchmark whether it is in the index.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from lib.benchmarks.questions import read_questions
from lib.benchmarks.registry import load_questions_benchmark
from lib.config.contamination import IndexBenchmarksJob, IndexedQuestions, IndexedTask
from lib.contamination import parquet_rows, perceptual_hash
from lib.data.evaluation_files import Coverage, IndexedQuestion
from lib.data.image_files import check_pixels, check_whole, read_image
from lib.errors import UserError
from lib.files import digest_of_file, write_json
from lib.jobs.job import Job
from lib.jobs.script import run_script

VERSION = 1
ON_THE_HUB = "its data are on the hub, not here: give local copies (`data`) to have them checked"


def hash_of_bytes(content: bytes, what: str, megapixels: float) -> str:
    """The perceptual hash of an image file's bytes. Errors: UserError, which begins with `what`,
    where it has more megapixels than are allowed.
    """
    with suppress(OSError, SyntaxError, ValueError):  # what is no image is told next
        check_pixels(io.BytesIO(content), what, megapixels)
    check_whole(io.BytesIO(content), f"{what}:")
    return perceptual_hash(read_image(io.BytesIO(content)))


@cache
def hash_of_file(path: Path, megapixels: float) -> str:
    """The perceptual hash of an image file. Errors: as in `hash_of_bytes`."""
    with suppress(OSError, SyntaxError, ValueError):  # what is no image is told next
        check_pixels(path, str(path), megapixels)
    check_whole(path, f"{path}:")
    return perceptual_hash(read_image(path))


def rows_of_task(name: str, block: IndexedTask, megapixels: float) -> Iterator[IndexedQuestion]:
    """The rows of a task. A question with several images has a row for each; one without an image
    has one row.
    """
    for path in block.files:
        for identity, question, images in parquet_rows(Path(path)):
            what = f"{path}, question {identity}"
            hashes: list[str | None] = [hash_of_bytes(image, what, megapixels) for image in images]
            for image in hashes or [None]:
                yield {"benchmark": name, "id": identity, "question": question, "image": image}


def rows_of_questions(
    name: str, block: IndexedQuestions, megapixels: float
) -> Iterator[IndexedQuestion]:
    """The rows of a benchmark that publishes files, one a question."""
    benchmark = load_questions_benchmark(block.scorer)
    for asked in read_questions(benchmark, block.questions, block.images):
        what = f"{asked.where}: question {asked.id}"
        image = (
            hash_of_file(asked.image, megapixels)
            if asked.image
            else hash_of_bytes(asked.embedded or b"", what, megapixels)
        )
        yield {"benchmark": name, "id": asked.id, "question": asked.text, "image": image}


def rows_of(
    name: str, block: IndexedTask | IndexedQuestions, megapixels: float
) -> list[IndexedQuestion]:
    """The rows of one benchmark. Errors: UserError; KeyError where a file has no questions."""
    try:
        if isinstance(block, IndexedTask):
            return list(rows_of_task(name, block, megapixels))
        return list(rows_of_questions(name, block, megapixels))
    except (OSError, SyntaxError, ValueError) as error:  # as PIL tells of damaged images
        raise UserError(
            f"evaluation.benchmarks.{name}: an image of it cannot be read ({error}). Replace the"
            " file."
        ) from error


def coverage_of(rows: Sequence[IndexedQuestion], files: Sequence[str]) -> Coverage:
    """What is told of a benchmark that is in the index."""
    return {
        "checked": True,
        "questions": len({(row["id"], row["question"]) for row in rows}),
        "different_images": len({row["image"] for row in rows} - {None}),
        "files": {Path(file).name: digest_of_file(Path(file)) for file in files},
    }


def index(
    name: str, block: IndexedTask | IndexedQuestions, megapixels: float
) -> tuple[list[IndexedQuestion], Coverage]:
    """The rows of a benchmark, and what is told of them, or why there are none."""
    if not block.files:
        return [], {"checked": False, "why": ON_THE_HUB}
    try:
        rows = rows_of(name, block, megapixels)
    except KeyError as error:
        return [], {"checked": False, "why": str(error.args[0])}
    return rows, coverage_of(rows, block.files)


def main(snakemake: Any) -> None:
    with Job(snakemake, IndexBenchmarksJob, VERSION) as job:
        rows: list[IndexedQuestion] = []
        coverage: dict[str, Coverage] = {}
        for name, block in job.settings.benchmarks.items():
            megapixels = job.settings.max_image_megapixels
            its_rows, coverage[name] = index(name, block, megapixels)
            rows += its_rows
        job.publish(snakemake.output.index, rows)
        write_json(Path(snakemake.output.coverage), coverage)
        job.count(len(rows))


if __name__ == "__main__":
    run_script(main)
