"""Rule generate_responses: one policy model's answers to each instruction about its image (paper
3.3, Eq. 8).

An item is an answer: a prompt's picked image and its instruction, with a seed of its own, so that
it depends on them and the settings only. The image files are checked before the model is loaded.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lib.config.responses import GenerateResponsesJob
from lib.data.image_files import check_image
from lib.data.rows import InstructionRow
from lib.data.samples import MARK
from lib.data.shards import present, read_whole_shard, stage_rows
from lib.files import read_jsonl
from lib.jobs.batches import Outcome, Streamed
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item
from lib.models.policy_models.base import PolicyModel
from lib.models.policy_models.registry import POLICY_MODELS
from lib.models.response_generators.for_jobs import GeneratedText
from lib.registry import version_in_key

VERSION = 1


def policy_model(job: Job[GenerateResponsesJob]) -> PolicyModel[Any]:
    """Who answers in a job."""
    settings, file = job.settings.policy, job.settings.written
    written = {row["id"]: row["answers"] for row in read_jsonl(file)} if file else {}
    policy: PolicyModel[Any] = POLICY_MODELS.class_of(settings)(
        settings, job.settings, job, written
    )
    return policy


def items_of(
    row: InstructionRow, policy: PolicyModel[Any], job: Job[GenerateResponsesJob]
) -> list[Item[Any]]:
    """The items of a prompt, one for each of the policy model's answers."""
    first = job.settings.first_sample
    items = []
    for sample in range(first, first + job.settings.policy.samples):
        decides, source = policy.prepare(row, sample)
        name = row["id"] if sample == first else f"{row['id']}{MARK}{sample}"
        items.append(Item(name, job.key(**decides, **version_in_key(policy)), source))
    return items


def answer_of(outcome: Outcome[GeneratedText]) -> dict[str, Any]:
    """What is published of one answer."""
    if (result := outcome.result) is None:
        return {"failed": str(outcome.reason)}
    tokens = {"tokens": result["tokens"]} if "tokens" in result else {}
    return {"response": result["text"], "finish_reason": result["finish_reason"], **tokens}


def published(
    row: InstructionRow, outcomes: Sequence[Outcome[GeneratedText]]
) -> Outcome[dict[str, Any]]:
    """What is published of a prompt: a `ResponseRow` or `SampledResponsesRow` without what it
    begins with.
    """
    answers = [answer_of(outcome) for outcome in outcomes]
    if all("failed" in answer for answer in answers):
        return Outcome(row["id"], reason=answers[0]["failed"])
    held = answers[0] if len(answers) == 1 else {"samples": answers}
    return Outcome(row["id"], {"image": row["image"], "instruction": row["instruction"], **held})


def main(snakemake: Any) -> None:
    with Job(snakemake, GenerateResponsesJob, VERSION) as job, ExitStack() as connections:
        rows = read_whole_shard(job, snakemake.input.instructions, InstructionRow)
        policy = policy_model(job)
        items: Mapping[str, list[Item[Any]]] = {
            row["id"]: items_of(row, policy, job) for row in present(rows.values())
        }
        image_of = {
            item.id: row["image"] for row in present(rows.values()) for item in items[row["id"]]
        }

        def check(item: Item[Any]) -> None:
            image = image_of[item.id]
            check_image(job.root / image["file"], image["sha256"])

        outcomes = Streamed[Any, GeneratedText](
            job, load=lambda: connections.enter_context(policy.at_work()), check=check
        ).run([item for of_prompt in items.values() for item in of_prompt])
        results = {
            row["id"]: published(row, [outcomes[item.id] for item in items[row["id"]]])
            for row in present(rows.values())
        }
        job.publish(snakemake.output[0], stage_rows(rows, results, job.rule))


if __name__ == "__main__":
    run_script(main)
