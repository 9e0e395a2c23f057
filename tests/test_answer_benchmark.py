"""Answers through the real lmms-eval, on the tiny model and the small local benchmarks: what is
kept, reused, resumed, and refused.
"""

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import answer_benchmark
import answer_part
import lib.jobs.job
from conftest import PYTHONPATH, Parameters, Wildcards
from lib.benchmarks.lmms_eval.answer_journal import (
    AnswerKeys,
    journal_of,
    journals_with_answers,
    wait_for_lmms_eval_to_die,
)
from lib.benchmarks.lmms_eval.harness import Harness, _refusal
from lib.benchmarks.lmms_eval.main import (
    ITS_DATA,
    REFUSED,
    by_picture,
    journalled,
    one_at_a_time,
)
from lib.benchmarks.lmms_eval.parts import WHOLE
from lib.benchmarks.lmms_eval.tasks import (
    TaskSettings,
    find_task,
    greedy,
    local_task,
    read_task,
    task_text,
)
from lib.benchmarks.task_pictures import task_pictures
from lib.blocks import deciding
from lib.config.evaluation import AnswerBenchmarkJob, Evaluation, TaskBenchmark
from lib.config.run import load_config
from lib.data.parquet_images import digest_of_pictures, images_in_parquet
from lib.errors import UserError
from lib.files import digest_of_file, read_jsonl, write_text
from lib.head.evaluation import answer_job
from lib.head.plan import Plan
from lib.jobs.journal import Journal
from lib.patches.lmms_eval import question_of
from lib.weights import commit_of

SCRIPTS = Path(answer_benchmark.__file__).parent
SECRET = "hf_thisisnotatokenofanybody"


def default_tasks() -> dict[str, TaskBenchmark]:
    """The default benchmarks, which lmms-eval answers, all of them."""
    tasks = {}
    for name, benchmark in Evaluation().benchmarks.items():
        assert isinstance(benchmark, TaskBenchmark), name
        tasks[name] = benchmark
    return tasks


DEFAULTS = default_tasks()


class Job:
    """What Snakemake gives a script, in a run's folder `results/run` of the current folder."""

    def __init__(self, rule="answer_benchmark", model="base", benchmark="pope", settings=None):
        common = {"root": "results/run", "device": "cpu", "seed": 0, "max_failed_fraction": 0}
        folder = f"results/run/evaluation/{model}/{benchmark}"
        self.rule = rule
        self.wildcards = Wildcards(model=model, benchmark=benchmark)
        self.params = Parameters(settings=settings or {}, common=common)
        self.input = SimpleNamespace(merged=[])
        # By name; rules of one output have a list.
        self.output: Any = SimpleNamespace(
            answers=f"{folder}/answers.jsonl", results=f"{folder}/results.json"
        )
        self.log = SimpleNamespace(harness=f"results/run/logs/{model}-{benchmark}.lmms-eval.log")
        self.threads = 1

    def record(self):
        return json.loads(
            Path(f"results/run/work/{self.rule}/{'/'.join(self.wildcards)}.json").read_text()
        )

    def published(self):
        return [Path(path).read_bytes() for path in (self.output.answers, self.output.results)]

    def answers(self):
        return read_jsonl(Path(self.output.answers))

    def answers_in(self, folder):
        return read_jsonl(Path(folder, self.output.answers))

    def results(self):
        return json.loads(Path(self.output.results).read_text())


def settings_of(benchmark, model, data, **changes):
    block = DEFAULTS[benchmark].model_dump(
        mode="json", exclude={"percent", "scorer", "data_revision", "shards"}
    )
    base = {
        "base_model": {"model": str(model), "revision": "main", "dtype": "float32"},
        "system_prompt": None,
    }
    return block | {"data": {"test": str(data)}} | base | changes


def plain_lmms_eval(folder, model, parquet):
    """`python -m lmms_eval`, unchanged, on the same questions; returns metrics, responses in order,
    and its output.
    """
    include = folder / "tasks"
    include.mkdir()
    task = {
        "include": str(find_task("pope")),
        "task": "plain_pope",
        "dataset_path": "parquet",
        "dataset_name": None,
    }
    (include / "plain.yaml").write_text(
        json.dumps(task | {"dataset_kwargs": {"data_files": {"test": str(parquet)}}})
    )
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lmms_eval",
            "--model",
            "llava_hf",
            "--model_args",
            f"pretrained={model},dtype=float32,device_map=cpu",
            "--tasks",
            "plain_pope",
            "--include_path",
            include,
            "--batch_size",
            "1",
            "--device",
            "cpu",
            "--output_path",
            folder / "out",
            "--log_samples",
            "--verbosity",
            "DEBUG",
        ],
        env=os.environ | offline,
        check=True,
        capture_output=True,
        text=True,
    )
    results = json.loads(next((folder / "out").glob("*/*_results.json")).read_text())["results"][
        "plain_pope"
    ]
    samples = read_jsonl(next((folder / "out").glob("*/*_samples_plain_pope.jsonl")))
    return results, [sample["filtered_resps"] for sample in samples], done.stdout


@pytest.fixture(scope="module")
def undisturbed(demo_models, demo_benchmarks, tmp_path_factory):
    """POPE answered once, with a token in the environment, in a folder whose name would break an
    argument list of lmms-eval.
    """
    folder = tmp_path_factory.mktemp("run") / "a run, of=mine"
    folder.mkdir()
    job = Job(
        settings=settings_of("pope", demo_models / "llava-1.5", demo_benchmarks / "pope.parquet")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_TOKEN", SECRET)
        answer_benchmark.main(job)
        return SimpleNamespace(
            job=job, folder=folder, published=job.published(), record=job.record()
        )


@pytest.fixture
def pope(undisturbed, tmp_path, monkeypatch):
    """The same job in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Job(settings=dict(undisturbed.job.params.settings))


@pytest.mark.slow
def test_answers_and_metrics_are_those_of_plain_lmms_eval_which_asks_with_the_models_own_template(
    undisturbed, demo_models, demo_benchmarks, tmp_path, monkeypatch
):
    monkeypatch.chdir(undisturbed.folder)
    answers, results = undisturbed.job.answers(), undisturbed.job.results()
    theirs, responses, output = plain_lmms_eval(
        tmp_path, demo_models / "llava-1.5", demo_benchmarks / "pope.parquet"
    )
    metrics = {
        name.removesuffix(",none"): value
        for name, value in theirs.items()
        if name.endswith(",none") and "_stderr" not in name
    }
    assert [answer["response"] for answer in answers] == responses
    assert results["metrics"] == metrics
    assert f"USER: <image>\n{answers[0]['question']} ASSISTANT:\n" in output


def job_of_part(whole, part):
    """The job that answers a part of another's questions."""
    job = Job("answer_part", settings=dict(whole.params.settings))
    job.wildcards = Wildcards(**vars_of(whole.wildcards), part=part)
    job.output = [f"results/run/evaluation/base/pope/parts/{part}.json"]
    job.log.harness = f"results/run/logs/{part}.lmms-eval.log"
    return job


def vars_of(wildcards):
    return {"model": wildcards.model, "benchmark": wildcards.benchmark}


@pytest.mark.slow
def test_answered_in_parts_a_benchmark_has_the_files_that_one_job_makes_to_the_byte(
    pope, undisturbed
):
    """Each question is asked once, all those about a picture by one job; the job that joins them
    loads no model, and tells of a question that no part has answered.
    """
    questions = len(undisturbed.job.answers_in(undisturbed.folder))
    parts = [job_of_part(pope, part) for part in ("1-of-2", "2-of-2")]
    answer_part.main(parts[0])
    pope.input.parts = [part.output[0] for part in parts]
    with pytest.raises(UserError, match="answered by none of the jobs that have a part"):
        answer_benchmark.main(pope)
    answer_part.main(parts[1])
    computed = [part.record()["computed"] for part in parts]
    assert sum(computed) == questions
    assert all(computed)
    assert [json.loads(Path(part.output[0]).read_text())["questions"] for part in parts] == computed
    answer_benchmark.main(pope)
    assert pope.published() == undisturbed.published
    record = pope.record()
    assert (record["computed"], record["reused"]) == (0, questions)
    assert not record["taken_over"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [{}, {"backend": "vllm", "questions_per_batch": 5, "max_model_len": 1024}],
    ids=["transformers", "vllm"],
)
def test_asked_together_benchmarks_have_the_files_of_jobs_of_their_own_and_the_model_is_loaded_once(
    pope, undisturbed, demo_models, demo_benchmarks, engine
):
    """One lmms-eval asks about both, of one its first questions only, and vLLM's engine says what
    transformers did; what each job did is on its own record.
    """
    data, model = demo_benchmarks / "scienceqa.parquet", demo_models / "llava-1.5"
    scienceqa = Job(benchmark="scienceqa", settings=settings_of("scienceqa", model, data, limit=3))
    jobs, names = (pope, scienceqa), ("pope", "scienceqa")
    answer_benchmark.main(scienceqa)
    alone = [undisturbed.published, scienceqa.published()]
    shutil.rmtree("results")
    for job in jobs:
        job.params["settings"] |= engine
    whole = Job("answer_part")
    together = [
        {
            "wildcards": {**vars_of(job.wildcards), "part": WHOLE},
            "params": {"settings": dict(job.params["settings"])},
        }
        for job in jobs
    ]
    whole.params = Parameters(common=pope.params.common, together=together)
    whole.output = [f"results/run/evaluation/base/{name}.json" for name in names]
    answer_part.main(whole)
    log = Path(whole.log.harness).read_text()
    questions = len(pope_questions(undisturbed))
    # One model was asked all of them, one after the other.
    assert f" {questions + 3}/{questions + 3} " in log
    records = [
        json.loads(Path(f"results/run/work/answer_part/base/{name}/{WHOLE}.json").read_text())
        for name in names
    ]
    assert [record["computed"] for record in records] == [questions, 3]
    assert [record["load_seconds"] > 0 for record in records] == [True, False]
    for record in records:
        spent = record["load_seconds"] + record["compute_seconds"]
        assert record["wall_seconds"] == pytest.approx(spent, abs=0.01)
    for job, published in zip(jobs, alone, strict=True):
        job.input.parts = whole.output
        answer_benchmark.main(job)
        # Where vLLM answers, the results tell its version, too.
        files = slice(1 if engine else None)
        assert job.published()[files] == published[files]
        assert (job.record()["computed"], job.record()["taken_over"]) == (0, {})


def pope_questions(undisturbed):
    return undisturbed.job.answers_in(undisturbed.folder)


def test_what_fails_of_several_benchmarks_is_told_with_its_own_file_and_with_the_others(
    tmp_path, demo_benchmarks
):
    files = {name: demo_benchmarks / f"{name}.parquet" for name in ("pope", "mme")}
    tasks = [
        TaskSettings(task=name, metrics={"score": "m"}, data={"test": str(file)})
        for name, file in files.items()
    ]
    told = _refusal(f"lmms-eval's task 'mme': row 3{ITS_DATA} (from 0)", tasks)
    assert told == f"lmms-eval's task 'mme': row 3 of {files['mme']} (from 0)"
    log = tmp_path / "log"
    log.write_text("CUDA out of memory\n")
    failure = Harness(tasks[0], "base/pope", log, beside=("base/mme",)).failure("it ended")
    assert "pope for base/pope (beside base/mme): it ended" in str(failure)


def test_answers_are_looked_for_where_a_benchmark_was_divided_otherwise_and_not_in_other_parts(
    tmp_path, monkeypatch
):
    """Which would have none."""
    monkeypatch.chdir(tmp_path)
    base = {"base_model": {"model": "owner/name", "revision": "1" * 40}, "system_prompt": None}
    whole = Job(settings={"task": "pope", "metrics": {"f1": "m"}, **base})
    work = Path("results/run/work")
    journals = [
        *(f"answer_benchmark/{name}" for name in ("base/pope", "base/mme", "dpo/pope", "dpo/mme")),
        *(f"answer_part/base/pope/{part}" for part in ("1-of-2", "2-of-2", "2-of-3")),
        *("answer_part/dpo/pope/2-of-2", "answer_part/base/mme/1-of-2"),
    ]
    for name in journals:
        write_text(work / f"{name}.journal.jsonl", "")

    def found(job):
        of_rule = lib.jobs.job.Job(job, AnswerBenchmarkJob, 1)
        own = journal_of(of_rule)
        paths = [path.relative_to(work) for _, path in journals_with_answers(of_rule, own)]
        assert len(set(paths)) == len(paths)
        return {path.as_posix().removesuffix(".journal.jsonl") for path in paths}

    part = found(job_of_part(whole, "1-of-2"))
    assert {"answer_benchmark/base/pope", "answer_part/base/pope/2-of-3"} <= part
    assert not {"answer_part/base/pope/1-of-2", "answer_part/base/pope/2-of-2"} & part
    joined = found(whole)
    assert {*journals[2:3], *journals[4:8]} <= joined
    assert "answer_benchmark/base/pope" not in joined


@pytest.mark.slow
def test_vllm_gives_the_same_answers_and_metrics_under_keys_of_its_own(pope, undisturbed):
    """Several at once, of the same questions; nothing of the other backend's is taken for its own,
    and what it has answered is not asked again.
    """
    pope.params.settings |= {"backend": "vllm", "questions_per_batch": 5, "max_model_len": 1024}
    answer_benchmark.main(pope)
    assert pope.published()[0] == undisturbed.published[0]
    results, theirs = pope.results(), json.loads(undisturbed.published[1])
    assert results["metrics"] == theirs["metrics"]
    more = results["environment"].keys() - theirs["environment"].keys()
    assert more
    assert all(name.startswith("vllm") for name in more)
    record = pope.record()
    assert record["computed"] == record["items"]
    assert record["notes"] == [
        "up to 5 questions at once: low bits may depend on what is answered then"
    ]
    [kept] = Path("results/run/work/answer_benchmark/base/pope").iterdir()
    assert kept.name not in {path.name for path in (undisturbed.folder / "results").rglob("*")}
    shutil.rmtree(kept)
    answer_benchmark.main(pope)
    assert pope.record()["computed"] == 0
    assert pope.published()[0] == undisturbed.published[0]


def test_how_vllm_answers_is_said_where_it_does_and_else_no_key_is_another():
    how = {"backend", "max_model_len", "prefix_caching"}
    asked = {"questions_per_batch": 8, "prefix_caching": True, "max_model_len": 2048}
    for backend in ("transformers", "vllm"):
        config = load_config({"evaluation": {"task_backend": backend, **asked}}, [])
        job = answer_job(Plan(config), "pope")
        assert job.backend == backend
        if backend == "vllm":
            assert {name: getattr(job, name) for name in asked} == asked
        assert deciding(job).keys() & how == (how if backend == "vllm" else set())


def test_of_vqav2_the_validation_split_alone_is_read(tmp_path):
    """The others are files that nothing could read."""
    from datasets import load_dataset

    data = tmp_path / "VQAv2/data"
    data.mkdir(parents=True)
    splits = ("train", "validation", "test")
    card = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in splits)
    (tmp_path / "VQAv2/README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{card}---\n"
    )
    for split in splits:
        (data / f"{split}-00000-of-00001.parquet").write_bytes(b"nothing")
    pq.write_table(pa.table({"question": ["What?"]}), data / "validation-00000-of-00001.parquet")
    asked = TaskSettings(task="vqav2_val", metrics={"score": "exact_match"})
    task = local_task(find_task("vqav2_val"), asked)
    read = load_dataset(
        str(tmp_path / "VQAv2"), cache_dir=str(tmp_path / "cache"), **task["dataset_kwargs"]
    )
    assert {split: rows["question"][:] for split, rows in read.items()} == {"validation": ["What?"]}


def test_published_answers_and_results_hold_what_a_reader_needs_and_nothing_of_this_machine_or_day(
    undisturbed, monkeypatch
):
    monkeypatch.chdir(undisturbed.folder)
    answers, results = undisturbed.job.answers(), undisturbed.job.results()
    assert [answer["id"] for answer in answers] == list(range(len(answers)))
    assert {"question", "target", "response", "tokens", "question_id"} <= answers[0].keys()
    assert results["questions"] == results["questions_in_data"] == len(answers)
    assert results.keys() == {
        "model",
        "benchmark",
        "metrics",
        "questions",
        "questions_in_data",
        "model_identity",
        "task",
        "limit",
        "data",
        "lmms_eval",
        "environment",
        "judge",
    }
    assert results["data"] == {
        "test": digest_of_file(Path(undisturbed.job.params.settings["data"]["test"]))
    }
    assert results["environment"]["lmms_eval"] == results["lmms_eval"]
    assert {"python", "torch", "transformers"} <= results["environment"].keys()
    published = b"".join(undisturbed.published)
    assert str(undisturbed.folder).encode() not in published
    assert time.strftime("%Y%m%d").encode() not in published


def test_answers_say_which_picture_they_are_about_and_it_is_found_in_the_data(undisturbed):
    file = Path(undisturbed.job.params.settings["data"]["test"])
    with contextlib.chdir(undisturbed.folder):
        answers = undisturbed.job.answers()
    wanted = {answer["id"]: answer["picture"] for answer in answers}
    assert 1 < len(set(wanted.values())) < len(wanted)  # several questions of a picture
    found = task_pictures([[file]], wanted)
    stored = dict(images_in_parquet(file))
    assert {row: picture.content() for row, picture in found.items()} == {
        row: stored[row][0] for row in wanted
    }
    others = {row: digest_of_pictures([b"another"]) for row in wanted}
    assert task_pictures([[file], [file.with_name("not there")]], others) == {}


def test_the_record_counts_answers(undisturbed):
    record = undisturbed.record
    assert record["items"] == record["computed"] > 0 == record["reused"]
    assert record["load_seconds"] > 0
    assert record["compute_seconds"] > 0


def test_the_hub_token_is_in_no_file(undisturbed):
    """lmms-eval itself prints HF_TOKEN into its log and writes it into its results."""
    files = [path for path in (undisturbed.folder / "results").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_warm_job_starts_no_harness_and_imports_no_torch(undisturbed, monkeypatch):
    monkeypatch.chdir(undisturbed.folder)
    monkeypatch.setattr(answer_benchmark, "run_lmms_eval", None)
    answer_benchmark.main(undisturbed.job)
    assert undisturbed.job.published() == undisturbed.published
    record = undisturbed.job.record()
    assert (record["computed"], record["reused"], record["load_seconds"]) == (
        0,
        undisturbed.record["items"],
        0,
    )
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import answer_benchmark; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, SCRIPTS], check=True, capture_output=True, text=True
    )
    assert not {"torch", "lmms_eval", "transformers"} & set(done.stdout.split())


def spoil_answer(file):
    file.write_bytes(file.read_bytes().replace(b'"response":"', b'"response":"x', 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "spoil"),
    [("results.json", Path.unlink), ("answers.jsonl", spoil_answer)],
)
def test_kept_answers_that_lack_a_file_or_were_edited_are_taken_from_the_journal(
    undisturbed, tmp_path, monkeypatch, file, spoil
):
    folder, done = undisturbed.folder, undisturbed.job
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    before = done.published()
    (kept,) = Path("results/run/work/answer_benchmark/base/pope").glob(f"*/{file}")
    spoil(kept)
    answer_benchmark.main(done)
    assert done.published() == before
    assert done.record()["computed"] == 0
    assert any("is damaged" in note for note in done.record()["notes"])


@pytest.fixture
def elsewhere(undisturbed, tmp_path, monkeypatch):
    """In a folder with another run, of before, that is to be reused; and what that has finished."""
    shutil.copytree(undisturbed.folder / "results/run", tmp_path / "results/before")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(lib.jobs.job.REUSE_FROM, "results/before")
    (kept,) = Path("results/before/work/answer_benchmark/base/pope").iterdir()
    return kept


@pytest.mark.parametrize(
    "kept", ["the whole benchmark", pytest.param("answers", marks=pytest.mark.slow)]
)
def test_answers_of_another_run_and_under_another_name_are_not_asked_for_again(
    undisturbed, elsewhere, kept
):
    if kept == "answers":
        shutil.rmtree(elsewhere)
    job = Job(settings=undisturbed.job.params.settings, model="the-base-again")
    job.input.merged = []
    answer_benchmark.main(job)
    count = undisturbed.record["items"]
    assert job.published()[0] == undisturbed.published[0]
    assert (job.record()["computed"], job.record()["reused"]) == (0, count)
    assert job.record()["taken_over"] == {"results/before": count}
    shutil.rmtree("results/before")
    answer_benchmark.main(job)
    assert job.record()["computed"] == 0


@pytest.mark.parametrize("change", ["limit", "task", "prompt", "dtype", "data", "model"])
def test_whatever_determines_the_answers_makes_them_anew(
    undisturbed, change, tmp_path, monkeypatch
):
    """Each change is a new key: the harness is asked for."""
    monkeypatch.chdir(undisturbed.folder)
    settings = dict(undisturbed.job.params.settings)
    other = tmp_path / "other"
    if change == "model":
        shutil.copytree(settings["base_model"]["model"], other)
        (other / "config.json").write_text((other / "config.json").read_text() + " ")
        settings["base_model"] = settings["base_model"] | {"model": str(other)}
    elif change == "data":
        other.write_bytes(Path(settings["data"]["test"]).read_bytes() + b"PAR1")
        settings["data"] = {"test": str(other)}
    else:
        changes: dict[str, dict[str, Any]] = {
            "limit": {"limit": 3},
            "task": {"task": "mme"},
            "prompt": {"prompt": {"pre_prompt": "x"}},
            "dtype": {"base_model": settings["base_model"] | {"dtype": "bfloat16"}},
        }
        settings |= changes[change]

    class AskedError(Exception):
        pass

    def run(*_):
        raise AskedError

    monkeypatch.setattr(answer_benchmark, "run_lmms_eval", run)
    with pytest.raises(AskedError):
        answer_benchmark.main(Job(settings=settings))


@pytest.mark.slow
def test_a_killed_job_takes_lmms_eval_with_it_and_goes_on_where_it_was(pope, undisturbed):
    """SIGKILL of the job alone, as soon as an answer is journalled; the rest is asked by the next
    job, and the bytes are the same.
    """
    program = (
        "import json, sys, answer_benchmark; from test_answer_benchmark import Job;"
        " answer_benchmark.main(Job(settings=json.loads(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, json.dumps(pope.params.settings)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHONPATH})
    journal = Path("results/run/work/answer_benchmark/base/pope.journal.jsonl")
    while not (journal.is_file() and '"status"' in journal.read_text()):
        assert process.poll() is None, "ended before an answer was journalled"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for_lmms_eval_to_die(journal)
    assert not list(
        Path("results/run/work/answer_benchmark/base/pope.run").glob("out/*/*_results.json")
    ), "lmms-eval went on alone"
    with open(journal, "a") as stream:
        stream.write('\n{"key": "torn')
    kept = len(re.findall(r'^\{.*"status": ?"ok"\}$', journal.read_text(), re.MULTILINE))

    answer_benchmark.main(pope)
    record = pope.record()
    assert record["reused"] == kept >= 1
    assert record["computed"] == record["items"] - kept
    assert "damaged line" in record["notes"][0]
    assert pope.published() == undisturbed.published


@pytest.mark.slow
def test_only_the_questions_that_changed_are_asked_again_wherever_they_stand(
    undisturbed, tmp_path, monkeypatch
):
    """The key of an answer holds the question's content, not its row."""
    shutil.copytree(undisturbed.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    settings = dict(undisturbed.job.params.settings)
    rows = pq.read_table(settings["data"]["test"]).to_pylist()
    rows = [rows[0] | {"question": "Is there a new question?"}, *rows[:0:-1]]
    schema = pq.read_schema(settings["data"]["test"])
    pq.write_table(pa.Table.from_pylist(rows, schema), "other.parquet")
    settings["data"] = {"test": "other.parquet"}
    job, before = Job(settings=settings), {}
    for answer in undisturbed.job.answers():
        before[answer["question"], str(answer["question_id"])] = answer["response"]
    answer_benchmark.main(job)
    record = job.record()
    assert (record["computed"], record["reused"]) == (1, len(rows) - 1)
    assert not record["notes"]
    kept = [
        answer["response"] == before[answer["question"], str(answer["question_id"])]
        for answer in job.answers()[1:]
    ]
    assert kept == [True] * (len(rows) - 1)


@pytest.mark.slow
def test_answers_of_several_versions_of_a_library_say_so(undisturbed, tmp_path, monkeypatch):
    """As if those that are reused had been given under another."""
    shutil.copytree(undisturbed.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    [kept] = Path("results/run/work/answer_benchmark/base/pope").iterdir()
    shutil.rmtree(kept)
    journal = Path("results/run/work/answer_benchmark/base/pope.journal.jsonl")
    now = importlib.metadata.version("torch")
    assert journal.read_text().count(f'"torch":"{now}"') == 1
    text = re.sub(r'"sum":"\w{16}",', "", journal.read_text())  # as before there were checksums
    journal.write_text(text.replace(f'"torch":"{now}"', '"torch":"1.0"'))
    for _ in range(2):  # computed, and as it is kept
        answer_benchmark.main(undisturbed.job)
        assert undisturbed.job.results()["environment"]["torch"] == f"1.0, {now}"
        [note] = undisturbed.job.record()["notes"]
        assert note == f"its results are of several versions of libraries: torch 1.0 and {now}"
        assert undisturbed.job.record()["computed"] == 0


@pytest.mark.slow
def test_mme_of_a_merged_model_up_to_a_limit(demo_models, demo_benchmarks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_models / "llava-1.5", "merged")
    changes = {"limit": 6, "metrics": {"perception": "mme_perception_score"}}
    job = Job(
        model="dpo",
        benchmark="mme",
        settings=settings_of("mme", "no/such-model", demo_benchmarks / "mme.parquet", **changes),
    )
    job.input.merged = "merged"
    answer_benchmark.main(job)
    assert "mme_perception_score" in job.results()["metrics"]
    assert (job.results()["questions"], job.results()["limit"]) == (6, 6)
    assert job.results()["questions_in_data"] > 6
    assert all(answer["category"] for answer in job.answers())
    assert job.record()["models"].keys() == {"dpo"}


def test_an_image_over_the_configured_limit_is_told_before_lmms_eval_is_started(
    demo_models, demo_benchmarks, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pope = demo_benchmarks / "pope.parquet"
    settings = settings_of("pope", demo_models / "llava-1.5", pope, max_image_megapixels=0.001)
    with pytest.raises(UserError, match=r"pope\.parquet, row 0: an image of .*megapixels"):
        answer_benchmark.main(Job(settings=settings))
    assert not list(tmp_path.rglob("*.lmms-eval.log"))


def cut(weights):
    weights.write_bytes(weights.read_bytes()[:-1000])


def take_the_head_out(weights):
    state = load_file(weights)
    del state["language_model.lm_head.weight"]
    save_file(state, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut, "SafetensorError"), (take_the_head_out, r"it lacks lm_head\.weight")],
)
def test_a_model_that_is_not_whole_is_one_message_and_nothing_is_published(pope, damage, message):
    """lmms-eval would answer with random weights."""
    shutil.copytree(pope.params.settings["base_model"]["model"], "model")
    damage(Path("model/model.safetensors"))
    settings = pope.params.settings
    settings["base_model"] = settings["base_model"] | {"model": "model"}
    with pytest.raises(UserError, match=rf"^{Path.cwd()}/model: the model is not whole.*{message}"):
        answer_benchmark.main(pope)
    assert not Path("results/run/evaluation").exists()


# What is missing of what lmms-eval leaves. It ends with 0 all the same.


@pytest.fixture
def left(tmp_path, monkeypatch):
    """A job, and the output folder of a run of two questions that is complete."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "out" / "model"
    folder.mkdir(parents=True)
    (tmp_path / "log").write_text("\x1b[32mfirst line\x1b[0m\nCUDA out of memory\n")
    task = TaskSettings(task="pope", metrics={"f1": "pope_f1_score"})
    values = {
        "results": {
            "pope": {"alias": "pope", "pope_f1_score,none": 0.5, "pope_f1_score_stderr,none": "N/A"}
        }
    }
    values["n-samples"] = {"pope": {"original": 2, "effective": 2}}
    samples = [
        {
            "doc_id": number,
            "target": "yes",
            "filtered_resps": "Yes",
            "input": "?",
            "token_counts": [{"output_tokens": 2}],
        }
        for number in (1, 0)
    ]

    def write(values, samples):
        (folder / "20260101_000000_results.json").write_text(json.dumps(values))
        (folder / "20260101_000000_samples_pope.jsonl").write_text(
            "".join(json.dumps(sample) + "\n" for sample in samples)
        )

    write(values, samples)
    return SimpleNamespace(
        harness=Harness(task, "base/pope", tmp_path / "log"),
        output=tmp_path / "out",
        values=values,
        samples=samples,
        write=write,
    )


def test_a_complete_run_is_read_whatever_the_task_itself_wrote_beside_it(left):
    (left.output / "submissions").mkdir()
    (left.output / "submissions" / "mmbench_en_dev_static_results.json").write_text("{}")
    results = left.harness.read_results(left.output)
    assert results == {"metrics": {"pope_f1_score": 0.5}, "questions": 2, "questions_in_data": 2}
    assert [answer["id"] for answer in left.harness.read_answers(left.output, 2)] == [0, 1]


def test_a_missing_results_file_is_a_failure_that_shows_the_log(left):
    shutil.rmtree(left.output)
    with pytest.raises(
        UserError,
        match=(
            r"it left no results file\. The end of its log, .*:\n  \| first line\n  \| CUDA out of"
            r" memory"
        ),
    ):
        left.harness.read_results(left.output)


@pytest.mark.parametrize("value", [None, float("nan"), "N/A"])
def test_a_missing_metric_is_a_failure(left, value):
    left.values["results"]["pope"] = {"pope_accuracy,none": 0.5} | (
        {} if value is None else {"pope_f1_score,none": value}
    )
    left.write(left.values, left.samples)
    with pytest.raises(UserError, match="it gave no pope_f1_score; it gave pope_accuracy"):
        left.harness.read_results(left.output)


def test_missing_questions_are_a_failure(left):
    left.values["n-samples"]["pope"]["effective"] = 1
    left.write(left.values, left.samples)
    with pytest.raises(UserError, match="it took 1 of 2 questions"):
        left.harness.read_results(left.output)


def test_missing_answers_are_a_failure(left):
    left.write(left.values, left.samples[:1])
    with pytest.raises(UserError, match="holds 1 of 2 questions"):
        left.harness.read_answers(left.output, 2)


def test_the_raw_response_is_kept_where_a_filter_changed_it(left):
    left.samples[0]["resps"] = [["<think>hm</think>Yes"]]
    left.write(left.values, left.samples)
    assert left.harness.read_answers(left.output, 2)[1]["response"] == "<think>hm</think>Yes"


def test_the_number_that_a_task_gives_an_answer_as_its_metric_is_kept(left):
    left.samples[0]["pope_f1_score"] = 0.3  # of question 1
    left.samples[1]["pope_f1_score"] = {"question_id": 7, "score": 1.0}
    left.write(left.values, left.samples)
    answers = left.harness.read_answers(left.output, 2)
    assert [answer["score"] for answer in answers] == [1.0, 0.3]


def test_an_answer_that_fails_stops_the_run_where_lmms_eval_would_score_an_empty_one(tmp_path):
    from lmms_eval.api.instance import GenerationResult, TokenCounts

    asked = []

    def ask(model, requests):
        asked.append(requests[0].doc_id)
        failed = requests[0].doc_id == 2
        return [
            GenerationResult(
                text="" if failed else "Yes",
                token_counts=None if failed else TokenCounts(output_tokens=2),
            )
        ]

    model, requests = asked_about([picture("red"), picture("green"), picture("blue")])
    keys = AnswerKeys("key", "earlier")
    for _ in range(2):
        with (
            Journal(tmp_path / "journal.jsonl", "answer_benchmark") as journal,
            pytest.raises(RuntimeError, match="question 2 has no answer"),
        ):
            journalled_by(ask, journal, keys)(model, requests)
    assert asked == [0, 1, 2, 2]


def journalled_by(ask, journal, keys, question_of=question_of, order=None):
    """`generate_until` with the answers of `ask`, one at a time."""
    answering, bar = partial(one_at_a_time, ask), lambda items, **_: items
    return journalled(answering, {"pope": (journal, keys)}, question_of, bar, {}, (), order)


# What an answer is kept under


def picture(colour, mode="RGB"):
    return Image.new("RGB", (4, 4), colour).convert(mode)


def asked_about(pictures, text="What colour?", **generation):
    """lmms-eval's model and its requests of one question about each picture."""

    def messages_of(doc):
        content = [{"type": "image", "url": doc}, {"type": "text", "text": text}]
        return [{"role": "user", "content": content}]

    model = SimpleNamespace(task_dict={"pope": {"test": pictures}})
    requests = [
        SimpleNamespace(
            doc_id=number,
            task_name="pope",
            args=("", messages_of, {"max_new_tokens": 4, **generation}, number, "pope", "test"),
        )
        for number in range(len(pictures))
    ]
    return model, requests


def contents(*asked, **generation):
    model, requests = asked_about(*asked, **generation)
    return [json.dumps(question_of(model, request)) for request in requests]


def test_a_question_is_its_text_its_pixels_and_its_settings_and_not_its_row():
    red, green = picture("red"), picture("green")
    assert contents([red, green]) == contents([green, red])[::-1]
    assert contents([red]) == contents([red.copy()])
    palettes = [Image.new("P", (4, 4)) for _ in range(2)]
    for image, colour in zip(palettes, ([255, 0, 0], [0, 255, 0]), strict=True):
        image.putpalette(colour)
    others = [
        *contents([red, green, picture("red", "RGBA"), *palettes]),
        *contents([red], "Which colour?"),
        *contents([red], max_new_tokens=5),
    ]
    assert len(set(others)) == len(others)


def test_questions_about_one_picture_are_asked_one_after_the_other_and_answered_in_their_place(
    tmp_path,
):
    """Whatever the order of the data; what it compares are pictures as they are stored."""
    from datasets import Dataset, Features, Value
    from datasets import Image as StoredImage
    from lmms_eval.api.instance import GenerationResult, TokenCounts

    colours = ["red", "blue", "red", "green", "blue"]
    rows = {
        "image": [{"bytes": colour.encode(), "path": None} for colour in colours],
        "question": [f"{number}?" for number in range(5)],
    }
    features = Features({"image": StoredImage(), "question": Value("string")})
    data = Dataset.from_dict(rows, features=features)
    model, requests = asked_about(data)
    asked = []

    def ask(model, requests):
        asked.append(requests[0].doc_id)
        text = f"answer {requests[0].doc_id}"
        return [GenerationResult(text=text, token_counts=TokenCounts(output_tokens=2))]

    def stored_question(model, request):
        return {"row": request.doc_id, "generation": {}}

    keys = AnswerKeys("key", "earlier")
    with Journal(tmp_path / "journal.jsonl", "answer_benchmark") as journal:
        generate = journalled_by(ask, journal, keys, stored_question, by_picture)
        answers = [answer.text for answer in generate(model, requests)]
    assert asked == [0, 2, 1, 4, 3]
    assert answers == [f"answer {number}" for number in range(5)]
    # Without a picture in its row, a question is one of its own.
    texts = Dataset.from_dict({"question": ["a", "b", "a"]})
    model, requests = asked_about(texts)
    assert [request.doc_id for request in by_picture(model, requests)] == [0, 2, 1]


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_answers_kept_under_the_number_of_their_question_are_taken_over_unless_they_were_drawn(
    tmp_path, temperature
):
    """Their key held the digest of all questions."""
    asked = []

    def ask(model, requests):
        from lmms_eval.api.instance import GenerationResult, TokenCounts

        asked.append(requests[0].doc_id)
        return [GenerationResult(text="new", token_counts=TokenCounts(output_tokens=2))]

    keys = AnswerKeys("key", "earlier")
    with Journal(tmp_path / "journal.jsonl", "answer_benchmark") as journal:
        result = {"response": "old", "tokens": 3}
        journal.add(keys.of_number("pope", 0), "0", seconds=2.0, result=result)
    for _ in range(2):
        model, requests = asked_about([picture("red"), picture("green")], temperature=temperature)
        with Journal(tmp_path / "journal.jsonl", "answer_benchmark") as journal:
            generate = journalled_by(ask, journal, keys)
            answers = [answer.text for answer in generate(model, requests)]
        assert answers == ["new" if temperature else "old", "new"]
    assert asked == ([0, 1] if temperature else [1])
    # Without what they were kept under, they are found by what was asked.
    with Journal(tmp_path / "journal.jsonl", "answer_benchmark") as journal:
        others = AnswerKeys("key", "of other data")
        generate = journalled_by(ask, journal, others)
        assert [answer.text for answer in generate(model, requests)] == answers
    assert len(asked) == (2 if temperature else 1)


def test_a_question_that_cannot_be_put_ends_the_run_with_its_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, requests = asked_about([picture("red")])

    def fail(model, request):
        raise AttributeError("'NoneType' object has no attribute 'convert'")

    with Journal(tmp_path / "journal.jsonl", "answer_benchmark") as journal:
        generate = journalled_by(lambda *_: [], journal, AnswerKeys("a", "b"), fail)
        with pytest.raises(SystemExit, match=r"row 0 of its data \(from 0\) cannot be asked"):
            generate(model, requests)
    assert "Is its picture there and whole?" in REFUSED.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (
            {"data": {"test": "x.parquet"}},
            "f86f2709e64e6737107ef7bf43a43d4bd5e443f3eacd99eefb8d6d30bfb18418",
        ),
        (
            {"data_revision": "2" * 40},
            "424399ab86feaf4ee82d551035f7f5c0b51994bb7349090e6889e8059a7472cb",
        ),
    ],
)
def test_the_key_of_all_answers_is_that_of_before_where_their_data_were_known(
    tmp_path, monkeypatch, changes, key
):
    """Finished benchmarks of commit 1d36407 are taken over."""
    monkeypatch.chdir(tmp_path)
    Path("x.parquet").write_bytes(b"PAR1    PAR1")
    base = {"model": "owner/name", "revision": "1" * 40}
    asked = {"task": "pope", "metrics": {"f1": "pope_f1_score"}, "system_prompt": None}
    snakemake = Job(settings=asked | {"base_model": base} | changes)
    job = lib.jobs.job.Job(snakemake, AnswerBenchmarkJob, answer_benchmark.VERSION)
    settings, data = answer_benchmark.pin_data(job.settings)
    assert answer_benchmark.key_of(job, settings, data, "folder-1", "0.7.3") == key


def test_a_hub_data_set_is_asked_at_the_commit_that_its_revision_is_when_the_job_begins(
    tmp_path, monkeypatch
):
    """And the answers are kept under that commit."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    reference = tmp_path / "datasets--lmms-lab-encoder--POPE/refs/main"
    reference.parent.mkdir(parents=True)
    base = {"model": "owner/name", "revision": "1" * 40}
    asked = {"task": "pope", "metrics": {"f1": "m"}, "system_prompt": None, "base_model": base}
    keys = []
    for commit in ("3" * 40, "4" * 40):
        reference.write_text(commit)
        job = lib.jobs.job.Job(Job(settings=asked), AnswerBenchmarkJob, 1)
        settings, data = answer_benchmark.pin_data(job.settings)
        assert data == {"lmms-lab-encoder/POPE": commit}
        task = local_task(find_task("pope"), settings)
        assert task["dataset_kwargs"] == {"revision": commit}
        keys.append(answer_benchmark.key_of(job, settings, data, "x", "0"))
        pinned = AnswerBenchmarkJob(**asked, data_revision=commit)
        assert answer_benchmark.pin_data(pinned) == (settings, data)
    assert len(set(keys)) == 2


def test_without_a_network_a_data_set_is_the_only_one_that_the_hub_cache_holds(
    tmp_path, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshots = tmp_path / "datasets--owner--name/snapshots"
    with pytest.raises(UserError, match="neither in the local hub cache nor reachable"):
        commit_of("owner/name", "main", "dataset")
    (snapshots / ("3" * 40)).mkdir(parents=True)
    assert commit_of("owner/name", "main", "dataset") == "3" * 40
    (snapshots / ("4" * 40)).mkdir()
    with pytest.raises(UserError, match="neither in the local hub cache nor reachable"):
        commit_of("owner/name", "main", "dataset")


# lmms-eval's own tasks


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_benchmarks_are_tasks_of_lmms_eval_with_these_metrics(name):
    task = read_task(find_task(DEFAULTS[name].task))
    assert task["output_type"] == "generate_until"
    assert set(DEFAULTS[name].metrics.values()) <= {
        metric["metric"] for metric in task["metric_list"]
    }
    assert set(DEFAULTS[name].prompt) <= set(task["lmms_eval_specific_kwargs"]["default"])


def test_an_unknown_task_is_told_with_its_nearest_names():
    with pytest.raises(
        UserError,
        match=r"evaluation\.benchmarks: lmms-eval has no task 'poppe'.*Did you mean 'pope'",
    ):
        find_task("poppe")


def test_local_data_replaces_the_hubs_and_nothing_else(tmp_path):
    path = find_task("textvqa_val")
    (tmp_path / "x.parquet").write_bytes(b"PAR1    PAR1")
    data = {"validation": str(tmp_path / "x.parquet")}
    settings = TaskSettings(task="textvqa_val", metrics={"m": "m"}, data=data, prompt={"ocr": True})
    task = local_task(path, settings)
    assert task["dataset_path"] == "parquet"
    assert task["dataset_kwargs"] == {"data_files": data}
    assert task["lmms_eval_specific_kwargs"]["default"]["ocr"] is True
    assert (
        task["lmms_eval_specific_kwargs"]["default"]["post_prompt"]
        == "\nAnswer the question using a single word or phrase."
    )
    assert task["lmms_eval_specific_kwargs"]["qwen_vl"]
    assert task.keys() == {
        "include",
        "task",
        "dataset_path",
        "dataset_name",
        "dataset_kwargs",
        "lmms_eval_specific_kwargs",
    }


@pytest.mark.parametrize(
    "text",
    [
        "Which is it? 🐈‍⬛\n",
        "\U0001f600\U00020000",
        "é \u2028 \u2029 \x85 \ufeff \xa0 \u200b",
        "@count",
        "!function x",
        "010",
        "1:30",
        "no",
        "\ttab \"quotes\" 'quotes' \\ud83d #: - {a: b}",
        " blanks \n\n  and lines  ",
    ],
)
@pytest.mark.parametrize("task", ["pope", "mmvet"])
def test_lmms_eval_reads_a_prompt_as_it_stands_in_the_configuration(tmp_path, task, text):
    settings = TaskSettings(task=task, metrics={"m": "m"}, prompt={"post_prompt": text})
    written = tmp_path / "task.yaml"
    write_text(written, task_text(local_task(find_task(task), settings), settings))
    # As lmms-eval's utils.load_yaml_config does.
    read = yaml.load(written.read_bytes(), Loader=AsLmmsEval)
    assert read["lmms_eval_specific_kwargs"]["default"]["post_prompt"] == text
    assert read["task"] == task
    if task == "mmvet":  # without a judge, our own functions stand for those that ask one
        assert read["process_results"] == "function unjudged.process_results"
        assert read["metric_list"][0]["aggregation"] == "function unjudged.count"


@pytest.mark.parametrize("task", ["mmvet", "mmvetv2", "egothink_counting"])
def test_a_task_that_would_draw_its_answers_asks_greedily_and_is_answered_anew(
    tmp_path, monkeypatch, task
):
    """lmms-eval draws whenever a temperature is over 0, whatever `do_sample` says."""
    monkeypatch.chdir(tmp_path)
    builtin = read_task(find_task(task))
    assert builtin["generation_kwargs"]["temperature"] > 0
    settings = TaskSettings(task=task, metrics={"m": "m"})
    written = yaml.load(
        task_text(local_task(find_task(task), settings), settings), Loader=AsLmmsEval
    )
    generation = builtin["generation_kwargs"] | {"temperature": 0, "do_sample": False}
    assert written["generation_kwargs"] == generation
    base = {"model": "owner/name", "revision": "1" * 40}
    asked = {"task": task, "metrics": {"m": "m"}, "system_prompt": None, "base_model": base}
    job = lib.jobs.job.Job(Job(settings=asked), AnswerBenchmarkJob, 1)
    key = answer_benchmark.key_of(job, job.settings, {}, "x", "0")
    monkeypatch.setattr(answer_benchmark, "greedy", lambda builtin: {})
    assert answer_benchmark.key_of(job, job.settings, {}, "x", "0") != key


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "mm_vet"])
def test_a_task_that_is_greedy_by_itself_keeps_its_answers(name):
    assert greedy(read_task(find_task(DEFAULTS[name].task))) == {}


def test_a_task_that_asks_each_question_several_times_draws_its_answers():
    assert greedy(read_task(find_task("aime24_figures_agg64"))) == {}


class AsLmmsEval(yaml.FullLoader):
    """lmms-eval's loader, which gives a function's name here."""


def function_name(loader: yaml.FullLoader, node: yaml.ScalarNode) -> str:
    return f"function {loader.construct_scalar(node)}"


AsLmmsEval.add_constructor("!function", function_name)


def test_the_hubs_data_need_no_token_and_can_be_pinned():
    settings = TaskSettings(task="pope", metrics={"m": "m"}, data_revision="abc")
    assert local_task(find_task("pope"), settings) == {
        "include": str(find_task("pope")),
        "task": "pope",
        "dataset_kwargs": {"revision": "abc"},
    }
