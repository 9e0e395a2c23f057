"""Answers are held against the question that they answer, whatever its number is in the release of
the benchmark that is at hand.
"""

import json
from pathlib import Path

import pytest

from conftest import GOLDEN, needs_golden
from lib.benchmarks.joining import Asked, Questions, image_names
from lib.benchmarks.registry import load_benchmark
from lib.benchmarks.scores import Score
from lib.errors import UserError
from lib.files import write_json, write_jsonl

POPE = [
    {"question_id": 1, "image": "a.jpg", "text": "Is there a lamp in the image?", "label": "yes"},
    {"question_id": 2, "image": "a.jpg", "text": "Is there a boat in the image?", "label": "no"},
    {"question_id": 3, "image": "b.jpg", "text": "Is there a dog in the image?", "label": "yes"},
]
JUDGED = {"judgement": "Rating: 5"}


def asks(thing: str, spelling: str = "image") -> str:
    return f"Is there a {thing} in the {spelling}?"


def scored(name: str, answers: Path, *reference: Path) -> Score:
    benchmark = load_benchmark(name, "exact")
    read = benchmark.read_answers(answers)
    return benchmark.score(read, benchmark.read_reference(*reference), samples=0)


def pope(folder: Path, *answers: dict[str, str]) -> Score:
    write_jsonl(folder / "labels/coco_pope_random.json", POPE)
    write_jsonl(folder / "answers.jsonl", [{"response": "Yes", **answer} for answer in answers])
    return scored("pope", folder / "answers.jsonl", folder / "labels")


def test_an_answer_to_another_question_than_its_number_s_is_told_with_both_texts(tmp_path):
    lamp = {"id": "random/1", "question": asks("lamp")}
    dog = {"id": "random/2", "question": asks("dog")}
    with pytest.raises(UserError, match="different releases of POPE") as told:
        pope(tmp_path, lamp, dog)
    for part in ("answers.jsonl, line 2", "random/2", repr(asks("dog")), repr(asks("boat"))):
        assert part in str(told.value)


def test_answers_that_say_question_and_image_are_joined_by_these(tmp_path):
    found = pope(
        tmp_path,
        {"id": "random/1", "question": asks("lamp"), "image": "a.jpg"},
        {"id": "random/2", "question": asks("dog"), "image": "folder/b.jpg"},
        {"id": "random/3", "question": asks("boat"), "image": "a.jpg", "response": "No"},
    )
    assert (found.scores["f1"], found.extra["missing"], found.problems) == (100.0, 0, [])


@pytest.mark.parametrize(("labels", "answer"), [("labels.jsonl", "random/9"), ("", "9")])
def test_where_one_side_names_no_split_question_and_image_are_enough(tmp_path, labels, answer):
    write_jsonl(tmp_path / (labels or "coco_pope_random.json"), POPE)
    row = {"id": answer, "question": asks("dog"), "image": "b.jpg", "response": "Yes"}
    write_jsonl(tmp_path / "answers.jsonl", [row])
    found = scored(
        "pope", tmp_path / "answers.jsonl", tmp_path / (labels or "coco_pope_random.json")
    )
    assert (found.scores["f1"], found.extra["answers"]) == (100.0, 1)


def test_what_the_reference_does_not_ask_is_left_out_and_told(tmp_path):
    found = pope(
        tmp_path,
        {"id": "random/1", "question": asks("lamp"), "image": "a.jpg"},
        {"id": "random/2", "question": asks("cat"), "image": "a.jpg"},
        {"id": "random/3", "question": asks("lamp"), "image": "a.jpg", "response": "No"},
    )
    told = [problem.what for problem in found.problems]
    assert found.extra["answers"] == 1
    assert [problem.line for problem in found.problems] == [2, 3, None]
    assert f"asks {asks('cat')!r} about 'a', which is not in the reference" in told[0]
    assert "answers what 'random/1' asks, which is answered before it" in told[1]


def test_an_answer_about_another_image_is_told(tmp_path):
    with pytest.raises(UserError, match="is about 'b', and in the reference about 'a'"):
        pope(tmp_path, {"id": "random/1", "image": "b.jpg"})


@pytest.mark.parametrize(
    ("said", "expected", "is_same"),
    [
        (asks("orange", "imange"), asks("orange"), True),
        (asks("orange").replace("a orange", "an orange"), asks("orange"), True),
        (f"{asks('car', 'imange')}\nAnswer with one word.", asks("car"), True),
        (asks("CAR ").upper(), asks("car"), True),
        (asks("cat"), asks("car"), False),
        (asks("coat"), asks("boat"), False),
        (asks("hot dog"), asks("dog"), False),
        (asks("dog"), asks("hot dog"), False),
    ],
)
def test_a_spelling_of_the_frame_makes_no_other_question_and_another_object_does(
    said, expected, is_same
):
    frame = frozenset(("is", "there", "a", "in", "the", "image"))
    assert Questions({"1": Asked(expected)}, frame).is_same(said, expected) is is_same


def test_questions_in_free_words_may_be_spelled_otherwise_but_for_another_one_of_theirs():
    asked = {"1": Asked("What color is the house?"), "2": Asked("What color is the horse?")}
    questions = Questions(asked)
    assert questions.is_same("Look: what colour is the house?", "What color is the house?")
    assert not questions.is_same("What color is the horse?", "What color is the house?")
    assert not questions.is_same("Who lives in the house?", "What color is the house?")


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"image": "val2014/COCO_val2014_000000310196.jpg"}, {"310196"}),
        ({"image_id": 310196}, {"310196"}),
        ({"image_src": "https://example.org/8/72_o.jpg", "image_id": "df62"}, {"72_o", "df62"}),
        ({"image": "iVBORw0KGgo" * 100}, set()),
        ({"image": None, "image_id": ["a"]}, set()),
    ],
)
def test_an_image_is_known_by_the_names_of_its_file(row, names):
    assert image_names(row) == names


@needs_golden
@pytest.mark.parametrize("with_images", [True, False])
def test_llava_s_pope_answers_have_their_score_by_labels_of_a_later_release_too(
    tmp_path, with_images
):
    """As the authors did: a word spelled otherwise, and questions more in the random split."""
    for split in ("adversarial", "popular", "random"):
        text = (GOLDEN / f"pope/ann/coco_pope_{split}.json").read_text().replace("imange", "image")
        rows = [json.loads(line) for line in text.splitlines()]
        if split == "random":
            rows.insert(20, {"image": rows[0]["image"], "text": asks("sheep"), "label": "no"})
        numbered = [{**row, "question_id": number} for number, row in enumerate(rows, 1)]
        write_jsonl(tmp_path / f"labels/coco_pope_{split}.json", numbered)
    questions = (GOLDEN / "pope/llava_pope_test.jsonl").read_text().splitlines()
    images = {row["question_id"]: row["image"] for row in map(json.loads, questions)}
    answers = map(json.loads, (GOLDEN / "pope/llava-v1.5-13b.jsonl").read_text().splitlines())
    path = tmp_path / "answers.jsonl"
    if with_images:
        write_jsonl(path, [{**row, "image": images[row["question_id"]]} for row in answers])
        found = scored("pope", path, tmp_path / "labels")
        assert found.scores["f1"] == pytest.approx(85.94688, abs=1e-5)
        assert found.extra["missing"] == 1
    else:
        write_jsonl(path, answers)
        with pytest.raises(UserError, match="different releases"):
            scored("pope", path, tmp_path / "labels")


# --- the other benchmarks

MMHAL = [
    {"question": "What color is it?", "gt_answer": "Red.", "image_src": "https://x.org/one.jpg"},
    {"question": "How many are there?", "gt_answer": "Two.", "image_src": "https://x.org/two.jpg"},
]


def test_mmhal_s_answers_in_another_order_are_rated_under_their_own_questions(tmp_path):
    write_json(tmp_path / "response_template.json", MMHAL)
    turned = [{**row, "model_answer": "Well.", **JUDGED} for row in reversed(MMHAL)]
    turned[0]["judgement"] = "Rating: 1"
    write_json(tmp_path / "answers.json", turned)
    benchmark = load_benchmark("mmhal_bench")
    reference = benchmark.read_reference(tmp_path / "response_template.json")
    found = benchmark.score(benchmark.read_answers(tmp_path / "answers.json"), reference)
    assert found.per_type["adversarial"]["score"] == 1.0
    assert found.per_type["attribute"]["score"] == 5.0


@pytest.mark.parametrize(
    ("name", "reference", "answer", "texts"),
    [
        (
            "mmhal_bench",
            {"template.json": MMHAL},
            {"id": 0, "question": "Where is it?", **JUDGED},
            ("Where is it?", "What color is it?"),
        ),
        (
            "mm_vet",
            {"mm-vet.json": {"v1_0": {"question": "Who?", "answer": "A", "capability": ["ocr"]}}},
            {"question_id": "v1_0", "bare_question": "When?", "grades": [1.0]},
            ("When?", "Who?"),
        ),
        (
            "amber",
            {
                "annotations.json": [{"id": 1005, "type": "relation", "truth": "no"}],
                "relation.json": {"dog": []},
                "safe_words.txt": ["x"],
                "query/query_all.json": [{"id": 1005, "query": "Is the sky blue in this image?"}],
            },
            {"id": 1005, "question": "Is the lake blue in this image?"},
            ("Is the lake blue in this image?", "Is the sky blue in this image?"),
        ),
    ],
)
def test_every_benchmark_that_knows_its_questions_tells_an_answer_to_another(
    tmp_path, name, reference, answer, texts
):
    for file, content in reference.items():
        write_json(tmp_path / "reference" / file, content)
    write_jsonl(tmp_path / "answers.jsonl", [{"response": "No", **answer}])
    with pytest.raises(UserError, match="different releases") as told:
        scored(name, tmp_path / "answers.jsonl", tmp_path / "reference")
    assert all(repr(text) in str(told.value) for text in texts)


@pytest.mark.parametrize("name", ["chair", "object_halbench"])
def test_a_caption_belongs_to_the_image_whose_file_it_names_not_to_its_own_number(tmp_path, name):
    image = "COCO_val2014_000000310196.jpg"
    write_jsonl(tmp_path / "a.jsonl", [{"question_id": 7, "image": image, "text": "A dog."}])
    [answer] = load_benchmark(name).read_answers(tmp_path / "a.jsonl").rows
    assert answer.id == "310196"


@pytest.mark.parametrize(
    ("image", "question", "kept"), [("0.png", "What color is it?", True), ("0.png", "Why?", False)]
)
def test_mmhal_s_images_may_have_names_of_one_s_own_and_are_then_known_by_number_and_text(
    tmp_path, image, question, kept
):
    write_json(tmp_path / "response_template.json", MMHAL)
    write_jsonl(
        tmp_path / "a.jsonl",
        [{"id": 0, "question": question, "image": image, "response": "Red.", **JUDGED}],
    )
    if kept:
        found = scored("mmhal_bench", tmp_path / "a.jsonl", tmp_path / "response_template.json")
        assert found.scores["score"] == 5.0
    else:
        with pytest.raises(UserError, match="different releases"):
            scored("mmhal_bench", tmp_path / "a.jsonl", tmp_path / "response_template.json")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"id": 5, "image": "7.jpg"}, "5"),
        ({"id": 5, "image": "val/000000000007.jpg"}, "7"),
        ({"image_id": 5, "image": "000000000007.jpg"}, "5"),
    ],
)
def test_only_coco_s_own_file_names_tell_an_image(tmp_path, row, name):
    write_jsonl(tmp_path / "a.jsonl", [{**row, "response": "A dog."}])
    [answer] = load_benchmark("chair").read_answers(tmp_path / "a.jsonl").rows
    assert answer.id == name
