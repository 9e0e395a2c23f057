"""From the page to the run: a person rejects a pair in the browser, and compares pictures without
names; the next run honours both.
"""

import csv
import json
from pathlib import Path

import pytest

from browser import Watched, chromium, needs_browser
from conftest import Project, read_rows
from lib.data.rows import PairRow
from report_run import data_of

pytestmark = [pytest.mark.slow, needs_browser]


def pairs_of(project: Project) -> dict[str, PairRow]:
    root = project.folder / "results/random/pairs"
    return {
        name: row
        for path in sorted(root.glob("*/*.jsonl"))
        for name, row in read_rows(path, PairRow).items()
    }


def records(project: Project) -> dict[str, dict[str, object]]:
    """The records of all jobs by their file's name."""
    work = project.folder / "results/random/work"
    return {
        path.relative_to(work).as_posix(): told
        for path in sorted(work.rglob("*.json"))
        if "finished" in (told := json.loads(path.read_text()))
    }


def review(index: Path, folder: Path) -> str:
    """Rejects the first pair, says once which of two pictures is better, and downloads both files,
    as people do; returns the rejected prompt's id.
    """
    with chromium() as browser:
        watched = Watched(browser, index)
        page = watched.open("#gallery?outcome=pair")
        page.click(".card a >> nth=0")
        page.wait_for_selector("#review")
        page.keyboard.press("r")
        watched.go("overview", "#download")
        with page.expect_download() as download:
            page.click("#download")
        folder.mkdir()
        download.value.save_as(folder / "reviews.csv")
        watched.go("blind/pictures", "#question img")
        page.keyboard.press("1")
        page.wait_for_selector("text=1 of")
        with page.expect_download() as download:
            page.click("#download-verdicts")
        download.value.save_as(folder / "verdicts.csv")
        watched.close()
        assert watched.problems == []
    (row,) = csv.DictReader((folder / "reviews.csv").open(encoding="utf-8", newline=""))
    return row["prompt_id"]


def test_what_is_said_in_the_browser_counts_in_the_next_run_and_nothing_else_is_made(
    finished_copy: Project,
) -> None:
    project = finished_copy
    project.snakemake("report")
    index = project.folder / "results/random/report/index.html"
    before, jobs = pairs_of(project), records(project)
    name = review(index, project.folder / "reviews")
    project.edit_config(lambda values: values["pairs"].update(sizes=["all"]))
    project.edit_config(lambda values: values["training"].update(experiments={}))
    project.edit_config(lambda values: values["figures"].update(answers=None))

    table = "results/random/tables/image_judge_table.md"
    project.snakemake("pairs", "report", table)
    after = pairs_of(project)
    assert after[name]["no_pair"] == "rejected by reviewers"
    assert {other for other in after if after[other] != before[other]} == {name}
    ids = (project.folder / "results/random/dataset/all/prompt_ids.txt").read_text().split()
    assert name not in ids
    assert len(ids) == sum("pair" in row for row in after.values())
    card = (project.folder / "results/random/dataset/all/README.md").read_text()
    assert "People reviewed 1 pairs: 0 accepted, 1 rejected and left out" in card
    entries = {each["id"]: each for each in data_of(index, "prompts-000")}
    assert entries[name]["outcome"] == "rejected by reviewers"
    assert entries[name]["reviewed"] == "rejected"
    assert "people (unnamed) compared 1 of the" in (project.folder / table).read_text()
    again = {job for job, told in records(project).items() if told != jobs.get(job)}
    rules = {job.split("/")[0] for job in again}
    assert {job for job in again if job.startswith("build_pairs")} == {
        f"build_pairs/{after[name]['topic']}/{shard_in(project, name)}.json"
    }
    assert rules <= {
        "build_pairs",
        "check_pairs",
        "merge_pairs",
        "data_set_card",
        "list_data_sets",
        "image_judge_table",
        "report",
    }


def shard_in(project: Project, name: str) -> str:
    """The shard whose file has a prompt."""
    topic = name.rpartition("-")[0]
    folder = project.folder / "results/random/pairs" / topic
    return next(path.stem for path in folder.glob("*.jsonl") if name in path.read_text())


def test_a_wrong_file_ends_the_run_before_it_starts_in_one_message(finished_copy: Project) -> None:
    folder = finished_copy.folder / "reviews"
    folder.mkdir()
    (folder / "notes.csv").write_text("what,ever\n1,2\n")
    done = finished_copy.snakemake("-n", check=False)
    assert done.returncode
    assert "reviews/notes.csv: is no file of reviews" in done.stdout
    assert "Traceback" not in done.stdout
