"""Rule write_instructions: one instruction a prompt, about the image that the ranking picked (paper
3.3).

An item is a prompt. What an LLM answers is checked; an answer that fails is asked for again with
another seed. What users wrote themselves, for each prompt or as templates for all, was checked
before the run began. Prompts whose best image is too bad get no instruction, and so no pair.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.models.response_generators.generation import Request, Sampling, load_for_job

from lib import weights
from lib.blocks import Endpoint
from lib.data.controls import Pick, pick_of
from lib.data.image_files import check_image
from lib.data.prompts import Prompt, seed_of
from lib.data.shards import Row, is_missing, missing_row, read_shard, stage_rows
from lib.endpoint import Answer, Client
from lib.errors import ItemError, UserError
from lib.files import digest
from lib.jobs.batches import Item, Outcome
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.models.instruction_authors.checks import (
    clean,
    from_template,
    problem_with_answer,
    read_instruction_file,
)

VERSION = 1
#: What of the settings decides how an instruction is drawn and judged, whoever draws it.
GENERATION = ("template", "max_new_tokens", "temperature", "require_question", "with_image")
LOCAL = ("transformers", "vllm")
FROM_USER = ("file", "template")


@dataclass(frozen=True)
class Question:
    """What an LLM is asked for one prompt; `seeds` are those of the attempts."""

    prompt: str
    text: str
    seeds: tuple[int, ...]
    image: Path | None = None


#: One answer a (question, seed), in order.
Ask = Callable[[Sequence[tuple[Question, int]]], list[Answer]]


def write(
    ask: Ask, questions: Sequence[Question], require_question: bool
) -> list[dict[str, Any] | ItemError]:
    """For each question the first answer that passes the checks, or why none did."""
    results: list[dict[str, Any] | ItemError] = [ItemError("nothing was asked") for _ in questions]
    left = list(range(len(questions)))
    for attempt in range(max(len(question.seeds) for question in questions)):
        answers = ask([(questions[index], questions[index].seeds[attempt]) for index in left])
        failed = []
        for index, answer in zip(left, answers, strict=True):
            instruction = clean(answer.text)
            problem = problem_with_answer(
                instruction, questions[index].prompt, answer.finish_reason, require_question
            )
            if problem is None:
                results[index] = {"instruction": instruction, "attempts": attempt + 1}
            else:
                results[index] = ItemError(
                    f"no usable instruction in {attempt + 1} attempt(s); the last one: {problem}:"
                    f" {instruction[:120]!r}"
                )
                failed.append(index)
        left = failed
        if not left:
            break
    return results


def picked_images(
    images: dict[str, Row],
    ranking: dict[str, Row],
    min_image_reward: float | None,
    pick: Pick = "best",
    seed: int = 0,
) -> dict[str, Row]:
    """The rows of a shard with the picked candidate as "image": {file, sha256, guidance_scale,
    score}; those below the minimum are missing.

    The minimum is of the winner, also where another candidate is picked: a control has the same
    prompts. A pick by chance says so (`"drawn": true`).
    """
    rows = {}
    for prompt_id, row in ranking.items():
        if is_missing(row):
            rows[prompt_id] = row
            continue
        if min_image_reward is not None and row["scores"][row["winner"]] < min_image_reward:
            rows[prompt_id] = missing_row(row, "rank_images", "image reward below minimum")
            continue
        candidates = images[prompt_id]["candidates"]
        index = pick_of(candidates, row["winner"], pick, seed, prompt_id)
        image = {
            "score": row["scores"][index],
            **{name: candidates[index][name] for name in ("file", "sha256", "guidance_scale")},
        }
        if pick == "random":
            image["drawn"] = True
        rows[prompt_id] = {
            "id": prompt_id,
            "topic": row["topic"],
            "prompt": row["prompt"],
            "image": image,
        }
    return rows


def instruction_of(result: dict[str, Any]) -> dict[str, str]:
    """What is published of an item's result: the instruction, and the template where one was drawn."""
    return {name: result[name] for name in ("instruction", "template") if name in result}


def read_written(
    path: Path, prompts: Sequence[Prompt], require_question: bool, expected_digest: str
) -> dict[str, str]:
    """The user's instructions for the prompts of this shard, if they are still those that the run
    began with.
    """
    written = read_instruction_file(path, prompts, require_question, others_too=True)
    if digest([written[prompt.id] for prompt in prompts]) != expected_digest:
        raise UserError(f"{path}: was edited while the run was starting. Run again.")
    return written


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    backend: str = settings["backend"]
    images_file = Path(snakemake.input.images)
    rows = picked_images(
        read_shard(images_file),
        read_shard(snakemake.input.ranking),
        settings["min_image_reward"],
        settings.get("pick", "best"),
        job.seed,
    )
    endpoint = Endpoint.model_validate(settings["endpoint"]) if backend == "openai" else None
    generation = {name: settings[name] for name in GENERATION}
    attempts = (
        settings["max_attempts"] if settings["temperature"] else 1
    )  # a greedy model says the same again

    author: dict[str, Any] = {}
    if endpoint:
        # The address is not part of it: a model keeps its answers when its server moves.
        author = {"model": endpoint.model, "parameters": endpoint.parameters}
        job.record.models["endpoint"] = endpoint.model
    elif backend in LOCAL:
        llm = settings["llm"]
        author = {
            "model": weights.identity(llm["model"], llm["revision"]),
            "dtype": llm["dtype"],
            "backend": backend,
        }
        job.record.models[llm["model"]] = author["model"]
    written: dict[str, str] = {}
    if backend == "file":
        prompts = [Prompt(row["topic"], row["prompt"]) for row in rows.values()]
        written = read_written(
            Path(settings["file"]), prompts, settings["require_question"], snakemake.params.digest
        )

    def item(row: Row) -> Item:
        if backend == "file":
            own = {"instruction": written[row["id"]]}
            return Item(row["id"], job.key(prompt=row["prompt"], **own), own)
        if backend == "template":
            template, instruction = from_template(
                settings["templates"], job.seed, Prompt(row["topic"], row["prompt"])
            )
            # The other templates and the seed are not part of the key: they decided which template
            # it is, and nothing more.
            return Item(
                row["id"],
                job.key(prompt=row["prompt"], template=template),
                {"instruction": instruction, "template": template},
            )
        seeds = tuple(
            seed_of(job.seed, "instruction", row["id"], attempt) for attempt in range(attempts)
        )
        question = Question(
            row["prompt"],
            settings["template"].replace("{prompt}", row["prompt"]),
            seeds,
            job.root / row["image"]["file"] if settings["with_image"] else None,
        )
        seen = {"image": row["image"]["sha256"]} if settings["with_image"] else {}
        # `max_attempts` is not part of the key: raising it asks again for those that failed, and
        # for no other.
        return Item(
            row["id"],
            job.key(
                prompt=row["prompt"], author=author, generation=generation, seed=seeds[0], **seen
            ),
            question,
        )

    def check(item: Item) -> None:
        if settings["with_image"]:
            image = rows[item.id]["image"]
            check_image(job.root / image["file"], image["sha256"], images_file)

    def load() -> Any:
        if endpoint:
            return stack.enter_context(Client(endpoint))
        if backend in FROM_USER:
            return None
        return load_for_job(
            job,
            backend,
            settings["llm"],
            Sampling(settings["max_new_tokens"], settings["temperature"]),
            with_images=False,
            batch_size=settings["prompts_per_batch"],
            max_model_len=settings["max_model_len"],
            of="prompts",
        )

    def from_endpoint(client: Client, batch: Sequence[Item]) -> list[Future[dict[str, Any]]]:
        def ask(asked: Sequence[tuple[Question, int]]) -> list[Answer]:
            return [
                client.ask(
                    question.text,
                    temperature=settings["temperature"],
                    max_tokens=settings["max_new_tokens"],
                    seed=seed,
                    image=question.image,
                )
                for question, seed in asked
            ]

        def write_one(question: Question) -> dict[str, Any]:
            [result] = write(ask, [question], settings["require_question"])
            if isinstance(result, ItemError):
                raise result
            return result

        return [client.submit(write_one, item.inputs) for item in batch]

    def from_model(generator: Any, batch: Sequence[Item]) -> list[dict[str, Any] | ItemError]:
        def ask(asked: Sequence[tuple[Question, int]]) -> list[Answer]:
            answers = generator.generate([Request(question.text, seed) for question, seed in asked])
            return [Answer(answer.text, answer.finish_reason) for answer in answers]

        return write(ask, [item.inputs for item in batch], settings["require_question"])

    def from_user(nobody: None, batch: Sequence[Item]) -> list[dict[str, Any]]:
        return [item.inputs for item in batch]

    compute: Callable[..., Sequence[Any]] = (
        from_endpoint if endpoint else from_user if backend in FROM_USER else from_model
    )
    with ExitStack() as stack:
        outcomes = job.run(
            [item(row) for row in rows.values() if not is_missing(row)],
            load=load,
            compute=compute,
            batch_size=endpoint.concurrency if endpoint else settings["prompts_per_batch"],
            check=check,
        )
    with_images = {
        prompt_id: (
            Outcome(
                prompt_id, {"image": rows[prompt_id]["image"], **instruction_of(outcome.result)}
            )
            if outcome.result is not None
            else outcome
        )
        for prompt_id, outcome in outcomes.items()
    }
    job.publish(snakemake.output[0], stage_rows(rows, with_images, job.rule))


if __name__ == "__main__":
    run_script(main)
