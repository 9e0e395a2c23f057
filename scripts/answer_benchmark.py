"""Rule answer_benchmark: one model answers one benchmark, through lmms-eval (paper 4.1).

lmms-eval runs in a process of its own, with the model's own chat template (for LLaVA-1.5 "USER:
<image>\\n<question> ASSISTANT:") and the configured system prompt before it, one question at a
time. It ends with exit code 0 also when it failed, so what it leaves behind is
checked: results, metrics, every answer.

An item is a question. Answers are journalled one by one (lib/benchmarks/lmms_eval/main.py), and the finished
benchmark is kept in `work/` under the digest of all that determines it, so that a job with nothing
to do starts no harness and loads no model.
"""

import difflib
import fcntl
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lib import weights
from lib.benchmarks.lmms_eval.main import answer_key
from lib.blocks import Endpoint
from lib.config.evaluation import JUDGED_TASKS
from lib.endpoint import read_key
from lib.errors import UserError
from lib.files import (
    digest_of_file,
    mendable_storage_errors,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)
from lib.jobs.journal import Journal
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report import provenance

VERSION = 2
HARNESS = Path(__file__).resolve().parent / "lib" / "benchmarks" / "lmms_eval" / "main.py"
#: What of the settings decides the answers and their metrics.
DECISIVE = ("task", "data_revision", "prompt", "limit", "dtype", "system_prompt")
#: Replaces the scoring of a judged task where there is no judge.
UNJUDGED = Path(__file__).resolve().parent / "lib" / "benchmarks" / "lmms_eval" / "unjudged.py"
#: The packages that decide an answer and its metric; their versions are published with the results.
PACKAGES = ("lmms_eval", "torch", "transformers", "tokenizers", "pillow", "datasets")
LOG_LINES_SHOWN = 15
SECONDS_TO_DIE = 10
#: What lmms-eval's tasks say of a question beside its score, where they do.
DETAILS = ("question_id", "category", "score", "eval_model", "capability", "bare_question")

Json = dict[str, Any]


class _TaskLoader(yaml.SafeLoader):
    """Reads a task's file without importing the functions that it names."""


_TaskLoader.add_constructor("!function", lambda loader, node: None)


def task_files(folder: Path) -> dict[str, Path]:
    """lmms-eval's own tasks: name -> file. Groups of tasks are left out."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        name = re.search(
            r"^task\s*:\s*[\"']?([\w.-]+)[\"']?\s*(?:#.*)?$",
            path.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        if name:
            found.setdefault(name[1], path)
    return found


def find_task(task: str) -> Path:
    """The file of one of lmms-eval's own tasks. Nothing of lmms-eval is imported."""
    package = importlib.util.find_spec("lmms_eval")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "lmms-eval is not installed in this environment. Install it, or run with"
            " `--software-deployment-method conda`."
        )
    files = task_files(Path(package.submodule_search_locations[0]) / "tasks")
    if task not in files:
        near = difflib.get_close_matches(task, files, n=3)
        hint = (
            f"Did you mean {' or '.join(repr(name) for name in near)}?"
            if near
            else "`lmms-eval tasks list` lists them."
        )
        raise UserError(
            f"evaluation.benchmarks: lmms-eval has no task '{task}' (a group of tasks cannot be"
            f" named here). {hint}"
        )
    return files[task]


def read_task(path: Path) -> Json:
    """A task's settings, with those of the files that it includes."""
    values: Json = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)  # noqa: S506 - a SafeLoader
    included = values.pop("include", [])
    settings: Json = {}
    for name in reversed([included] if isinstance(included, str) else included):
        settings |= read_task(path.parent / name)
    return settings | values


def local_task(path: Path, settings: Json) -> Json:
    """The task's own file with what the configuration says otherwise: its data, their revision, how
    it asks.

    A hub token is used if there is one; the tasks' own files demand one, even for public data.
    """
    builtin = read_task(path)
    task: Json = {"include": str(path), "task": settings["task"]}
    options = {
        name: value
        for name, value in (builtin.get("dataset_kwargs") or {}).items()
        if name != "token"
    }
    if settings["data"]:
        files = {split: str(Path(file).resolve()) for split, file in settings["data"].items()}
        task |= {
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
        }
    else:
        revision = {"revision": settings["data_revision"]} if settings["data_revision"] else {}
        task["dataset_kwargs"] = options | revision
    if settings["prompt"]:
        kwargs = builtin.get("lmms_eval_specific_kwargs") or {}
        task["lmms_eval_specific_kwargs"] = kwargs | {
            "default": (kwargs.get("default") or {}) | settings["prompt"]
        }
    return task


def is_unjudged(settings: Json) -> bool:
    """Whether a judge would score the task's answers, and none is configured."""
    return settings["task"] in JUDGED_TASKS and settings["judge"] is None


def task_text(task: Json, settings: Json) -> str:
    """The task's file: JSON, which is YAML, but for lmms-eval's tag for functions."""
    if not is_unjudged(settings):
        return json.dumps(task, indent=1) + "\n"
    task = task | {
        "metric_list": [{"metric": "answered", "aggregation": "@count", "higher_is_better": True}]
    }
    task = task | {"process_results": "@process_results"}
    return re.sub(r'"@(\w+)"', rf"!function {UNJUDGED.stem}.\1", json.dumps(task, indent=1)) + "\n"


def environment(run: Path, settings: Json, threads: int) -> dict[str, str]:
    """The environment of lmms-eval: offline where nothing is to be fetched, the hub token where it
    is not printed, the judge.

    lmms-eval reads a judge's address, model and key from there; the key goes nowhere else.
    """
    env = dict(os.environ)
    env |= {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_MININTERVAL": "10",
        "PYTHONUNBUFFERED": "1",
    }
    if "HF_TOKEN" in env:
        # lmms-eval prints HF_TOKEN into its log and writes it into its results; the hub library
        # reads either name.
        env["HUGGING_FACE_HUB_TOKEN"] = env.pop("HF_TOKEN")
    if settings["judge"]:
        judge = Endpoint.model_validate(settings["judge"])
        env |= {
            "API_TYPE": "openai",
            "OPENAI_API_URL": judge.base_url,
            "MODEL_VERSION": judge.model,
            "OPENAI_API_KEY": read_key(judge),
        }
    elif is_unjudged(settings):
        env["API_TYPE"] = (
            "dummy"  # the task's code makes a client when it is loaded, and OpenAI's wants a key
        )
    if settings["data"]:
        env |= {
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(run / "datasets"),
        }
    return env


def failure(job: ShardJob, what: str, log: Path) -> UserError:
    """What lmms-eval did not leave behind, with the end of its log: it says why only there."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.split("\r")[-1] for line in text.splitlines() if line.strip()]
    end = "\n".join(f"  | {line[:300]}" for line in lines[-LOG_LINES_SHOWN:])
    return UserError(
        f"lmms-eval, {job.settings['task']} for {job.name}: {what}. The end of its log,"
        f" {log}:\n{end}"
    )


def run_harness(job: ShardJob, model: Path, key: str, log: Path, threads: int) -> Path:
    """Runs lmms-eval to its end; returns its output folder, whatever is in it.

    It works in a folder of its own with relative names, because commas and equal signs in a path
    would break its arguments.
    """
    settings = job.settings
    run: Path = (job.work / f"{job.name}.run").resolve()
    journal = (job.work / f"{job.name}.journal.jsonl").resolve()
    shutil.rmtree(run, ignore_errors=True)
    write_text(
        run / "task" / f"{settings['task']}.yaml",
        task_text(local_task(find_task(settings["task"]), settings), settings),
    )
    if is_unjudged(settings):
        shutil.copy2(UNJUDGED, run / "task")
    (run / "model").symlink_to(model.resolve(), target_is_directory=True)
    command = [
        sys.executable,
        "-P",
        str(HARNESS),
        str(journal),
        key,
        settings["system_prompt"] or "",
        "--model",
        "llava_hf",
        "--model_args",
        f"pretrained=model,dtype={settings['dtype']},device_map={job.device}",
        "--tasks",
        settings["task"],
        "--include_path",
        "task",
        "--batch_size",
        "1",
        "--device",
        job.device,
        "--output_path",
        "out",
        "--log_samples",
    ]
    if settings["limit"]:
        command += ["--limit", str(settings["limit"])]
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as stream:
        code = subprocess.run(
            command,
            cwd=run,
            env=environment(run, settings, threads),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            check=False,
        ).returncode
    shutil.rmtree(run / "datasets", ignore_errors=True)
    if code:
        raise failure(job, f"ended with exit code {code}", log)
    return run / "out"


def read_results(job: ShardJob, output: Path, log: Path) -> Json:
    """lmms-eval's own metrics and numbers of questions; whatever is missing is a UserError."""
    task = job.settings["task"]
    files = sorted(output.glob("*/[0-9]*_[0-9]*_results.json"))
    if len(files) != 1:
        raise failure(
            job,
            "it left no results file" if not files else f"it left {len(files)} results files",
            log,
        )
    try:
        results = json.loads(files[0].read_text(encoding="utf-8"))
        values, counts = results["results"][task], results["n-samples"][task]
    except (ValueError, KeyError) as error:
        raise failure(
            job, f"its results file {files[0]} is damaged or without '{task}' ({error})", log
        ) from error
    metrics = {}
    for name, value in values.items():
        metric, _, chosen = name.partition(",")
        is_number = (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
        if is_number and chosen and "_stderr" not in metric:
            metrics[metric if chosen == "none" else f"{metric},{chosen}"] = value
    if is_unjudged(job.settings):
        metrics = {}
    elif missing := [name for name in job.settings["metrics"].values() if name not in metrics]:
        raise failure(
            job,
            f"it gave no {', '.join(missing)}; it gave {', '.join(metrics) or 'no metric at all'}",
            log,
        )
    expected = min(job.settings["limit"] or counts["original"], counts["original"])
    if not counts["effective"] == expected > 0:
        raise failure(job, f"it took {counts['effective']} of {expected} questions", log)
    return {
        "metrics": metrics,
        "questions": counts["effective"],
        "questions_in_data": counts["original"],
    }


def read_answers(job: ShardJob, output: Path, questions: int, log: Path) -> list[Json]:
    """Every question with its target and the model's raw answer, in the order of the data set."""
    files = sorted(output.glob(f"*/[0-9]*_[0-9]*_samples_{job.settings['task']}.jsonl"))
    if len(files) != 1:
        raise failure(job, "it left no file of answers", log)
    answers = {}
    for sample in read_jsonl(files[0]):
        # `resps` is left out where no filter changed the response.
        response = sample.get("resps", sample["filtered_resps"])
        while isinstance(response, list) and len(response) == 1:
            response = response[0]
        details = {
            key: value
            for judged in sample.values()
            if isinstance(judged, dict)
            for key, value in judged.items()
            if key in DETAILS
        }
        answers[sample["doc_id"]] = {
            "id": sample["doc_id"],
            "question": sample["input"],
            "target": sample["target"],
            "response": response,
            "tokens": sum(count["output_tokens"] for count in sample.get("token_counts") or []),
            **details,
        }
    if job.settings["judge"] and (
        silent := [name for name, answer in answers.items() if not answer.get("eval_model")]
    ):
        raise failure(
            job,
            f"its judge gave no verdict on {len(silent)} questions (the first: {silent[0]}), which"
            " it scores as 0",
            log,
        )
    if len(answers) != questions or not all(
        isinstance(answer["response"], str) for answer in answers.values()
    ):
        raise failure(
            job,
            f"its file of answers holds {len(answers)} of {questions} questions, or answers that"
            " are no text",
            log,
        )
    return [answers[number] for number in sorted(answers)]


def wait_for_lmms_eval_to_die(journal: Path) -> None:
    """Waits up to 10 s for the journal to be free: after a kill, lmms-eval may hold it a moment
    longer than the job that started it.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + SECONDS_TO_DIE
    with open(journal, "ab") as stream:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            else:
                return


def journalled(job: ShardJob, key: str) -> dict[str, float]:
    """The answers that are in the journal under this key: name -> seconds it took."""
    with Journal(job.work / f"{job.name}.journal.jsonl", job.rule) as journal:
        if journal.dropped_lines:
            job.note(
                f"{journal.dropped_lines} damaged line(s) of {journal.path} dropped; their"
                " questions are asked again"
            )
        prefix = answer_key(key, job.settings["task"], "")
        return {
            name: entry["seconds"]
            for name, entry in journal.entries.items()
            if name.startswith(prefix) and entry["status"] == "ok"
        }


def answer(job: ShardJob, model: Path, key: str, finished: Path, log: Path, threads: int) -> None:
    """Has the benchmark answered, checks what came back and keeps it under `finished`, whole or not
    at all.
    """
    wait_for_lmms_eval_to_die(job.work / f"{job.name}.journal.jsonl")
    before = journalled(job, key)
    started = time.monotonic()
    output = run_harness(job, model, key, log, threads)
    results = read_results(job, output, log)
    answers = read_answers(job, output, results["questions"], log)
    seconds = time.monotonic() - started
    new = {name: taken for name, taken in journalled(job, key).items() if name not in before}
    job.record.computed, job.record.reused = len(new), len(answers) - len(new)
    job.record.compute_seconds = sum(new.values())
    job.record.load_seconds = seconds - job.record.compute_seconds
    scratch = finished.with_name(f"{finished.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    write_jsonl(scratch / "answers.jsonl", answers)
    write_json(scratch / "results.json", {**results, "environment": provenance.versions(PACKAGES)})
    scratch.rename(finished)
    shutil.rmtree(output.parent)


def judge_of(settings: Json, answers: Sequence[Json]) -> dict[str, str] | None:
    """The judge of the metrics: the model as configured, and as the endpoint said."""
    if not settings["judge"]:
        return None
    return {
        "model": settings["judge"]["model"],
        "version": ", ".join(sorted({answer["eval_model"] for answer in answers})),
    }


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    # Snakemake gives a list where there is no merged model, for the base model, and a path where
    # there is one.
    merged = str(snakemake.input.merged or "")
    source, revision = (
        (merged, "main") if merged else (settings["base_model"], settings["base_revision"])
    )
    identity = weights.identity(source, revision)
    job.record.models[source if not merged else snakemake.wildcards.model] = identity
    version = importlib.metadata.version("lmms-eval")
    key = job.key(
        model=identity,
        lmms_eval=version,
        judge=(
            {name: settings["judge"][name] for name in ("base_url", "model")}
            if settings["judge"]
            else None
        ),
        data={
            split: digest_of_file(Path(path)) for split, path in (settings["data"] or {}).items()
        },
        **{name: settings[name] for name in DECISIVE},
        **({"kept": "question_id, capability"} if is_unjudged(settings) else {}),
    )
    finished = job.work / job.name / key
    with mendable_storage_errors(job.root):
        if finished.is_dir():
            job.record.reused = len(read_jsonl(finished / "answers.jsonl"))
        else:
            answer(
                job,
                weights.fetch(source, revision),
                key,
                finished,
                Path(str(snakemake.log.harness)),
                snakemake.threads,
            )
        answers = read_jsonl(finished / "answers.jsonl")
        results = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    job.record.items = len(answers)
    names = {"model": snakemake.wildcards.model, "benchmark": snakemake.wildcards.benchmark}
    write_json(
        Path(snakemake.output.results),
        {
            **names,
            **results,
            "model_identity": identity,
            "task": settings["task"],
            "limit": settings["limit"],
            "lmms_eval": version,
            "judge": judge_of(settings, answers),
        },
    )
    job.publish(snakemake.output.answers, answers)


if __name__ == "__main__":
    run_script(main)
