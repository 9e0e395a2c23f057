"""Rule check_content: what one content checker finds in what the pairs of a shard would publish:
the picked picture, the prompt, the instruction, the responses.

An item is a prompt. Nothing is decided here: `build_pairs` leaves a pair out of which something was
found.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from lib.blocks import deciding
from lib.config.content import CheckContentJob
from lib.data.image_files import check_image, check_pixels, read_image
from lib.data.rows import ContentFinding, ResponseRankingRow
from lib.data.shards import present, read_whole_shard, stage_rows
from lib.jobs.batches import Batches
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item
from lib.models.content_checkers.base import Content, ContentChecker
from lib.models.content_checkers.registry import CONTENT_CHECKERS
from lib.registry import version_in_key

VERSION = 1


class Findings(TypedDict):
    """The result of an item: `ContentRow` without its prompt."""

    findings: list[ContentFinding]


def texts_of(row: ResponseRankingRow) -> dict[str, str]:
    """What would be published of a prompt, by its place."""
    responses = {
        f"responses/{policy}": response["text"]
        for policy, response in row["responses"].items()
        if "invalid" not in response
    }
    return {"prompt": row["prompt"], "instruction": row["instruction"], **responses}


def item_of(
    row: ResponseRankingRow, job: Job[CheckContentJob], identities: Mapping[str, str]
) -> Item[ResponseRankingRow]:
    """The item of a prompt. `identities`: of the checker's models."""
    checker = job.settings.checker
    key = job.key(
        texts=texts_of(row),
        image=row["image"]["sha256"],
        checker=deciding(checker) | version_in_key(CONTENT_CHECKERS.class_of(checker)),
        **identities,
    )
    return Item(row["id"], key, row)


def look_at(checker: ContentChecker, row: ResponseRankingRow, root: Path) -> Findings:
    """What a checker finds."""
    content = Content(read_image(root / row["image"]["file"]), texts_of(row))
    return {"findings": checker.find(content)}


def main(snakemake: Any) -> None:
    with Job(snakemake, CheckContentJob, VERSION) as job:
        settings = job.settings
        rows = read_whole_shard(job, snakemake.input.ranking, ResponseRankingRow)
        identities = job.identify_all(settings.checker)

        def check(item: Item[ResponseRankingRow]) -> None:
            image = item.inputs["image"]
            path = job.root / image["file"]
            check_image(path, image["sha256"])
            check_pixels(path, str(path), settings.max_image_megapixels)

        outcomes = Batches[ResponseRankingRow, ContentChecker, Findings](
            job,
            load=lambda: CONTENT_CHECKERS.load_model(settings.checker, job.device),
            compute=lambda model, batch: [look_at(model, item.inputs, job.root) for item in batch],
            check=check,
        ).run([item_of(row, job, identities) for row in present(rows.values())])
        job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
