"""Rule generate_responses: one policy model's answer to each instruction about its image (paper
3.3, Eq. 8).

An item is a prompt: its picked image and its instruction, with a seed of its own, so that an answer
depends on them and the settings only. The image files are checked before the model is loaded.
"""

from functools import partial
from pathlib import Path
from typing import Any

from lib.blocks import deciding
from lib.config.responses import GenerateResponsesJob
from lib.data.image_files import check_image
from lib.data.prompts import seed_of
from lib.data.rows import InstructionRow
from lib.data.shards import present, read_whole_shard, stage_rows
from lib.jobs.batches import Batches, Item, Outcome
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.models.response_generators.base import Generator
from lib.models.response_generators.for_jobs import (
    GeneratedText,
    generate_for_job,
    generator_in_key,
    generator_settings,
    load_for_job,
)
from lib.models.response_generators.requests import Request, Sampling

VERSION = 1


class PolicyModel:
    """The policy model of a job, and what it is asked."""

    def __init__(self, job: Job[GenerateResponsesJob]) -> None:
        self.job = job
        self.settings = generator_settings(job.settings.policy, job.settings)
        self.identity = job.identify(job.settings.policy)
        self.generation = generator_in_key(self.settings) | deciding(job.settings)

    def item(self, row: InstructionRow) -> Item[Request]:
        """The item of a prompt."""
        seed = seed_of(self.job.seed, "response", self.identity, row["id"])
        key = self.job.key(
            instruction=row["instruction"],
            image=row["image"]["sha256"],
            model=self.identity,
            generation=self.generation,
            seed=seed,
        )
        request = Request(row["instruction"], seed, self.job.root / row["image"]["file"])
        return Item(row["id"], key, request)

    def load(self) -> Generator:
        """Loads the model."""
        settings = self.job.settings
        return load_for_job(
            self.job,
            self.settings,
            Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
            with_images=True,
            batch_size=settings.prompts_per_batch,
            of="prompts",
        )


def published(outcome: Outcome[GeneratedText], row: InstructionRow) -> Outcome[dict[str, Any]]:
    """What is published of an item: `ResponseRow` without its prompt."""
    if (result := outcome.result) is None:
        return Outcome(outcome.id, reason=outcome.reason)
    return Outcome(
        outcome.id,
        {
            "image": row["image"],
            "instruction": row["instruction"],
            "response": result["text"],
            "finish_reason": result["finish_reason"],
            "tokens": result["tokens"],
        },
    )


def main(snakemake: Any) -> None:
    with Job(snakemake, GenerateResponsesJob, VERSION) as job:
        images_file = Path(snakemake.input.images)
        rows = read_whole_shard(job, snakemake.input.instructions, InstructionRow)
        instructed = {row["id"]: row for row in present(rows.values())}
        policy = PolicyModel(job)

        def check(item: Item[Request]) -> None:
            image = instructed[item.id]["image"]
            check_image(job.root / image["file"], image["sha256"], images_file)

        outcomes = Batches(
            job,
            load=policy.load,
            compute=partial(generate_for_job, job, what="instruction"),
            batch_size=job.settings.prompts_per_batch,
            check=check,
        ).run([policy.item(row) for row in instructed.values()])
        results = {name: published(outcome, instructed[name]) for name, outcome in outcomes.items()}
        job.publish(snakemake.output[0], stage_rows(rows, results, job.rule))


if __name__ == "__main__":
    run_script(main)
