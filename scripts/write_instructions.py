"""Rule write_instructions: one instruction a prompt, about the image that the ranking picked (paper
3.3).

An item is a prompt. What an LLM answers is checked; an answer that fails is asked for again with
another seed. What users wrote themselves, for each prompt or as templates for all, was checked
before the run began. Prompts whose best image is too bad get no instruction, and so no pair.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lib.config.instructions import WriteInstructionsJob
from lib.data.controls import Pick, pick_of
from lib.data.image_files import check_image
from lib.data.rows import (
    Candidate,
    ImageRankingRow,
    ImagesRow,
    MissingRow,
    PickedImage,
    PickedRow,
)
from lib.data.shards import (
    is_missing,
    missing_row,
    present,
    prompt_of,
    read_whole_shard,
    stage_rows,
)
from lib.files import read_jsonl
from lib.jobs.batches import Outcome, Streamed
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item
from lib.models.instruction_authors.base import InstructionAuthor, WrittenInstruction
from lib.models.instruction_authors.registry import INSTRUCTION_AUTHORS
from lib.registry import version_in_key

VERSION = 1


def pick_image(
    row: ImageRankingRow, candidates: Sequence[Candidate], pick: Pick, seed: int
) -> PickedImage:
    """The candidate of a prompt that goes on. A pick by chance says so. `seed`: the run's."""
    index = pick_of(candidates, row["winner"], pick, seed, row["id"])
    candidate = candidates[index]
    image: PickedImage = {
        "file": candidate["file"],
        "sha256": candidate["sha256"],
        "guidance_scale": candidate["guidance_scale"],
        "score": row["scores"][index],
    }
    if pick == "random":
        image["drawn"] = True
    return image


def pick_images(
    images: Mapping[str, ImagesRow | MissingRow],
    ranking: Mapping[str, ImageRankingRow | MissingRow],
    settings: WriteInstructionsJob,
    seed: int,
) -> dict[str, PickedRow | MissingRow]:
    """The rows of a shard with the picked candidates; those below the minimum are missing.

    The minimum is of the winner, also where another candidate is picked: a control has the same
    prompts.
    """
    candidates = {row["id"]: row["candidates"] for row in present(images.values())}
    least = settings.min_image_reward
    rows: dict[str, PickedRow | MissingRow] = {}
    for prompt_id, row in ranking.items():
        if is_missing(row):
            rows[prompt_id] = row
        elif least is not None and row["scores"][row["winner"]] < least:
            rows[prompt_id] = missing_row(row, "rank_images", "image reward below minimum")
        else:
            image = pick_image(row, candidates[prompt_id], settings.pick, seed)
            rows[prompt_id] = {**prompt_of(row), "image": image}
    return rows


def item_of(
    row: PickedRow, author: InstructionAuthor[Any], job: Job[WriteInstructionsJob]
) -> Item[Any]:
    """The item of a prompt."""
    decides, source = author.prepare(row)
    return Item(row["id"], job.key(**decides, **version_in_key(author)), source)


def published(outcome: Outcome[WrittenInstruction], row: PickedRow) -> Outcome[dict[str, Any]]:
    """What is published of an item: the instruction, and the template where one was drawn."""
    result = outcome.result
    if result is None:
        return Outcome(outcome.id, reason=outcome.reason)
    template = {"template": result["template"]} if "template" in result else {}
    instruction = {"instruction": result["instruction"], **template}
    return Outcome(outcome.id, {"image": row["image"], **instruction})


def main(snakemake: Any) -> None:
    with Job(snakemake, WriteInstructionsJob, VERSION) as job, ExitStack() as connections:
        settings = job.settings.author
        ranking = read_whole_shard(job, snakemake.input.ranking, ImageRankingRow)
        rows = pick_images(
            read_whole_shard(job, snakemake.input.images, ImagesRow),
            ranking,
            job.settings,
            job.seed,
        )
        picked = {row["id"]: row for row in present(rows.values())}
        written = {row["id"]: row["instruction"] for row in read_jsonl(job.settings.written)}
        author: InstructionAuthor[Any] = INSTRUCTION_AUTHORS.class_of(settings)(
            settings, job, written
        )

        def check(item: Item[Any]) -> None:
            if settings.with_image:
                image = picked[item.id]["image"]
                check_image(job.root / image["file"], image["sha256"])

        outcomes = Streamed[Any, WrittenInstruction](
            job, load=lambda: connections.enter_context(author.at_work()), check=check
        ).run([item_of(row, author, job) for row in picked.values()])
        results = {name: published(outcome, picked[name]) for name, outcome in outcomes.items()}
        job.publish(snakemake.output[0], stage_rows(rows, results, job.rule))


if __name__ == "__main__":
    run_script(main)
