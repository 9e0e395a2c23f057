"""Rule answer_benchmark: one model answers one benchmark, through lmms-eval (paper 4.1).

lmms-eval runs in a process of its own (lib/benchmarks/lmms_eval), with the model's own chat
template (for LLaVA-1.5 "USER: <image>\\n<question> ASSISTANT:") and the configured system prompt
before it, one question at a time.

An item is a question. Answers are journalled one by one, and the finished benchmark is kept in
`work/` under the digest of all that determines it, so that a job with nothing to do starts no
harness and loads no model.
"""

import importlib.metadata
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from lib import weights
from lib.benchmarks.evaluated_model import find_evaluated_model
from lib.benchmarks.lmms_eval.answer_journal import (
    journal_of,
    seconds_by_answer,
    wait_for_lmms_eval_to_die,
)
from lib.benchmarks.lmms_eval.harness import AskedModel, Harness
from lib.blocks import Endpoint, Model, deciding
from lib.config.evaluation import AnswerBenchmarkJob
from lib.data.evaluation_files import JudgeName, KeptResults, TaskAnswer, TaskResults
from lib.data.image_files import check_pixels, images_in_parquet
from lib.files import digest_of_file, mendable_storage_errors, read_jsonl, write_json, write_jsonl
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report import provenance

VERSION = 2
#: The packages that decide an answer and its metric; their versions are published with the results.
PACKAGES = ("lmms_eval", "torch", "transformers", "tokenizers", "pillow", "datasets")


def key_of(job: Job[AnswerBenchmarkJob], identity: str, lmms_eval: str) -> str:
    """What determines all answers and metrics of a job. `lmms_eval`: its version."""
    settings = job.settings
    judge = settings.judge
    data = settings.data or {}
    return job.key(
        model=identity,
        lmms_eval=lmms_eval,
        judge={"base_url": judge.base_url, "model": judge.model} if judge else None,
        data={split: digest_of_file(Path(path)) for split, path in data.items()},
        **deciding(settings),
        **deciding(settings.base_model),
        **({"kept": "question_id, capability"} if settings.is_unjudged else {}),
    )


def ask(
    job: Job[AnswerBenchmarkJob], harness: Harness, model: Model, key: str, threads: int
) -> tuple[list[TaskAnswer], KeptResults]:
    """Runs the benchmark and validates its output."""
    asked = AskedModel(
        folder=weights.fetch(model.model, model.revision),
        dtype=model.dtype,
        device=job.device,
        system_prompt=job.settings.system_prompt or "",
    )
    output = harness.run(run_folder(job), asked, journal_of(job), key, threads)
    results = harness.read_results(output)
    return harness.read_answers(output, results["questions"]), results


def check_data(path: Path, megapixels: float) -> None:
    """A UserError if a local data file has an image of more megapixels than are allowed. What is no
    data file or no image is lmms-eval's to tell.
    """
    with suppress(OSError, ValueError):
        for number, images in images_in_parquet(path):
            for image in images:
                with suppress(OSError, SyntaxError, ValueError):
                    check_pixels(BytesIO(image), f"{path}, row {number}", megapixels)


def run_folder(job: Job[Any]) -> Path:
    """The folder that lmms-eval works in."""
    return Path(job.work, f"{job.name}.run")


def answer(
    job: Job[AnswerBenchmarkJob],
    harness: Harness,
    model: Model,
    key: str,
    finished: Path,
    threads: int,
) -> None:
    """Runs the benchmark, validates its output, and stores it atomically as the folder
    `finished`.
    """
    wait_for_lmms_eval_to_die(journal_of(job))
    for path in (job.settings.data or {}).values():
        check_data(Path(path), job.settings.max_image_megapixels)
    before = seconds_by_answer(job, key, job.settings.task)
    started = time.monotonic()
    answers, results = ask(job, harness, model, key, threads)
    seconds = time.monotonic() - started
    after = seconds_by_answer(job, key, job.settings.task)
    new = [taken for name, taken in after.items() if name not in before]
    job.record.computed, job.record.reused = len(new), len(answers) - len(new)
    job.record.compute_seconds = sum(new)
    job.record.load_seconds = seconds - job.record.compute_seconds
    store(finished, answers, {**results, "environment": provenance.versions(PACKAGES)})
    shutil.rmtree(run_folder(job))


def store(finished: Path, answers: Sequence[TaskAnswer], results: KeptResults) -> None:
    """Writes the finished benchmark, whole or not at all."""
    scratch = finished.with_name(f"{finished.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    write_jsonl(scratch / "answers.jsonl", answers)
    write_json(scratch / "results.json", results)
    scratch.rename(finished)


def read_stored(finished: Path) -> tuple[list[TaskAnswer], KeptResults]:
    """A finished benchmark's answers and results."""
    results = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    answers = cast("list[TaskAnswer]", read_jsonl(finished / "answers.jsonl"))
    return answers, cast("KeptResults", results)


def judge_of(judge: Endpoint | None, answers: Sequence[TaskAnswer]) -> JudgeName | None:
    """The judge of the metrics: the model as configured, and as the endpoint said."""
    if judge is None:
        return None
    versions = {answer["eval_model"] for answer in answers}
    return {"model": judge.model, "version": ", ".join(sorted(versions))}


def main(snakemake: Any) -> None:
    with Job(snakemake, AnswerBenchmarkJob, VERSION) as job, mendable_storage_errors(job.root):
        settings = job.settings
        model, identity = find_evaluated_model(snakemake, job, settings.base_model)
        version = importlib.metadata.version("lmms-eval")
        key = key_of(job, identity, version)
        finished = job.work / job.name / key
        if finished.is_dir():
            job.record.reused = len(read_stored(finished)[0])
        else:
            harness = Harness(settings, job.name, Path(str(snakemake.log.harness)))
            answer(job, harness, model, key, finished, snakemake.threads)
        answers, kept = read_stored(finished)
        job.record.items = len(answers)
        results: TaskResults = {
            **kept,
            "model": snakemake.wildcards.model,
            "benchmark": snakemake.wildcards.benchmark,
            "model_identity": identity,
            "task": settings.task,
            "limit": settings.limit,
            "lmms_eval": version,
            "judge": judge_of(settings.judge, answers),
        }
        write_json(Path(snakemake.output.results), results)
        job.publish(snakemake.output.answers, answers)


if __name__ == "__main__":
    run_script(main)
