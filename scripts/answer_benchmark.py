"""Rule answer_benchmark: one model answers one benchmark, through lmms-eval (paper 4.1).

lmms-eval runs in a process of its own (lib/benchmarks/lmms_eval), with the model's own chat
template (for LLaVA-1.5 "USER: <image>\\n<question> ASSISTANT:") and the configured system prompt
before it, one question at a time.

An item is a question: what the model sees of it. Answers are journalled one by one, and the
finished benchmark is kept in `work/` under the digest of all that determines it, so that a job with
nothing to do starts no harness and loads no model.

Where jobs of rule answer_part have answered a part of the questions each, this one takes their
answers over and scores them, and loads no model.
"""

import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar, cast

from lib import weights
from lib.benchmarks.evaluated_model import find_evaluated_model
from lib.benchmarks.lmms_eval.answer_journal import (
    RULE,
    TAKEN_OVER,
    AnswerKeys,
    Kept,
    journal_of,
    packages_of,
    read_journal,
    take_answers_over,
    wait_for_lmms_eval_to_die,
)
from lib.benchmarks.lmms_eval.engine import Engine
from lib.benchmarks.lmms_eval.harness import AskedModel, Harness, run_lmms_eval
from lib.benchmarks.lmms_eval.parts import JOINED
from lib.benchmarks.lmms_eval.task_code import asks_a_judge
from lib.benchmarks.lmms_eval.tasks import (
    JUDGED_TASKS,
    find_task,
    greedy,
    hub_data_set,
    read_task,
)
from lib.blocks import Endpoint, Model, deciding
from lib.config.evaluation import AnswerBenchmarkJob
from lib.data.evaluation_files import JudgeName, KeptResults, TaskAnswer, TaskResults
from lib.data.image_files import check_pixels, check_whole
from lib.data.parquet_images import images_in_parquet
from lib.engine import independence
from lib.errors import UserError
from lib.files import digest_of_file, mendable_storage_errors, read_jsonl, write_json, write_jsonl
from lib.jobs.device import require_device, spread_over
from lib.jobs.job import Job
from lib.jobs.kept import MARKER, copy_folder, is_sealed, publish_folder, seal
from lib.jobs.script import run_script
from lib.jobs.versions import versions

VERSION = 2
T = TypeVar("T")
ANSWERS, RESULTS = "answers.jsonl", "results.json"


#: Settings that say which questions there are and how they are put: an answer's key holds the
#: question.
OF_THE_QUESTIONS = ("data_revision", "limit", "prompt")


def pin_data(settings: AnswerBenchmarkJob) -> tuple[AnswerBenchmarkJob, dict[str, str]]:
    """The settings with the commit that the revision of the hub's data is, and the data that are
    asked: sha256 by split of local data, or the commit by the name of the hub's data set.
    """
    if settings.data:
        files = settings.data.items()
        return settings, {split: digest_of_file(Path(path)) for split, path in files}
    name = hub_data_set(settings.task)
    commit = weights.commit_of(name, settings.data_revision or "main", "dataset")
    return settings.model_copy(update={"data_revision": commit}), {name: commit}


def asks_otherwise(settings: AnswerBenchmarkJob) -> bool:
    """Whether a task can ask a judge, and did so unasked before only the configured one was: its
    metrics of then are not those of today. Its answers are.
    """
    return settings.task not in JUDGED_TASKS and asks_a_judge(find_task(settings.task))


def key_of(
    job: Job[AnswerBenchmarkJob],
    settings: AnswerBenchmarkJob,
    data: Mapping[str, str],
    identity: str,
    lmms_eval: str,
) -> str:
    """What determines all answers and metrics of a job. `settings`, `data`: of `pin_data`;
    `lmms_eval`: its version.
    """
    judge = settings.judge
    return job.key(
        rule=RULE,
        model=identity,
        lmms_eval=lmms_eval,
        judge={"base_url": judge.base_url, "model": judge.model} if judge else None,
        data=data if settings.data else {},
        **deciding(settings),
        **deciding(settings.base_model),
        **({"kept": "question_id, capability"} if settings.is_unjudged else {}),
        **({"judges": "the configured one alone"} if asks_otherwise(settings) else {}),
        **greedy(read_task(find_task(settings.task))),
    )


def keys_of(
    job: Job[AnswerBenchmarkJob],
    settings: AnswerBenchmarkJob,
    identity: str,
    version: str,
    key: str,
) -> AnswerKeys:
    """What the keys of single answers are made of. `key`: of all of them."""
    asking = {
        name: value for name, value in deciding(settings).items() if name not in OF_THE_QUESTIONS
    }
    return AnswerKeys(
        asking=job.key(
            rule=RULE,
            model=identity,
            lmms_eval=version,
            asking=asking,
            **deciding(settings.base_model),
        ),
        earlier=key,
    )


def engine_of(job: Job[AnswerBenchmarkJob], model: Model, part: str) -> Engine | None:
    """vLLM's engine, where it answers; the record then tells that questions are answered at once,
    or how they are not to depend on that. `part`: of the questions, or JOINED.
    """
    settings = job.settings
    if settings.backend != "vllm":
        return None
    at_once = settings.questions_per_batch
    if settings.deterministic and part != JOINED:
        job.note(f"deterministic: {independence(job.device)}")
    if at_once > 1 and not settings.deterministic:
        job.note(f"up to {at_once} questions at once: low bits may depend on what is answered then")
    return Engine(
        model.dtype,
        job.device,
        at_once,
        settings.max_model_len or 4096,
        settings.prefix_caching,
        spread_over(job.device, settings.gpus),
        settings.deterministic,
    )


def asked_model(job: Job[AnswerBenchmarkJob], model: Model, part: str) -> AskedModel:
    """The model of a job and how it is asked. `part`: of the questions, or JOINED."""
    if (gpus := spread_over(job.device, job.settings.gpus)) > 1 and part != JOINED:
        require_device(job.device, gpus)
        job.note(f"spread over {gpus} GPUs: with vLLM, low bits may depend on how many")
    return AskedModel(
        folder=weights.fetch(model.model, model.revision),
        dtype=model.dtype,
        device="cpu" if part == JOINED else job.device,
        system_prompt=job.settings.system_prompt or "",
        engine=engine_of(job, model, part),
        part=part,
        gpus=1 if part == JOINED else gpus,
    )


def check_data(path: Path, megapixels: float) -> None:
    """A UserError if a local data file has an image of more megapixels than are allowed, of more
    bits than a model sees, or that is not whole. What is no data file is lmms-eval's to tell.
    """
    with suppress(OSError, ValueError):
        for number, images in images_in_parquet(path):
            for image in images:
                what = f"{path}, row {number}:"
                with suppress(OSError, SyntaxError, ValueError):  # what is no image is told next
                    check_pixels(BytesIO(image), what.removesuffix(":"), megapixels)
                check_whole(BytesIO(image), what)


class Asking:
    """What a job has lmms-eval ask: which model, of what questions, and where the answers are
    kept.
    """

    def __init__(
        self, snakemake: Any, job: Job[AnswerBenchmarkJob], beside: Sequence[str] = ()
    ) -> None:
        """`snakemake`: the job as Snakemake has it, which may be several of ours; `beside`: the
        names of the others.
        """
        self.job = job
        self.settings, self.data = pin_data(job.settings)
        self.model, self.identity = find_evaluated_model(snakemake, job, self.settings.base_model)
        self.version = importlib.metadata.version("lmms-eval")
        self.key = key_of(job, self.settings, self.data, self.identity, self.version)
        keys = keys_of(job, self.settings, self.identity, self.version, self.key)
        self.kept = Kept(journal_of(job), keys, self.settings.limit)
        log = Path(str(snakemake.log.harness))
        self.harness = Harness(self.settings, job.name, log, tuple(beside))

    @property
    def run(self) -> Path:
        """The folder that lmms-eval works in."""
        return Path(self.job.work, f"{self.job.name}.run")

    def prepare(self) -> None:
        """Looks at local data, and enters answers from elsewhere."""
        wait_for_lmms_eval_to_die(self.kept.journal)
        for path in (self.settings.data or {}).values():
            check_data(Path(path), self.settings.max_image_megapixels)
        self._sources = take_answers_over(self.job, self.kept.keys)
        self._before = read_journal(self.job).entries

    def put_on_record(self, asked: Sequence[str]) -> None:
        """How many of the answers with these keys were computed since `prepare`, in which time."""
        journal, record = read_journal(self.job), self.job.record
        distinct = dict.fromkeys(asked)
        entries = [
            journal.entries[key]
            for key in distinct
            if self._before.get(key) != journal.entries[key]
        ]
        new = [entry["seconds"] for entry in entries if TAKEN_OVER not in entry["result"]]
        record.computed, record.reused = len(new), len(asked) - len(new)
        record.compute_seconds = sum(new)
        for run, answers_there in self._sources.items():
            if taken := len(answers_there & distinct.keys()):
                self.job.took_over(run, taken)


def ask(
    all_asked: Sequence[Asking], part: str, threads: int, read: Callable[[Path], T]
) -> tuple[list[list[str]], T]:
    """Has lmms-eval ask what is not answered yet, with one load of the model; returns the keys of
    the answers to each, and what `read` reads of lmms-eval's output. What was computed is put on
    record. `part`: of the questions, or JOINED.
    """
    first = all_asked[0]
    models = [asked_model(asking.job, asking.model, part) for asking in all_asked]
    for asking in all_asked:
        asking.prepare()
    started = time.monotonic()
    tasks = [(asking.harness, asking.kept) for asking in all_asked]
    output = read(run_lmms_eval(tasks, first.run, models[0], threads))
    asked = [asking.harness.read_asked(first.run) for asking in all_asked]
    seconds = time.monotonic() - started
    for asking, keys in zip(all_asked, asked, strict=True):
        asking.put_on_record(keys)
    records = [asking.job.record for asking in all_asked]
    records[0].load_seconds = seconds - sum(record.compute_seconds for record in records)
    shutil.rmtree(first.run)
    return asked, output


def answer(asking: Asking, part: str, finished: Path, threads: int) -> None:
    """Runs the benchmark, validates its output, and stores it atomically as the folder
    `finished`.
    """
    harness, job = asking.harness, asking.job

    def read(output: Path) -> tuple[list[TaskAnswer], KeptResults]:
        results = harness.read_results(output)
        return harness.read_answers(output, results["questions"]), results

    [asked], (answers, results) = ask([asking], part, threads, read)
    job.record.reused = len(answers) - job.record.computed
    journal = read_journal(job)
    sessions = [
        *(journal.versions[key] for key in dict.fromkeys(asked)),
        versions(packages_of(job.settings.backend)),
    ]
    store(finished, answers, {**results, "environment": environment_of(sessions)})


def environment_of(sessions: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The versions of packages that answers and metrics come from; several of one are joined."""
    several: dict[str, dict[str, None]] = {}
    for session in sessions:
        for package, version in session.items():
            several.setdefault(package, {})[version] = None
    return {package: ", ".join(each) for package, each in several.items()}


def store(finished: Path, answers: Sequence[TaskAnswer], results: KeptResults) -> None:
    """Writes the finished benchmark, whole or not at all."""
    scratch = finished.with_name(f"{finished.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    write_jsonl(scratch / ANSWERS, answers)
    write_json(scratch / RESULTS, results)
    seal(scratch, (ANSWERS, RESULTS))
    publish_folder(scratch, finished)


def read_stored(finished: Path) -> tuple[list[TaskAnswer], KeptResults]:
    """A finished benchmark's answers and results."""
    results = json.loads((finished / RESULTS).read_text(encoding="utf-8"))
    answers = cast("list[TaskAnswer]", read_jsonl(finished / ANSWERS))
    return answers, cast("KeptResults", results)


def take_over(job: Job[AnswerBenchmarkJob], finished: Path) -> bool:
    """Whether another job, of this run or another, has finished the benchmark under the same key;
    it is then copied.
    """
    if kept := job.kept_elsewhere(f"*/*/{finished.name}"):
        run, folder = kept
        finished.parent.mkdir(parents=True, exist_ok=True)
        copy_folder(folder, finished)
        job.took_over(run, len(read_stored(finished)[0]))
    return bool(kept)


def is_stored(job: Job[AnswerBenchmarkJob], finished: Path) -> bool:
    """Whether a finished benchmark is there and whole. What is left of a damaged one is deleted:
    its answers come from the journal.
    """
    if not finished.exists():
        return False
    if is_sealed(finished) or (not (finished / MARKER).exists() and _is_readable(finished)):
        return True
    job.note(f"{finished}: is damaged; its answers are taken from the journal")
    shutil.rmtree(finished)
    return False


def _is_readable(finished: Path) -> bool:
    """Whether a benchmark that was kept without digests, by an older version, can be read."""
    try:
        answers, results = read_stored(finished)
        return len(answers) == results["questions"]
    except (OSError, ValueError, TypeError, KeyError, UserError):
        return False


def judge_of(judge: Endpoint | None, answers: Sequence[TaskAnswer]) -> JudgeName | None:
    """The judge of the metrics: the model as configured, and as the endpoint said."""
    if judge is None:
        return None
    versions = {answer["eval_model"] for answer in answers if "eval_model" in answer}
    return {"model": judge.model, "version": ", ".join(sorted(versions)) or judge.model}


def main(snakemake: Any) -> None:
    with Job(snakemake, AnswerBenchmarkJob, VERSION) as job, mendable_storage_errors(job.root):
        asking = Asking(snakemake, job)
        finished = job.work / job.name / asking.key
        if is_stored(job, finished) or take_over(job, finished):
            read_journal(job)  # tells of damage in the journal
            job.record.reused = len(read_stored(finished)[0])
        else:
            part = JOINED if getattr(snakemake.input, "parts", None) else ""
            answer(asking, part, finished, snakemake.threads)
        answers, kept = read_stored(finished)
        job.computed_under({})
        for package, several in kept.get("environment", {}).items():
            for each in several.split(", "):
                job.computed_under({package: each})
        job.record.items = len(answers)
        results: TaskResults = {
            **kept,
            "model": snakemake.wildcards.model,
            "benchmark": snakemake.wildcards.benchmark,
            "model_identity": asking.identity,
            "task": job.settings.task,
            "limit": job.settings.limit,
            "data": asking.data,
            "lmms_eval": asking.version,
            "judge": judge_of(job.settings.judge, answers),
        }
        write_json(Path(snakemake.output.results), results)
        job.publish(snakemake.output.answers, answers)


if __name__ == "__main__":
    run_script(main)
