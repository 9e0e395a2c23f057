"""Rule generate_responses: one policy model's answer to each instruction about its image (paper
3.3, Eq. 8).

An item is a prompt: its picked image and its instruction, with a seed of its own, so that an answer
depends on them and the settings only. The image files are checked before the model is loaded.
"""

from functools import partial
from pathlib import Path
from typing import Any

from lib.models.response_generators.generation import (
    Generator,
    Request,
    Sampling,
    generate_for_job,
    load_for_job,
)

from lib import weights
from lib.data.image_files import check_image
from lib.data.prompts import seed_of
from lib.data.shards import Row, is_missing, read_shard, stage_rows
from lib.jobs.batches import Item, Outcome
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script

VERSION = 1
#: What of the settings decides how a response is drawn.
GENERATION = ("backend", "dtype", "max_new_tokens", "temperature", "top_p")


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    rows = read_shard(snakemake.input.instructions)
    images_file = Path(snakemake.input.images)
    identity = weights.identity(settings["model"], settings["revision"])
    job.record.models[settings["model"]] = identity
    generation = {name: settings[name] for name in GENERATION}
    if settings["backend"] == "vllm":
        generation["max_model_len"] = settings[
            "max_model_len"
        ]  # the engine ends an answer there too

    def item(row: Row) -> Item:
        seed = seed_of(job.seed, "response", identity, row["id"])
        key = job.key(
            instruction=row["instruction"],
            image=row["image"]["sha256"],
            model=identity,
            generation=generation,
            seed=seed,
        )
        return Item(
            row["id"], key, Request(row["instruction"], seed, job.root / row["image"]["file"])
        )

    def check(item: Item) -> None:
        image = rows[item.id]["image"]
        check_image(job.root / image["file"], image["sha256"], images_file)

    def load() -> Generator:
        return load_for_job(
            job,
            settings["backend"],
            settings,
            Sampling(settings["max_new_tokens"], settings["temperature"], settings["top_p"]),
            with_images=True,
            batch_size=settings["prompts_per_batch"],
            max_model_len=settings["max_model_len"],
            of="prompts",
        )

    outcomes = job.run(
        [item(row) for row in rows.values() if not is_missing(row)],
        load=load,
        compute=partial(generate_for_job, job, what="instruction"),
        batch_size=settings["prompts_per_batch"],
        check=check,
    )

    def published(outcome: Outcome) -> Outcome:
        if outcome.result is None:
            return outcome
        row, result = rows[outcome.id], outcome.result
        response = {
            "response": result["text"],
            "finish_reason": result["finish_reason"],
            "tokens": result["tokens"],
        }
        return Outcome(
            outcome.id, {"image": row["image"], "instruction": row["instruction"], **response}
        )

    job.publish(
        snakemake.output[0],
        stage_rows(
            rows, {name: published(outcome) for name, outcome in outcomes.items()}, job.rule
        ),
    )


if __name__ == "__main__":
    run_script(main)
