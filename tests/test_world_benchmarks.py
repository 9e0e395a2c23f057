"""The small world's benchmarks: the product's own scorers find what the oracle knows of answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.benchmarks.questions import prompt_of, read_questions
from lib.benchmarks.registry import load_benchmark, load_questions_benchmark
from tiny.benchmarks.files import Files
from world import benchmarks, oracle, words
from world.answerer import CALLS, TRUTHFUL, Habit
from world.scenes import KINDS

COUNT, SEED = 60, 3


def write(files: Files, folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def scores_of(benchmark: str, answers: Path, reference: Path) -> dict[str, float]:
    scorer = load_benchmark(benchmark)
    found = scorer.score(scorer.read_answers(answers), scorer.read_reference(reference))
    assert not found.problems
    return dict(found.scores)


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "habit", [TRUTHFUL, Habit(adds=1), Habit(drops=1), Habit(swaps=1)], ids=str
)
def test_chair_finds_what_the_oracle_knows_of_kinds(tmp_path: Path, habit: Habit) -> None:
    folder = write(benchmarks.chair(COUNT, SEED), tmp_path / "chair")
    scenes, _ = benchmarks.unseen(COUNT, SEED)
    random = np.random.default_rng(0)
    texts = [habit.describe(scene, random) for scene in scenes]
    answers = jsonl(
        tmp_path / "answers.jsonl",
        [{"image_id": number, "caption": text} for number, text in enumerate(texts, start=1)],
    )

    def kinds(text: str) -> set[str]:
        return {kind for _, kind in words.read(text).names()}

    there = [{thing.kind for thing in scene.things} for scene in scenes]
    false = [kinds(text) - known for text, known in zip(texts, there, strict=True)]
    right = sum(len(kinds(text) & known) for text, known in zip(texts, there, strict=True))
    scores = scores_of("chair", answers, folder)
    assert scores["chair_s"] == pytest.approx(100 * np.mean([bool(each) for each in false]))
    assert scores["recall"] == pytest.approx(100 * right / sum(map(len, there)))
    assert bool(scores["chair_s"]) == bool(habit.adds or habit.swaps)


def test_pope_of_a_truthful_model_is_perfect_and_a_habit_says_yes_to_what_goes_with_what_is_there(
    tmp_path: Path,
) -> None:
    folder = write(benchmarks.pope(COUNT, SEED, CALLS), tmp_path / "pope")
    scores = {}
    for name, habit in (("truthful", TRUTHFUL), ("habit", Habit(adds=1))):
        random = np.random.default_rng(0)
        rows: list[dict[str, object]] = []
        for number, way in enumerate(("random", "popular", "adversarial")):
            scenes = {
                f"{way}_{place:06d}.png": each
                for place, each in enumerate(benchmarks.unseen(COUNT, SEED + number)[0], start=1)
            }
            for line in (folder / f"coco_pope_{way}.json").read_text().splitlines():
                question = json.loads(line)
                asked = next(kind for kind in KINDS if kind in question["text"])
                answer = "Yes" if habit.answers(scenes[question["image"]], asked, random) else "No"
                rows.append({"id": f"{way}/{question['question_id']}", "response": answer})
        scores[name] = scores_of("pope", jsonl(tmp_path / f"{name}.jsonl", rows), folder)
    assert scores["truthful"]["accuracy"] == scores["truthful"]["f1"] == 100
    assert scores["habit"]["recall"] == 100
    assert scores["habit"]["accuracy"] < 85


@pytest.mark.parametrize(("benchmark", "count"), [("chair", COUNT), ("pope", 6 * COUNT)])
def test_the_product_reads_the_questions_with_their_pictures(
    tmp_path: Path, benchmark: str, count: int
) -> None:
    made = (
        benchmarks.chair(COUNT, SEED)
        if benchmark == "chair"
        else benchmarks.pope(COUNT, SEED, CALLS)
    )
    folder = write(made, tmp_path)
    files = sorted(folder.glob("questions.jsonl" if benchmark == "chair" else "coco_pope_*.json"))
    asked = load_questions_benchmark(benchmark)
    questions = read_questions(asked, files, folder / "images")
    assert len(questions) == count
    assert all(question.image and question.image.is_file() for question in questions)
    form = "{}\nAnswer the question using a single word or phrase." if benchmark == "pope" else "{}"
    assert prompt_of(questions[0], asked.form.prompts) == form.format(questions[0].text)


def test_prompts_are_as_many_as_asked_each_once_and_read_back() -> None:
    texts = benchmarks.prompts(50, SEED)
    assert texts.keys() == set(words.TOPICS)
    for topic, text in texts.items():
        lines = text.splitlines()
        assert len(set(lines)) == 50
        for line in lines:
            said = words.read(line)
            assert said.background
            assert said.things
            assert all((cell is not None) == (topic == "positions") for _, _, cell in said.things)
    lines = "".join(texts.values()).splitlines()
    assert len(set(lines)) == len(lines), "the product refuses a prompt that stands in two topics"
    assert benchmarks.prompts(50, SEED) == texts


def test_two_builds_give_the_same_bytes() -> None:
    assert benchmarks.chair(5, SEED) == benchmarks.chair(5, SEED)
    assert oracle.judge_caption(
        words.caption(benchmarks.unseen(1, SEED)[0][0]), benchmarks.unseen(1, SEED)[0][0]
    ).exact
