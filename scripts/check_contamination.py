"""Rule check_contamination: what each prompt of a shard, its instruction and its picked image have
in common with the benchmarks.

An item is a prompt; measures and their sources are in lib/contamination.py. Nothing is decided
here: `build_pairs` leaves such prompts out where the configuration says so.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib.contamination import Index, perceptual_hash, settings_of
from lib.data.image_files import check_image, read_image
from lib.data.shards import Row, is_missing, read_shard, stage_rows
from lib.files import digest_of_file, read_jsonl
from lib.jobs.batches import Item
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script

VERSION = 1


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    rows = read_shard(snakemake.input.instructions)
    index_file, images_file = Path(snakemake.input.index), Path(snakemake.input.images)
    measures = settings_of(job.settings)
    index_digest = digest_of_file(index_file)

    def item(row: Row) -> Item:
        key = job.key(
            prompt=row["prompt"],
            instruction=row["instruction"],
            image=row["image"]["sha256"],
            index=index_digest,
            measures=measures,
        )
        return Item(row["id"], key, row)

    def check(each: Item) -> None:
        image = each.inputs["image"]
        check_image(job.root / image["file"], image["sha256"], images_file)

    def overlaps(index: Index, batch: Sequence[Item]) -> list[dict[str, Any]]:
        results = []
        for each in batch:
            row = each.inputs
            found = [
                *index.of_text("prompt", row["prompt"]),
                *index.of_text("instruction", row["instruction"]),
                *index.of_image(perceptual_hash(read_image(job.root / row["image"]["file"]))),
            ]
            results.append({"overlaps": [asdict(overlap) for overlap in found]})
        return results

    outcomes = job.run(
        [item(row) for row in rows.values() if not is_missing(row)],
        load=lambda: Index(read_jsonl(index_file), **measures),
        compute=overlaps,
        check=check,
    )
    job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
