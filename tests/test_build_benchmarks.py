"""The random run's tiny benchmarks: true answers, and what lmms-eval's own POPE and MME make of
them.
"""

import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pytest
from PIL import Image

import build_benchmarks
from tiny.benchmarks import mme, pope, scenes
from tiny.benchmarks.files import parquet_bytes
from tiny.benchmarks.registry import BENCHMARKS, FOLDERS


def lmms_eval_task(name: str) -> ModuleType:
    """The functions of lmms-eval's task, without lmms-eval's long import."""
    package = importlib.util.find_spec("lmms_eval")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "tasks" / name / "utils.py"
    spec = importlib.util.spec_from_file_location(f"{name}_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(folder: Path, name: str, cache: Path) -> Any:
    """A benchmark as lmms-eval reads it."""
    return datasets.load_dataset(
        "parquet", data_files={"test": str(folder / f"{name}.parquet")}, cache_dir=str(cache)
    )["test"]


def metrics(task: ModuleType, rows: Any, answers: list[str]) -> dict[str, list[Any]]:
    """The task's entries for each metric when the model gives these answers."""
    entries: dict[str, list[Any]] = {}
    for row, answer in zip(rows, answers, strict=True):
        for metric, entry in task.__dict__[
            f"{task.__name__.split('_', maxsplit=1)[0]}_process_results"
        ](row, [answer]).items():
            entries.setdefault(metric, []).append(entry)
    return entries


def is_there(scene: scenes.Scene, thing: str) -> bool:
    """Whether a scene has a "red circle" or a "circle"."""
    *colour, kind = thing.split()
    return any(shape.kind == kind and colour in ([], [shape.colour]) for shape in scene.shapes)


def test_pope_has_its_columns_and_four_questions_a_category(
    demo_benchmarks: Path, tmp_path: Path
) -> None:
    rows = read(demo_benchmarks, "pope", tmp_path)
    assert rows.column_names == [
        "id",
        "question_id",
        "question",
        "answer",
        "image_source",
        "image",
        "category",
    ]
    for category in ("random", "popular", "adversarial"):
        assert [row["answer"] for row in rows if row["category"] == category] == [
            "yes",
            "no",
            "yes",
            "no",
        ]
    assert all(row["image"].size == (scenes.SIDE, scenes.SIDE) for row in rows)


def test_popes_answers_are_true() -> None:
    for entries in pope.SCENES.values():
        for scene, present, absent in entries:
            assert is_there(scene, present)
            assert not is_there(scene, absent)


def test_popes_popular_object_is_the_most_frequent_shape() -> None:
    kinds = [
        shape.kind
        for entries in pope.SCENES.values()
        for scene, _, _ in entries
        for shape in scene.shapes
    ]
    asked = {absent for _, _, absent in pope.SCENES["popular"]}
    assert asked == {max(set(kinds), key=kinds.count)}


def test_a_shape_is_drawn_in_its_colour_at_its_place() -> None:
    for entries in pope.SCENES.values():
        for scene, _, _ in entries:
            image = Image.open(io.BytesIO(scenes.draw(scene)))
            assert image.getpixel((0, 0)) == scenes.BACKGROUNDS[scene.background]
            for shape in scene.shapes:
                assert image.getpixel(scenes.PLACES[shape.place]) == scenes.COLOURS[shape.colour]


def test_lmms_eval_gives_right_pope_answers_full_marks(
    demo_benchmarks: Path, tmp_path: Path
) -> None:
    task = lmms_eval_task("pope")
    rows = read(demo_benchmarks, "pope", tmp_path)
    entries = metrics(task, rows, [row["answer"].title() for row in rows])
    assert task.pope_aggregate_accuracy(entries["pope_accuracy"]) == 1.0
    assert task.pope_aggregate_f1_score(entries["pope_f1_score"]) == 1.0
    entries = metrics(task, rows, ["yes"] * len(rows))
    assert task.pope_aggregate_accuracy(entries["pope_accuracy"]) == 0.5
    assert task.pope_doc_to_visual(rows[0])[0].mode == "RGB"


def test_mme_has_its_columns_and_two_questions_an_image(
    demo_benchmarks: Path, tmp_path: Path
) -> None:
    rows = read(demo_benchmarks, "mme", tmp_path)
    assert rows.column_names == ["question_id", "image", "question", "answer", "category"]
    assert all(row["question"].endswith(" Please answer yes or no.") for row in rows)
    for first, second in zip(
        rows.select(range(0, len(rows), 2)), rows.select(range(1, len(rows), 2)), strict=True
    ):
        assert first["question_id"] == second["question_id"]
        assert (first["answer"], second["answer"]) == ("Yes", "No")


def test_mmes_sum_is_right() -> None:
    scene, yes, no = mme.SCENES["numerical_calculation"]
    total = sum(int(number) for number in re.findall(r"\d+", scene.text))
    assert str(total) in yes
    assert str(total) not in no


def test_lmms_eval_gives_right_mme_answers_full_marks_in_both_parts(
    demo_benchmarks: Path, tmp_path: Path
) -> None:
    task = lmms_eval_task("mme")
    rows = read(demo_benchmarks, "mme", tmp_path)
    entries = metrics(task, rows, [row["answer"] for row in rows])
    # 200 a category: accuracy, and accuracy of both answers, in percent.
    assert task.mme_aggregate_results(entries["mme_perception_score"]) == 4 * 200
    assert task.mme_aggregate_results(entries["mme_cognition_score"]) == 2 * 200


def test_two_builds_give_the_same_bytes_and_the_second_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert build_benchmarks.main(["--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("there") == len(BENCHMARKS) + len(FOLDERS)
    for name, (make_rows, columns) in BENCHMARKS.items():
        assert (tmp_path / f"{name}.parquet").read_bytes() == parquet_bytes(make_rows(), columns)


def test_a_build_repairs_a_damaged_file(tmp_path: Path) -> None:
    build_benchmarks.main(["--output", str(tmp_path)])
    whole = (tmp_path / "pope.parquet").read_bytes()
    (tmp_path / "pope.parquet").write_bytes(whole[:100])
    build_benchmarks.main(["--output", str(tmp_path)])
    assert (tmp_path / "pope.parquet").read_bytes() == whole
