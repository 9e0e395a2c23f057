"""The seven tasks of the paper's tables in the real lmms-eval, in one process: local data,
LLaVA-1.5's forms, a real judge's server.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import answer_benchmark
import score_benchmark
from chat_server import ChatServer
from lib.benchmarks.lmms_eval import harness
from lib.benchmarks.lmms_eval.answer_journal import AnswerKeys, Kept
from lib.benchmarks.lmms_eval.engine import Engine
from lib.benchmarks.lmms_eval.harness import Harness
from lib.benchmarks.lmms_eval.tasks import UNJUDGED, TaskSettings, find_task, local_task, task_text
from lib.benchmarks.registry import load_benchmark
from lib.config.evaluation import SYSTEM_PROMPT
from lib.data.evaluation_files import TaskAnswer, TaskResults
from lib.errors import UserError
from lib.files import read_jsonl, write_json, write_jsonl
from test_answer_benchmark import DEFAULTS, Job
from tiny.benchmarks.registry import BENCHMARKS

KEY = "sk-the-key-of-the-judge"
SPLITS = {"vqav2": "validation", "textvqa": "validation", "mmbench": "dev"}


def settings_of(name, benchmarks, judge):
    """What is asked of a task of the paper's tables, with local data and the judge of MM-Vet."""
    asked = set(TaskSettings.model_fields) - {"data_revision"}  # of the hub's data
    values = DEFAULTS[name].model_dump(mode="json", include=asked)
    data = {SPLITS.get(name, "test"): str(benchmarks / f"{name}.parquet")}
    return TaskSettings.model_validate(
        values | {"data": data, "judge": judge if name == "mm_vet" else None}
    )


def but(settings, **changes):
    """The same settings but for some."""
    return settings.model_copy(update=changes)


@pytest.fixture(scope="module")
def run(demo_models, demo_benchmarks, tmp_path_factory):
    """One process of lmms-eval on all tasks, MM-Vet with and without a judge."""
    folder = tmp_path_factory.mktemp("all")
    judge = ChatServer(
        lambda body: "0.7", model="judge", version="judge-2", api_key_variable="TEST_JUDGE_KEY"
    )
    settings = {name: settings_of(name, demo_benchmarks, judge.settings()) for name in DEFAULTS}
    settings["mm_vet_unjudged"] = but(settings["mm_vet"], judge=None)
    tasks = folder / "task"
    tasks.mkdir()
    (tasks / UNJUDGED.name).write_bytes(UNJUDGED.read_bytes())
    for name, values in settings.items():
        task = local_task(find_task(values.task), values)
        task["task"] += "_unjudged" if name == "mm_vet_unjudged" else ""
        (tasks / f"{name}.yaml").write_text(task_text(task, values))
    names = [values.task for values in list(settings.values())[:-1]] + ["mmvet_unjudged"]
    command = [
        sys.executable,
        "-P",
        harness.MAIN,
        kept_in(folder, names),
        SYSTEM_PROMPT,
        "--model",
        "llava_hf",
        "--model_args",
        f"pretrained={demo_models / 'llava-1.5'},dtype=float32,device_map=cpu",
        "--tasks",
        ",".join(names),
        "--include_path",
        tasks,
        "--batch_size",
        "1",
        "--device",
        "cpu",
        "--output_path",
        folder / "out",
        "--log_samples",
        "--verbosity",
        "DEBUG",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_JUDGE_KEY", KEY)
        environment = harness.environment(folder, [settings["mm_vet"]], 1)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    judge.close()
    (folder / "log").write_text(done.stdout + done.stderr)
    return SimpleNamespace(
        folder=folder, settings=settings, log=folder / "log", command=command, judge=judge
    )


def kept_in(folder, tasks):
    """Where the answers to tasks are kept, as the rules tell it."""
    keys = AnswerKeys("key", "key of before")
    files = {name: Kept(folder / f"{name}.journal.jsonl", keys) for name in tasks}
    return json.dumps({name: kept.told() for name, kept in files.items()})


#: lmms-eval as the rules run it, with what each model's class is given written down: the ids and a
#: digest of the pixels of every question, in their order.
RECORDED = """
import hashlib, json, runpy, sys

main, file, *arguments = sys.argv[1:]
sys.path.insert(0, {scripts!r})


def put(ids, pixels):
    ids = [int(each) for each in ids]
    digest = hashlib.sha256(pixels.float().contiguous().numpy().tobytes()).hexdigest()
    with open(file, "a") as stream:
        row = dict(ids=ids, shape=list(pixels.shape), pixels=digest)
        stream.write(json.dumps(row) + chr(10))


def record_transformers():
    from transformers import LlavaForConditionalGeneration as Llava

    generate = Llava.generate

    def recorded(self, **inputs):
        put(inputs["input_ids"][0], inputs["pixel_values"][0])
        return generate(self, **inputs)

    Llava.generate = recorded


def record_vllm():
    from lib.engine import EngineStream

    ask = EngineStream._ask

    def recorded(self, item, prompt, parameters):
        [image] = prompt["mm_kwargs"]["image"]
        put(prompt["prompt_token_ids"], image["pixel_values"].data)
        return ask(self, item, prompt, parameters)

    EngineStream._ask = recorded


{record}()
sys.argv = [main, *arguments]
runpy.run_path(main, run_name="__main__")
"""


def recorded(run, folder, record, engine=None):
    """All tasks again, by a class of models that is looked at: what was put, and what it said."""
    folder.mkdir()
    code = RECORDED.format(scripts=str(harness.MAIN.parents[3]), record=record)
    python, flag, main, kept, *arguments = map(str, run.command)
    elsewhere = kept_in(folder, list(json.loads(kept)))
    command = [python, flag, "-c", code, main, folder / "put", elsewhere, *arguments]
    environment = harness.environment(folder, [run.settings["mm_vet_unjudged"]], 1, engine)
    done = subprocess.run(
        [str(folder / "out") if word == str(run.folder / "out") else word for word in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (folder / "put").is_file(), done.stderr[-3000:]
    journals = sorted(folder.glob("*.journal.jsonl"))
    entries = [json.loads(line) for file in journals for line in file.read_text().splitlines()]
    answers = {entry["key"]: entry["result"] for entry in entries if "key" in entry}
    return read_jsonl(folder / "put"), answers


@pytest.mark.slow
def test_vllm_is_given_the_ids_and_pixels_that_lmms_eval_s_own_class_is_given_and_says_the_same(
    run, tmp_path
):
    """Of each question of each task, whose greedy answers are then the same, whatever shares the
    engine.
    """
    put, answers = recorded(run, tmp_path / "transformers", "record_transformers")
    engine = Engine("float32", "cpu", at_once=5, max_model_len=2048)
    put_to_engine, from_engine = recorded(run, tmp_path / "vllm", "record_vllm", engine)
    assert len(put) >= sum(len(BENCHMARKS[name][0]()) for name in DEFAULTS)
    assert put_to_engine == put
    assert from_engine == answers


def harness_of(run, name):
    task = run.settings[name]
    return Harness(task, f"base/{name}", run.log)


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_task_is_answered_and_gives_the_configured_scores(run, name):
    results = harness_of(run, name).read_results(run.folder / "out")
    make_rows, _ = BENCHMARKS[name]
    assert results["questions"] == results["questions_in_data"] == len(make_rows())
    assert set(DEFAULTS[name].metrics.values()) <= results["metrics"].keys()
    answers = harness_of(run, name).read_answers(run.folder / "out", results["questions"])
    assert all(isinstance(answer["response"], str) for answer in answers)
    found = score_benchmark.score(
        answers,
        results
        | {
            "model": "base",
            "benchmark": name,
            "model_identity": "x",
            "task": DEFAULTS[name].task,
            "limit": None,
            "lmms_eval": "0",
            "judge": {"model": "judge"},
        },
        DEFAULTS[name].metrics,
        DEFAULTS[name].percent,
    )
    assert found["scores"].keys() == DEFAULTS[name].metrics.keys()


#: Benchmark -> how its first question is put: LLaVA's evaluation scripts (scripts/v1_5/eval/*.sh;
#: docs/adding-a-benchmark.md).
FORMS = {
    "vqav2": "What color is the circle?\nAnswer the question using a single word or phrase.",
    "scienceqa": (
        "Which shape is red?\nA. circle\nB. square\nC. triangle\nAnswer with the option's letter"
        " from the given choices directly."
    ),
    "textvqa": (
        "What is the first number?\nReference OCR token: 3, +, 2\nAnswer the question using a"
        " single word or phrase."
    ),
    "mme": "Is there a triangle in this image?\nAnswer the question using a single word or phrase.",
    "mm_vet": "Which shapes are there?",
    "pope": (
        "Is there a red circle in the image?\nAnswer the question using a single word or phrase."
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_question_is_put_as_for_llava_s_published_score(run, name):
    prompts = run.log.read_text()
    assert f"\n\n{SYSTEM_PROMPT} USER: <image>\n{FORMS[name]} ASSISTANT:\n" in prompts


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_each_answer_has_the_number_that_its_task_gives_it(run, name):
    harness = harness_of(run, name)
    questions = harness.read_results(run.folder / "out")["questions"]
    answers = harness.read_answers(run.folder / "out", questions)
    assert len(score_benchmark.scores_of_task(answers)) == questions


def test_the_judge_is_asked_with_its_key_which_is_in_no_file(run):
    asked = [
        request.text
        for request in run.judge.asked()
        if request.headers["authorization"] == f"Bearer {KEY}"
    ]
    assert len(asked) == len(run.judge.requests) == len(BENCHMARKS["mm_vet"][0]())
    assert "Which shapes are there? | circle <AND> square |" in " ".join(asked)
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in " ".join(map(str, run.command))
    results = harness_of(run, "mm_vet").read_results(run.folder / "out")
    assert results["metrics"]["gpt_eval_score"] == pytest.approx(70)
    answers = harness_of(run, "mm_vet").read_answers(run.folder / "out", 4)
    assert answer_benchmark.judge_of(run.settings["mm_vet"].judge, answers) == {
        "model": "judge",
        "version": "judge-2",
    }
    assert [answer["score"] for answer in answers] == [0.7] * 4


#: Of MM-Vet's four questions without a judge.
UNJUDGED_RESULTS: TaskResults = {
    "model": "base",
    "benchmark": "mm_vet",
    "model_identity": "x",
    "task": "mmvet",
    "limit": None,
    "data": {},
    "lmms_eval": "0",
    "questions": 4,
    "questions_in_data": 4,
    "metrics": {},
    "judge": None,
    "environment": {},
}


def test_without_a_judge_the_questions_are_answered_and_the_score_is_left_out_with_its_reason(run):
    """lmms-eval itself would score 0 for each call to a judge that fails."""
    samples = read_jsonl(next((run.folder / "out").glob("*/*_samples_mmvet_unjudged.jsonl")))
    judged = read_jsonl(next((run.folder / "out").glob("*/*_samples_mmvet.jsonl")))
    assert [sample["filtered_resps"] for sample in samples] == [
        sample["filtered_resps"] for sample in judged
    ]
    answers: list[TaskAnswer] = [
        {"id": number, "question": "?", "target": "5", "response": "5", "tokens": 1}
        for number in range(4)
    ]
    found = score_benchmark.score(answers, UNJUDGED_RESULTS, {"score": "gpt_eval_score"}, False)
    assert found["scores"] == {}
    assert found["missing"] == {"score": "no judge is configured (`judge` of this benchmark)"}


def test_without_a_judge_no_key_is_needed(run, tmp_path, monkeypatch):
    """A task's code is loaded whole, with the client of a judge that is never asked."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    environment = harness.environment(tmp_path, [run.settings["mm_vet_unjudged"]], 1)
    assert "OPENAI_API_KEY" not in environment
    command = [sys.executable, "-P", "-c", "import lmms_eval.tasks.mmvet.utils"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]


def test_a_judge_that_gave_no_verdict_stops_the_job_where_lmms_eval_scores_zero(run, tmp_path):
    folder = tmp_path / "out" / "model"
    folder.mkdir(parents=True)
    samples = read_jsonl(next((run.folder / "out").glob("*/*_samples_mmvet.jsonl")))
    samples[2]["gpt_eval_score"]["eval_model"] = ""
    (folder / "20260101_000000_samples_mmvet.jsonl").write_text(
        "".join(json.dumps(sample) + "\n" for sample in samples)
    )
    with pytest.raises(
        UserError,
        match=re.escape(
            "its judge gave no verdict on 1 questions (the first: 2), which it scores as 0"
        ),
    ):
        harness_of(run, "mm_vet").read_answers(tmp_path / "out", 4)


def test_mm_vet_s_kept_answers_are_graded_five_times_with_the_authors_prompt_and_reruns_ask_nothing(
    run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    task = but(run.settings["mm_vet_unjudged"], task="mmvet_unjudged")
    unjudged = Harness(task, "base/mm_vet", run.log)
    answers = unjudged.read_answers(run.folder / "out", 4)
    judge = ChatServer(
        lambda body: f"0.{4 + body['seed']}",
        model="judge",
        version="judge-2",
        api_key_variable=None,
    )
    settings = {
        "metrics": {"score": "gpt_eval_score"},
        "percent": False,
        "scorer": "mm_vet",
        "judge": judge.settings(),
    }
    job = Job("score_benchmark", benchmark="mm_vet", settings=settings)
    job.input.results = "results.json"
    job.output = SimpleNamespace(scores="scores.json", by_question="by_question.jsonl")
    write_jsonl(Path("results/run/answers.jsonl"), answers)
    job.input.answers = "results/run/answers.jsonl"
    write_json(Path("results.json"), UNJUDGED_RESULTS)
    score_benchmark.main(job)
    score_benchmark.main(job)
    scores = json.loads(Path("scores.json").read_text())
    assert scores["scores"] == {"reference_total": 60.0, "reference_std": 14.1}
    assert {row["score"] for row in read_jsonl(Path("by_question.jsonl"))} == {0.6}
    assert "reference_total" in scores["missing"]["score"]
    assert scores["also"]["doubts"]["totals_of_runs"] == [40.0, 50.0, 60.0, 70.0, 80.0]
    assert {name: values["questions"] for name, values in scores["also"]["per_type"].items()} == {
        "know": 1,
        "math": 1,
        "ocr": 1,
        "rec": 3,
        "spat": 1,
    }
    assert scores["also"]["computed_by"]["judge"] == {
        "model": "judge",
        "version": "judge (answered as judge-2)",
    }
    assert scores["also"]["judgements"]["v1_0"] == ["0.4", "0.5", "0.6", "0.7", "0.8"]
    assert len(judge.texts()) == 4 * 5
    told = f"\nWhich shapes are there? | circle <AND> square | {answers[0]['response']} | "
    assert sum(text.endswith(told) for text in judge.texts()) == 5
    judge.close()


def test_pope_s_answers_are_scored_as_pope_s_own_script_does_beside_lmms_eval(run, tmp_path):
    """The two differ where an answer is more than a word, and in what the yes ratio counts."""
    answers = harness_of(run, "pope").read_answers(run.folder / "out", 12)
    for answer in answers:
        answer["response"] = "No, there is not." if answer["target"] == "no" else "Yes, there is."
    path = Path(tmp_path / "answers.jsonl")
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    also, by_question = score_benchmark.score_by_ours(load_benchmark("pope"), path)
    assert len(by_question) == also["doubts"]["answers"]
    assert also["scores"]["reference_f1"] == also["scores"]["reference_accuracy"] == 100
    assert also["scores"]["reference_yes_ratio"] == 50
    assert also["computed_by"]["scorer"] == "scripts/lib/benchmarks/pope.py, version 4"
    assert str(also["computed_by"]["parser"]).startswith("text before the first full stop")
