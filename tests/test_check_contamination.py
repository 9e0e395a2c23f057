"""Contamination: planted overlaps are found, named, counted and left out; a control without any has
none.
"""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageDraw, ImageFilter

import check_contamination
import index_benchmarks
import list_overlaps
from conftest import Parameters, Wildcards
from lib.config.contamination import Contamination, OverlapMeasures
from lib.contamination import Index, perceptual_hash, question_words, words_of
from lib.data.evaluation_files import IndexedQuestion
from lib.errors import UserError
from lib.files import digest_of_file, read_jsonl, write_jsonl
from test_answer_questions import block
from tiny.benchmarks.registry import BENCHMARKS

REPOSITORY = Path(__file__).resolve().parent.parent
MEASURES = OverlapMeasures().model_dump()
LONG = (
    "In the kitchen on the left there are three red pots standing on a wooden shelf next to the"
    " window"
)


def index(*questions, image=None, **measures):
    rows: list[IndexedQuestion] = [
        {"benchmark": "b", "id": str(number), "question": question, "image": image}
        for number, question in enumerate(questions)
    ]
    return Index(rows, **{**MEASURES, **measures})


# Texts


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_none():
    words = LONG.split()
    found = index(LONG).of_text("prompt", f"Look: {' '.join(words[2:15]).upper()}! What else?")
    assert [(each.measure, each.value, each.text) for each in found] == [
        ("ngram", 13, " ".join(words_of(" ".join(words[2:15]))))
    ]
    assert index(LONG).of_text("prompt", f"Look: {' '.join(words[2:14])}! What else?") == []


def test_a_short_question_is_found_as_a_whole_whatever_its_case_and_ending():
    asked = index(
        "Is there a snowboard in the image?\nAnswer the question using a single word or phrase.",
        "How many pots are there? Please answer yes or no.",
    )
    for text in (
        "is there a Snowboard in the image",
        "Tell me, is there a snowboard in the image, or not, and where would it be?",
    ):
        (found,) = asked.of_text("instruction", text)
        assert (found.measure, found.question, found.text) == (
            "contained",
            "0",
            "is there a snowboard in the image",
        )
    (found,) = asked.of_text("instruction", "How many pots are there?")
    assert found.question == "1"


def test_a_short_question_with_another_ending_is_found_by_its_word_pairs():
    asked = index("What color is the left one of the two cars?")
    (found,) = asked.of_text("instruction", "What color is the left one of the two trucks?")
    assert found.measure == "similar"
    assert found.value == 0.8
    assert asked.of_text("instruction", "What color is the right one of the three trucks?") == []


def test_the_same_words_in_another_order_are_no_overlap():
    assert (
        index("Is the cat on the left of the dog?").of_text(
            "instruction", "The dog on the left, is the cat of it?"
        )
        == []
    )


def test_questions_of_few_words_are_not_compared():
    asked = index("Describe this image.", "What is this?")
    assert asked.of_text("instruction", "Describe this image.") == []
    assert index("Describe this image.", min_words=3).of_text(
        "instruction", "Describe this image. What is on the left?"
    )


def test_equal_questions_of_a_benchmark_are_one_overlap_with_their_number():
    (found,) = index(*["Is there a person in the image?"] * 3).of_text(
        "instruction", "Is there a person in the image?"
    )
    assert (found.question, found.questions) == ("0", 3)


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.8, 1.0])
def test_looking_up_the_rarest_pairs_finds_all_that_comparing_everything_does(similarity):
    questions = [
        f"{start} the {color} {thing} {place}?"
        for start in ("Is there", "Can you see", "Where is")
        for color in ("red", "blue", "small")
        for thing in ("car", "traffic light", "dog")
        for place in ("in the image", "next to the house on the left")
    ]
    asked = index(*questions, short_similarity=similarity, ngram=20)

    def pairs(text):
        words = question_words(text)
        return {words[start : start + 2] for start in range(len(words) - 1)}

    for text in [
        *questions[::5],
        "Is there the red car in the picture?",
        "Where is the small dog next to the house on the right?",
    ]:
        expected = {
            str(number)
            for number, question in enumerate(questions)
            if len(pairs(text) & pairs(question)) / len(pairs(text) | pairs(question)) >= similarity
        }
        assert expected <= {each.question for each in asked.of_text("instruction", text)}
        assert {
            each.question
            for each in asked.of_text("instruction", text)
            if each.measure == "similar"
        } <= expected


def test_our_own_prompts_and_the_demo_s_questions_have_nothing_in_common(demo_benchmarks):
    """The negative control on real prompts: 620 of them, and the questions of five benchmarks."""
    questions = [row["question"] for make_rows, _ in BENCHMARKS.values() for row in make_rows()]
    asked = index(*questions)
    prompts = [
        line
        for path in sorted((REPOSITORY / "prompts").glob("*.txt"))
        for line in path.read_text().splitlines()
        if line
    ]
    assert len(prompts) > 600
    assert [each for prompt in prompts for each in asked.of_text("prompt", prompt)] == []


# Images


def drawn(seed):
    """An image with much in it, different for each seed."""
    image = Image.new("RGB", (256, 256), (seed * 37 % 256, 90, 200))
    canvas = ImageDraw.Draw(image)
    for number in range(12):
        x, y = (seed * 53 + number * 71) % 200, (seed * 97 + number * 43) % 200
        canvas.rectangle(
            (x, y, x + 20 + 7 * (number % 5), y + 15 + 9 * (number % 4)),
            fill=(number * 20, (seed + number * 60) % 256, 40),
        )
    return image


def as_jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: as_jpeg(image, 40),
        lambda image: image.resize((640, 640)),
        lambda image: image.filter(ImageFilter.GaussianBlur(1)),
        lambda image: image.point(lambda value: min(255, value + 12)),
    ],
    ids=["copy", "jpeg", "enlarged", "blurred", "brighter"],
)
def test_a_copy_of_a_benchmark_s_image_is_found_though_it_was_changed(change):
    (found,) = index("Is there a box in this image?", image=perceptual_hash(drawn(1))).of_image(
        perceptual_hash(change(drawn(1)))
    )
    assert (found.of, found.measure, found.benchmark) == ("image", "image", "b")
    assert found.value <= MEASURES["image_distance"]


def test_other_images_are_not_found():
    asked = index("Is there a box in this image?", image=perceptual_hash(drawn(1)))
    assert [
        number for number in range(2, 60) if asked.of_image(perceptual_hash(drawn(number)))
    ] == []


# The rules


def questions_of(name, benchmarks):
    """Where a benchmark's questions are."""
    values = block(name, benchmarks)
    return {key: values[key] for key in ("scorer", "questions", "images")}


class Run:
    """A run's folder with one shard, two benchmarks of our own kind, one of lmms-eval here and one
    on the hub.
    """

    def __init__(self, folder, benchmarks):
        self.folder, self.benchmarks = folder, benchmarks
        images = Path("results/run/images/art")
        (images / "00").mkdir(parents=True)
        self.planted = Image.open(benchmarks / "chair/images/000000000001.jpg").convert("RGB")
        rows = []
        for number, (prompt, instruction, image) in enumerate(
            [
                ("A red box on a table", "What color is the circle in the picture?", drawn(1)),
                (
                    "Many boxes of all kinds",
                    "Where do you see the largest box of them?",
                    self.planted,
                ),
                ("More boxes", "Where do you see the smallest box of them?", drawn(2)),
            ]
        ):
            path = images / f"00/{number}.png"
            image.save(path)
            shown = {
                "file": path.relative_to("results/run").as_posix(),
                "sha256": digest_of_file(path),
            }
            rows.append(
                {
                    "id": f"art-{number}",
                    "topic": "art",
                    "prompt": prompt,
                    "instruction": instruction,
                    "image": shown,
                }
            )
        rows.append(
            {
                "id": "art-9",
                "topic": "art",
                "prompt": "x",
                "missing": {"rule": "write_instructions", "reason": "refused"},
            }
        )
        Path("results/run/images/art/00.jsonl").write_text("")
        self.write(rows)

    def write(self, rows):
        write_jsonl(Path("results/run/instructions/art/00.jsonl"), rows)

    def rows(self):
        return read_jsonl(Path("results/run/instructions/art/00.jsonl"))

    def job(self, rule, inputs, output, settings, **wildcards):
        common = {"root": "results/run", "device": "cpu", "seed": 0, "max_failed_fraction": 0}
        return SimpleNamespace(
            rule=rule,
            wildcards=Wildcards(**wildcards),
            params=Parameters(settings=settings, common=common),
            input=inputs,
            output=output,
        )

    def make(self, megapixels=50, **changes):
        here = Path("results/run/contamination")
        blocks = {
            "mmhal": questions_of("mmhal_bench", self.benchmarks),
            "chair": questions_of("chair", self.benchmarks),
            "mme": {"task": "mme", "data": {"test": str(self.benchmarks / "mme.parquet")}},
            "vqav2": {"task": "vqav2_val", "data": None},
        }
        index, coverage = here / "benchmarks.jsonl", here / "coverage.json"
        index_benchmarks.main(
            self.job(
                "index_benchmarks",
                [],
                SimpleNamespace(index=index, coverage=coverage),
                {"benchmarks": blocks, "max_image_megapixels": megapixels},
            )
        )
        settings = Contamination(**changes).model_dump()
        measures = {name: settings[name] for name in MEASURES}
        inputs = SimpleNamespace(
            index=index,
            instructions="results/run/instructions/art/00.jsonl",
            images="results/run/images/art/00.jsonl",
        )
        shard = here / "art/00.jsonl"
        check_contamination.main(
            self.job("check_contamination", inputs, [shard], measures, topic="art", shard="00")
        )
        outputs = SimpleNamespace(
            list=here / "overlaps.jsonl", csv=here / "overlaps.csv", page=here / "overlaps.md"
        )
        list_overlaps.main(
            self.job(
                "list_overlaps",
                SimpleNamespace(shards=[shard], coverage=coverage, index=index),
                outputs,
                settings,
            )
        )
        return SimpleNamespace(
            overlaps=read_jsonl(outputs.list),
            page=outputs.page.read_text(),
            csv=outputs.csv.read_text(),
            coverage=json.loads(coverage.read_text()),
            shard=shard.read_bytes(),
            record=json.loads(Path("results/run/work/check_contamination/art/00.json").read_text()),
        )


@pytest.fixture
def run(demo_benchmarks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path, demo_benchmarks)


def test_planted_questions_and_images_are_listed_and_nothing_else(run):
    made = run.make()
    texts = [
        (each["id"], each["of"], each["benchmark"], each["measure"])
        for each in made.overlaps
        if each["of"] != "image"
    ]
    assert texts == [("art-0", "instruction", "mmhal", "contained")]
    images = {(each["id"], each["benchmark"]) for each in made.overlaps if each["of"] == "image"}
    assert {("art-1", "chair"), ("art-1", "mmhal")} <= images
    assert {name for name, _ in images} == {"art-1"}
    assert "2 of 3 prompts have an overlap" in made.page
    assert "stay in the training data" in made.page
    assert made.csv.splitlines()[0] == "id,of,benchmark,question,questions,measure,value,text"
    assert len(made.csv.splitlines()) == 1 + len(made.overlaps)


def test_an_image_over_the_configured_limit_is_told_by_its_file(run):
    with pytest.raises(UserError, match=r"\.png: an image of .*`max_image_megapixels` \(0\.001\)"):
        run.make(megapixels=0.001)


def test_data_on_the_hub_are_said_not_to_have_been_checked(run):
    made = run.make()
    assert made.coverage["vqav2"] == {
        "checked": False,
        "why": "its data are on the hub, not here: give local copies (`data`) to have them checked",
    }
    assert re.search(r"\| vqav2 \| \*\*no\*\*: its data are on the hub", made.page)
    assert made.coverage["mme"]["checked"]
    assert (made.coverage["mme"]["questions"], made.coverage["mme"]["different_images"]) == (12, 6)


def test_a_rerun_compares_nothing_anew_and_gives_the_same_bytes_and_an_edit_compares_one(run):
    first = run.make()
    assert first.record["computed"] == 3
    second = run.make()
    assert (second.record["computed"], second.record["reused"]) == (0, 3)
    assert (second.shard, second.page, second.csv) == (first.shard, first.page, first.csv)
    rows = run.rows()
    rows[2]["instruction"] = "How many shapes are in the picture?"
    run.write(rows)
    third = run.make()
    assert (third.record["computed"], third.record["reused"]) == (1, 2)
    assert {each["id"] for each in third.overlaps} == {"art-0", "art-1", "art-2"}


def test_a_prompt_without_an_instruction_stays_told_as_missing(run):
    run.make()
    assert (
        read_jsonl(Path("results/run/contamination/art/00.jsonl"))[-1]["missing"]["rule"]
        == "write_instructions"
    )


def test_texts_in_the_list_are_data(run):
    rows = run.rows()
    rows[0] |= {"instruction": "=HYPERLINK(1) | <b>What color is the circle in the picture?</b>"}
    run.write(rows)
    made = run.make()
    assert "<b>" not in made.page
    assert all(not line.split(",")[-1].startswith("=") for line in made.csv.splitlines())
