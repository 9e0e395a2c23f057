"""Answers through the real lmms-eval, on the tiny model and the small local benchmarks: what is
kept, reused, resumed, and refused.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import answer_benchmark
from conftest import Parameters, Wildcards
from lib.benchmarks.lmms_eval.answer_journal import wait_for_lmms_eval_to_die
from lib.benchmarks.lmms_eval.harness import Harness
from lib.benchmarks.lmms_eval.tasks import TaskSettings, find_task, local_task, read_task
from lib.config.evaluation import Evaluation, TaskBenchmark
from lib.errors import UserError
from lib.files import read_jsonl

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

    def results(self):
        return json.loads(Path(self.output.results).read_text())


def settings_of(benchmark, model, data, **changes):
    block = DEFAULTS[benchmark].model_dump(mode="json", exclude={"percent", "scorer"})
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
        "lmms_eval",
        "environment",
        "judge",
    }
    assert results["environment"]["lmms_eval"] == results["lmms_eval"]
    assert {"python", "torch", "transformers"} <= results["environment"].keys()
    published = b"".join(undisturbed.published)
    assert str(undisturbed.folder).encode() not in published
    assert time.strftime("%Y%m%d").encode() not in published


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
    monkeypatch.setattr(Harness, "run", None)
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

    monkeypatch.setattr(Harness, "run", run)
    with pytest.raises(AskedError):
        answer_benchmark.main(Job(settings=settings))


def test_a_killed_job_takes_lmms_eval_with_it_and_goes_on_where_it_was(pope, undisturbed):
    """SIGKILL of the job alone, as soon as an answer is journalled; the rest is asked by the next
    job, and the bytes are the same.
    """
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import json, answer_benchmark; from"
        " test_answer_benchmark import Job; "
    )
    program += "answer_benchmark.main(Job(settings=json.loads(sys.argv[3])))"
    command = [
        sys.executable,
        "-c",
        program,
        str(SCRIPTS),
        str(Path(__file__).parent),
        json.dumps(pope.params.settings),
    ]
    process = subprocess.Popen(command)
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


def test_a_damaged_model_is_told_with_the_end_of_the_log_and_nothing_is_published(pope, tmp_path):
    shutil.copytree(pope.params.settings["base_model"]["model"], "model")
    weights = Path("model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    settings = pope.params.settings
    settings["base_model"] = settings["base_model"] | {"model": "model"}
    with pytest.raises(
        UserError,
        match=(
            r"lmms-eval, pope for base/pope: it left no results file\. The end of its log,"
            r" results/run/.*"
        ),
    ) as error:
        answer_benchmark.main(pope)
    assert "safetensors" in str(error.value).casefold()
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


def test_an_answer_that_fails_stops_the_run_where_lmms_eval_would_score_an_empty_one(tmp_path):
    from lmms_eval.api.instance import GenerationResult, TokenCounts

    from lib.benchmarks.lmms_eval.main import journalled
    from lib.jobs.journal import Journal

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

    requests = [SimpleNamespace(doc_id=number, task_name="pope") for number in range(4)]
    for _ in range(2):
        with (
            Journal(tmp_path / "journal.jsonl", "answer_benchmark") as journal,
            pytest.raises(RuntimeError, match="question 2 has no answer"),
        ):
            journalled(ask, journal, "key", lambda items, **_: items)(None, requests)
    assert asked == [0, 1, 2, 2]


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


def test_the_hubs_data_need_no_token_and_can_be_pinned():
    settings = TaskSettings(task="pope", metrics={"m": "m"}, data_revision="abc")
    assert local_task(find_task("pope"), settings) == {
        "include": str(find_task("pope")),
        "task": "pope",
        "dataset_kwargs": {"revision": "abc"},
    }
