"""Rule check_contamination: what each prompt of a shard, its instruction and its picked image have
in common with the benchmarks.

An item is a prompt; measures and their sources are in lib/contamination.py. Nothing is decided
here: `build_pairs` leaves such prompts out where the configuration says so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from lib.blocks import deciding
from lib.config.contamination import CheckContaminationJob
from lib.contamination import Index, perceptual_hash
from lib.data.image_files import check_image, read_image
from lib.data.rows import InstructionRow, OverlapEntry
from lib.data.shards import present, read_whole_shard, stage_rows
from lib.files import digest_of_file
from lib.jobs.batches import Batches
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item

VERSION = 1


class Overlaps(TypedDict):
    """The result of an item: `OverlapsRow` without its prompt."""

    overlaps: list[OverlapEntry]


def item_of(
    row: InstructionRow, job: Job[CheckContaminationJob], index_digest: str
) -> Item[InstructionRow]:
    """The item of a prompt."""
    key = job.key(
        prompt=row["prompt"],
        instruction=row["instruction"],
        image=row["image"]["sha256"],
        index=index_digest,
        measures=deciding(job.settings),
    )
    return Item(row["id"], key, row)


def find_overlaps(index: Index, row: InstructionRow, root: Path) -> Overlaps:
    """What a prompt, its instruction and its picked image have in common with the benchmarks."""
    image = read_image(root / row["image"]["file"])
    overlaps = [
        *index.of_text("prompt", row["prompt"]),
        *index.of_text("instruction", row["instruction"]),
        *index.of_image(perceptual_hash(image)),
    ]
    return {"overlaps": [overlap.entry() for overlap in overlaps]}


def main(snakemake: Any) -> None:
    with Job(snakemake, CheckContaminationJob, VERSION) as job:
        rows = read_whole_shard(job, snakemake.input.instructions, InstructionRow)
        index_file = Path(snakemake.input.index)
        index_digest = digest_of_file(index_file)

        def check(item: Item[InstructionRow]) -> None:
            image = item.inputs["image"]
            check_image(job.root / image["file"], image["sha256"])

        def compute(index: Index, batch: Sequence[Item[InstructionRow]]) -> list[Overlaps]:
            return [find_overlaps(index, item.inputs, job.root) for item in batch]

        outcomes = Batches(
            job,
            load=lambda: Index.read(index_file, dict(job.settings)),
            compute=compute,
            check=check,
        ).run([item_of(row, job, index_digest) for row in present(rows.values())])
        job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
