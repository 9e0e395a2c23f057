"""`make gpu-check` with tiny models on the CPU: every section runs, and says what it found."""

import json
import math
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


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))


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
    for which in ("second run", "resumed run"):
        assert row(output, "training", f"as the workflow sets it: {which}")["same_bytes_as_first"]


def test_sequences_have_the_tokens_that_their_rows_name(output: Path) -> None:
    for kind in (
        "without recomputation, reference pass",
        "without recomputation, reference cached",
    ):
        assert row(output, "training", f"80 tokens, {kind}")["tokens_a_sequence"] == 80


def test_an_update_without_a_reference_tells_no_loss(output: Path) -> None:
    cached = "80 tokens, without recomputation, reference cached"
    assert "loss" not in row(output, "training", cached)
    assert "loss" in row(output, "training", "80 tokens, without recomputation, reference pass")


def test_answers_of_one_model_are_the_same_ids_in_a_batch(output: Path) -> None:
    assert row(output, "answers", "32 at once, greedy")["same_ids_as_alone"]


def test_a_cpu_writes_no_rates_and_its_paragraph_says_that_it_is_one(output: Path) -> None:
    assert not (output / "rates.yaml").exists()
    assert "says nothing of a GPU" in (output / "gpu.md").read_text()


def test_rates_of_a_gpu_are_a_whole_file_for_the_plan_and_say_which_card(
    output: Path, tmp_path: Path
) -> None:
    """As if the figures had come from a GPU."""
    from gpu import summary

    from lib.planning.rates import read_rates

    contents = {
        name: section(output, name) | {"device": "cuda", "card": "A Card"} for name in SECTIONS
    }
    for each in contents["training"]["rows"]:
        each["what"] = each["what"].replace("80 tokens", "760 tokens")
    of_vllm = next(each for each in contents["answers"]["rows"] if "not_measured" in each)
    of_vllm["seconds_an_answer"] = 0.25
    summary.write_rates(tmp_path, contents)
    rules = {name.split("/")[0] for name in summary.rates(contents)["stages"]}
    shipped = read_rates(summary.RATES, rules)
    rates = read_rates(tmp_path / "rates.yaml", rules)
    measured = {name for name, rate in rates.stages.items() if rate != shipped.stages[name]}
    assert measured == set(summary.FIGURES)
    for name in measured:
        assert (rates.stages[name].measured or "").startswith("A Card, gpu-check, ")
    assert rates.prices == shipped.prices


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    from gpu.report import Report

    for row_of_call in ({"seconds": 1.0}, {"seconds": 2.0}):  # the second call finds the first's
        report = Report(tmp_path / "rewards.json", "cpu", deadline=math.inf)
        found = report.measure("4 at once", row_of_call.copy)
        assert found is not None
        assert found["seconds"] == 1.0


def test_what_failed_is_a_row_and_measured_anew_by_the_next_call(tmp_path: Path) -> None:
    from gpu.report import Report

    def fails() -> dict[str, Any]:
        raise ValueError("no such kernel")

    first = Report(tmp_path / "rewards.json", "cpu", deadline=math.inf)
    assert first.measure("4 at once", fails) is None
    assert row(tmp_path, "rewards", "4 at once")["failed"] == "ValueError: no such kernel"
    second = Report(tmp_path / "rewards.json", "cpu", deadline=math.inf)
    assert second.measure("4 at once", lambda: {"seconds": 1.0}) is not None


def test_a_section_that_outlasts_its_time_is_ended(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu import __main__ as check

    waits = [sys.executable, "-c", "import sys, time; sys.stdin.readline(); time.sleep(600)"]
    worker = subprocess.Popen(waits, stdin=subprocess.PIPE, text=True)
    monkeypatch.setattr(check, "GRACE", 1)
    check.let_go(worker, 1.0, "pictures")
    assert worker.returncode
    assert "pictures took 1 s, ended there" in capfd.readouterr().out


def test_nothing_is_begun_after_the_deadline(tmp_path: Path) -> None:
    from gpu.report import OutOfTimeError, Report

    report = Report(tmp_path / "rewards.json", "cpu", deadline=0)
    with pytest.raises(OutOfTimeError, match="4 at once"):
        report.measure("4 at once", dict)


def test_a_row_is_told_in_words_and_without_long_lists() -> None:
    from gpu.report import told

    row = {"same_bytes": False, "seconds": 1.23456, "scores": [0.5], "peak_gib": 3.0, "rate": None}
    assert told(row) == "same bytes: no, seconds: 1.235"


def test_wheels_are_listed_in_the_versions_of_the_lock() -> None:
    from gpu.wheels import wheels

    lock = (REPOSITORY / "envs" / "gpu.lock").read_text()
    listed = wheels()
    assert len(listed) > 5
    assert all(f"\n{wheel} " in lock for wheel in listed)
