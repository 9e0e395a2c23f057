"""The sheet of answers: marks are the mentions that the score counts, questions are drawn by the
seed, pictures and texts stay whole.
"""

import base64
import json
import re
from hashlib import sha256
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import answers_figure
import score_answers
from answers_figure import choose_questions, marks_of, remarks_on
from lib.benchmarks.mentions import Mention, Mentions, MentionsBenchmark
from lib.benchmarks.questions import PublishedQuestion
from lib.benchmarks.registry import names_of
from lib.config.run import Config
from lib.errors import UserError
from lib.files import write_json, write_jsonl
from lib.head import table_rows
from lib.head.plan import Plan
from lib.head.targets import tables_and_figures
from lib.report.answers_sheet import (
    COLUMN,
    HALLUCINATED,
    LINES,
    WIDTH,
    SheetAnswer,
    SheetHead,
    SheetQuestion,
    draw,
    height_of,
    lay_out_question,
    measure,
)
from lib.report.figures import new_figure
from lib.report.marked_text import Mark, lay_out
from lib.report.sheet import Sheet
from test_figures import HOSTILE, check_pictures

SYNONYMS = "person, man, woman\nhot dog\ndog, puppy\ntable\n"
SHOWN = {"1": ["dog"], "2": ["person", "hot dog"], "3": [], "4": ["table"]}
BASE = {
    "1": "A dog and a man at a table.",
    "2": HOSTILE + "\n\nTwo hot dogs, a man.",
    "3": "",
    "4": "x" * 300,
}
OURS = {"1": "A dog.", "2": "Dogs and\nhot dogs " * 300, "3": "Blue sky.", "4": "A table, a puppy."}


def test_a_sheet_can_show_the_benchmarks_that_say_where_mentions_are():
    assert names_of(MentionsBenchmark) == ["chair", "object_halbench"]


@pytest.fixture
def benchmark(tmp_path, rule_object):
    """A benchmark that two models have answered; `go` scores the answers and makes the sheet of
    them.
    """
    root, folder = tmp_path / "run", tmp_path / "benchmark"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pictures = {}
    for number, (height, width) in zip(
        SHOWN, ((48, 48), (600, 300), (200, 500), (1, 1)), strict=True
    ):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
        pictures[number] = (folder / f"{number}.png").read_bytes()
    (folder / "objects.json").write_text(json.dumps(SHOWN))
    for name in ("synonyms.txt", "synonyms_refine.txt"):
        (folder / name).write_text(SYNONYMS)

    def go(scorer="chair", texts=(BASE, OURS), **more):
        embedded = scorer == "object_halbench"
        rows = [{"image_id": n, "question": "What is there?", "image": f"{n}.png"} for n in SHOWN]
        write_jsonl(
            folder / "questions.jsonl",
            (
                [
                    {**row, "image": base64.b64encode(pictures[row["image_id"]]).decode()}
                    for row in rows
                ]
                if embedded
                else rows
            ),
        )
        reference = [
            str(folder / "objects.json"),
            str(folder / ("synonyms_refine.txt" if embedded else "synonyms.txt")),
        ]
        files: dict[str, list[str]] = {kind: [] for kind in ("scores", "scored", "answers")}
        for model, given in zip(("base", "ours"), texts, strict=True):
            place = root / f"evaluation/{model}/shapes"
            about = [
                {"id": n, "question": "What is there?", "image_sha256": sha256(content).hexdigest()}
                for n, content in pictures.items()
            ]
            answered = [
                (
                    {**row, "response": given[row["id"]], "finish_reason": "stop"}
                    if row["id"] in given
                    else {**row, "missing": {}}
                )
                for row in about
            ]
            write_jsonl(place / "answers.jsonl", answered)
            asked = {
                "model": model,
                "benchmark": "shapes",
                "model_identity": "folder-1",
                "questions": 4,
                "questions_in_data": 4,
            }
            write_json(place / "asked.json", {**asked, "limit": None, "environment": {}})
            paths = {"scores": str(place / "scores.json"), "scored": str(place / "scored.jsonl")}
            inputs = SimpleNamespace(
                answers=str(place / "answers.jsonl"), asked=str(place / "asked.json")
            )
            how = {"scorer": scorer, "reference": reference, "judge": None, "language": "stand-in"}
            score_answers.main(
                rule_object(
                    "score_answers",
                    {"model": model, "benchmark": "shapes"},
                    inputs,
                    SimpleNamespace(**paths, by_question=str(place / "by_question.jsonl")),
                    settings=how,
                )
            )
            for kind, path in (paths | {"answers": inputs.answers}).items():
                files[kind].append(path)
        settings = {
            "scorer": scorer,
            "benchmark": "shapes",
            "experiment": "ours",
            "count": 6,
            "questions": [str(folder / "questions.jsonl")],
            "images": None if embedded else str(folder),
            "reference": reference,
            "language": "stand-in",
            "names": ["model (base model)", "ours (8 pairs)"],
            "label": "demo",
            **more,
        }
        outputs = SimpleNamespace(
            **{kind: str(root / f"answers_figure.{end}") for kind, end in FORMATS}
        )
        answers_figure.main(
            rule_object("answers_figure", {}, SimpleNamespace(**files), outputs, settings=settings)
        )
        sidecar = json.loads((root / "answers_figure.json").read_text())
        return (
            sidecar,
            (root / "answers_figure.svg").read_bytes(),
            (root / "answers_figure.png").read_bytes(),
        )

    return SimpleNamespace(go=go, folder=folder, root=root)


FORMATS = (("svg", "svg"), ("png", "png"), ("sidecar", "json"))


@pytest.mark.parametrize("scorer", names_of(MentionsBenchmark))
def test_what_is_marked_is_what_the_score_counts_and_the_sheet_is_the_same_each_time(
    benchmark, tmp_path, scorer
):
    first = benchmark.go(scorer)
    check_pictures(tmp_path, "answers_figure", *first)
    sidecar = first[0]
    assert sidecar["caption"] == "4 of 4 questions, drawn by the seed (0) and not by their answers"
    for place, model in enumerate(("base", "ours")):
        scores = json.loads((benchmark.root / f"evaluation/{model}/shapes/scores.json").read_text())
        mentions = [
            mention for row in sidecar["rows"] for mention in row["answers"][place]["mentions"]
        ]
        counted = (scores["doubts"]["mentions"], scores["doubts"]["hallucinated_mentions"])
        assert (len(mentions), sum(not each["there"] for each in mentions)) == counted
        assert sidecar["models"][place]["scores"] == scores["scores"]
        assert sidecar["models"][place]["not_comparable"].keys() == scores["scores"].keys()
    base = sidecar["rows"][0]["answers"][0]
    assert [
        (each["thing"], each["there"], base["response"][slice(*each["place"])])
        for each in base["mentions"]
    ] == [
        ("dog", True, "dog"),
        ("person", False, "man"),
        ("table", False, "table"),
    ]
    assert sidecar["rows"][1]["answers"][0]["response"].startswith(HOSTILE)
    assert benchmark.go(scorer) == first


def test_above_the_answers_stand_their_scores_with_all_that_is_to_be_known_of_them():
    why = "stand-in language tools (tokenizer): not comparable with published scores"
    head = SheetHead("CHAIR", "caption", "ours", [("base", "chair_s 37.0 %"), ("dpo", why)])
    with new_figure(WIDTH, height_of([], head)) as figure:
        draw(Sheet(figure), [], head)
        drawn = [text.get_text() for text in figure.texts]
    assert why in " ".join(drawn)
    short = SheetHead("CHAIR", "caption", "ours", [("base", "chair_s 37.0 %")])
    assert height_of([], head) > height_of([], short)


def test_questions_are_drawn_by_the_seed_whatever_the_answers_say():
    ids = [str(number) for number in range(60)]
    six = choose_questions(ids, 6, seed=0)
    assert six == sorted(six, key=ids.index)
    assert choose_questions(ids, 6, seed=1) != six
    assert set(six) < set(choose_questions(ids, 9, seed=0))
    assert set(six) - {six[0]} < set(
        choose_questions([one for one in ids if one != six[0]], 6, seed=0)
    )
    assert choose_questions(ids, 100, seed=0) == ids


def test_the_same_questions_are_shown_of_other_answers_and_those_without_one_are_told(benchmark):
    two = benchmark.go(count=2)[0]
    assert two["caption"].startswith("2 of 4 questions")
    others = benchmark.go(texts=(OURS, BASE), count=2)[0]
    assert [row["id"] for row in others["rows"]] == [row["id"] for row in two["rows"]]
    unanswered = benchmark.go(
        texts=(BASE, {name: text for name, text in OURS.items() if name != "2"})
    )[0]
    assert unanswered["caption"].endswith(
        "3 of 3 questions, drawn by the seed (0) and not by their answers; not among them 1 without"
        " scored answers of both"
    )
    assert [row["id"] for row in unanswered["rows"]] == ["1", "3", "4"]


def test_another_picture_than_the_models_saw_is_not_shown(benchmark):
    benchmark.go()
    Image.new("RGB", (20, 20)).save(benchmark.folder / "2.png")
    with pytest.raises(UserError, match=r"2\.png: benchmark shapes has another picture here"):
        answers_figure.image_of(
            PublishedQuestion("2", "What is there?", benchmark.folder / "2.png"),
            {sha256(b"another").hexdigest()},
            "shapes",
        )


def test_mentions_that_are_not_those_that_were_counted_are_refused(benchmark):
    with pytest.raises(
        UserError,
        match=(
            r"scores\.json: it counts 5 mentions, 2 of them hallucinated; here there are 4 and"
            r" 2.*Delete it"
        ),
    ):
        benchmark.go(language="exact")


def test_hallucinated_words_are_bold_and_lines_end_before_the_column_does():
    text = BASE["1"] + " " + HOSTILE + "m" * 500 + "\n\nend"
    marks = [Mark(text.index("man"), text.index("man") + 3, HALLUCINATED)]
    assert measure("man", HALLUCINATED) > measure("man", "")
    lines = lay_out(text, marks, COLUMN, measure)
    assert all(line[-1].x + line[-1].width <= COLUMN + 1e-6 for line in lines)
    for line in lines:
        assert all(after.x >= before.x + before.width - 1e-6 for before, after in pairwise(line))
    assert [piece.text for line in lines for piece in line if piece.mark == 0] == ["man"]
    letters = re.sub(r"[\x00-\x20\x7f-\x9f]", "", text)
    assert "".join(piece.text for line in lines for piece in line) == letters
    assert lines[-1][0].text == "end"
    assert lay_out(" \n ", [], COLUMN, measure) == []


def test_a_mark_of_two_words_is_one_mark_also_over_the_end_of_a_line():
    lines = lay_out(
        "a hot dog", [Mark(2, 9, HALLUCINATED)], measure("a hot d", HALLUCINATED), measure
    )
    assert [[(piece.text, piece.mark) for piece in line] for line in lines] == [
        [("a", None), ("hot", 0)],
        [("dog", 0)],
    ]


def test_a_long_answer_is_cut_and_says_so_and_a_picture_keeps_its_shape():
    mentions = Mentions(
        (Mention("dog", False, (0, 3)), Mention("cat", True, None)), frozenset({"cat"})
    )
    remarks = remarks_on(mentions)
    assert remarks == ["1 of 2 mentions hallucinated", "1 named by the judge in other words"]
    assert marks_of(mentions) == [Mark(0, 3, HALLUCINATED)]
    text = "dog " * 2000
    hidden = len(lay_out(text, marks_of(mentions), COLUMN, measure)) - LINES
    answer = SheetAnswer(text, marks_of(mentions), remarks)
    block = lay_out_question(
        SheetQuestion("What?", Image.new("RGB", (300, 600)), ["cat"], [answer] * 2)
    )
    assert len(block.answers[0].lines) == LINES
    assert " ".join(block.answers[0].note) == (
        "1 of 2 mentions hallucinated; 1 named by the judge in other words; the last"
        f" {hidden} lines are not shown"
    )


def test_a_run_without_a_sheet_has_none_and_with_one_its_files_are_those_of_both_models(
    tmp_path,
):
    plan = Plan(Config.model_validate({}))
    assert table_rows.answers_files(plan, "scores.json") == []
    assert table_rows.answers_job(plan) is None
    assert not any("answers_figure" in path for path in tables_and_figures(plan))
    for name in ("questions.jsonl", "synonyms.txt"):
        (tmp_path / name).write_text("x")
    block = {
        "scorer": "chair",
        "questions": str(tmp_path / "questions.jsonl"),
        "reference": str(tmp_path / "synonyms.txt"),
    }
    values = {
        "evaluation": {"benchmarks": {"captions": block}},
        "figures": {"answers": {"benchmark": "captions", "experiment": "dpo"}},
        "pairs": {"sizes": [600]},
        "training": {"experiments": {"dpo": {"size": 600}}},
    }
    plan = Plan(Config.model_validate(values))
    assert table_rows.answers_files(plan, "scores.json") == [
        f"results/paper/evaluation/{model}/captions/scores.json" for model in ("base", "dpo")
    ]
    job = table_rows.answers_job(plan)
    assert job
    assert job.names == ("llava-1.5-7b-hf (base model)", "dpo (600 pairs)")
    assert (job.scorer, job.benchmark, job.experiment) == ("chair", "captions", "dpo")
    assert "results/paper/figures/answers_figure.svg" in tables_and_figures(plan)


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        (
            {"benchmark": "chairs", "experiment": "random-8"},
            "there is no 'chairs' in `evaluation.benchmarks`. Name one of object_halbench, or",
        ),
        (
            {"benchmark": "amber", "experiment": "random-8"},
            "the scorer of 'amber' counts no mentions of objects. Name one of object_halbench",
        ),
        (
            {"benchmark": "pope", "experiment": "random-8"},
            "the scorer of 'pope' counts no mentions of objects.",
        ),
        (
            {"benchmark": "object_halbench", "experiment": "demo"},
            "there is no 'demo' in `training.experiments` (random-8). Correct it",
        ),
        ({"benchmark": "object_halbench"}, "figures.answers.experiment: this key is missing"),
    ],
)
def test_a_sheet_of_what_is_not_there_is_refused_before_anything_runs(project, sheet, message):
    project.edit_config(lambda values: values["figures"].update(answers=sheet))
    done = project.snakemake("-n", check=False)
    assert done.returncode != 0
    assert message in re.sub(r"\s+", " ", done.stdout)
    assert "Traceback" not in done.stdout
