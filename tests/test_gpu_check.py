"""`make gpu-check` with tiny models on the CPU: every section runs, and says what it found."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY

pytestmark = pytest.mark.slow
SECTIONS = ("pictures", "training", "answers", "rewards", "scorers")


def check(*arguments: str) -> str:
    """What `make gpu-check` prints."""
    variables = [f"PYTHON={sys.executable}", f"ARGS={' '.join(arguments)}"]
    done = subprocess.run(
        ["make", "--no-print-directory", "gpu-check", *variables],
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu-check")
    check("--device", "cpu", "--output", str(folder))
    return folder


def section(output: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / f"{name}.json").read_text())
    return content


def row(output: Path, name: str, what: str) -> dict[str, Any]:
    rows = section(output, name)["rows"]
    return next(row for row in rows if row["what"] == what)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_measures_all_that_it_names_and_is_marked_as_a_cpus(
    output: Path, name: str
) -> None:
    content = section(output, name)
    assert content["complete"], content
    assert content["device"] == "cpu"
    assert not [row for row in content["rows"] if "failed" in row]


def test_pictures_are_no_blanks_and_the_same_bytes_twice(output: Path) -> None:
    assert row(output, "pictures", "eager, the same again")["same_bytes"]
    assert row(output, "pictures", "compiled, the same again")["same_bytes"]
    assert row(output, "pictures", "eager, the same again")["pixels_deviate_by"] > 1


def test_all_blocks_of_the_denoiser_share_the_graphs_of_two(output: Path) -> None:
    compiled = row(output, "pictures", "compiled blocks, cold")
    assert compiled["graphs"] == 2  # the last block is of another shape
    assert compiled["graph_breaks"] == 0


def test_a_second_training_and_a_resumed_one_end_with_the_same_bytes(output: Path) -> None:
    for setting in ("as the workflow sets it", "deterministic algorithms alone"):
        for which in ("second run", "resumed run"):
            assert row(output, "training", f"{setting}: {which}")["same_bytes_as_first"]


def test_sequences_have_the_tokens_that_their_rows_name(output: Path) -> None:
    for tokens in (40, 60, 80):
        measured = row(output, "training", f"{tokens} tokens, with recomputation, reference pass")
        assert measured["tokens_a_sequence"] == tokens


def test_answers_of_one_model_are_the_same_ids_in_a_batch(output: Path) -> None:
    assert row(output, "answers", "32 at once, greedy")["same_ids_as_alone"]


def test_a_cpu_writes_no_rates_and_its_paragraph_says_that_it_is_one(output: Path) -> None:
    assert not (output / "rates.yaml").exists()
    assert "says nothing of a GPU" in (output / "gpu.md").read_text()


def test_rates_of_a_gpu_are_read_by_the_plan_and_say_which_card(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the figures had come from a GPU."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    from gpu import summary

    from lib.planning.rates import Rate

    contents = {name: section(output, name) | {"device": "cuda"} for name in SECTIONS}
    for content in contents.values():
        content["card"] = "A Card"
        for each in content["rows"]:
            each["what"] = each["what"].replace("40 tokens", "760 tokens")
    summary.write_rates(tmp_path, contents)
    stages = summary.rates(contents)["stages"]
    assert (tmp_path / "rates.yaml").is_file()
    assert set(stages) == set(summary.FIGURES)
    for rate in stages.values():
        assert Rate.model_validate(rate).measured.startswith("A Card, gpu-check, ")


def test_what_is_measured_is_not_measured_again(output: Path) -> None:
    before = (output / "rewards.json").read_bytes()
    printed = check("--device", "cpu", "--output", str(output), "--only", "rewards")
    assert "rewards: 4 at once" not in printed
    assert (output / "rewards.json").read_bytes() == before


def test_a_section_without_time_is_left_to_the_next_call(tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--output", str(tmp_path), "--only", "rewards")
    assert "no time left" in check(*arguments, "--budget", "1")
    assert not section(tmp_path, "rewards")["complete"]
    check(*arguments)
    assert section(tmp_path, "rewards")["complete"]


def test_wheels_are_listed_in_the_versions_of_the_lock() -> None:
    listed = check("--wheels").split("\n")
    lock = (REPOSITORY / "envs" / "gpu.lock").read_text()
    wheels = [line for line in listed if "==" in line]
    assert len(wheels) > 5
    assert all(f"\n{wheel} " in lock for wheel in wheels)
