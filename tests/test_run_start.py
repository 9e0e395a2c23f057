"""A run is what it was when it started, and knows it from its own files."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Project, make_small
from lib.errors import UserError
from lib.head.run_start import VARIABLE, RunStart
from lib.jobs.job import REUSE_FROM

IMAGES = [f"results/random/images/art/{shard}.jsonl" for shard in ("00", "01")]
#: The beginning of the clone's job: it waits until the test has edited what it likes.
WAITING = """
    import time
    Path("begun").touch()
    while not Path("edited").exists():
        time.sleep(0.05)
"""
MAIN = "def main(snakemake: Any) -> None:\n"


def edit_scale(project: Project, scale: float) -> None:
    """Another guidance scale in place of the second."""

    def change(values: dict[str, Any]) -> None:
        values["images"]["guidance_scales"] = [5.0, scale]

    project.edit_config(change)


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits while the process lives."""
    while not condition():
        assert process.poll() is None, process.communicate()[0][-4000:]
        time.sleep(0.05)


def prompts_file(project: Project) -> Path:
    """The prompts of the topic."""
    return project.folder / "demo/random_prompts/art.txt"


@pytest.fixture(scope="module")
def edited(new_project: Callable[..., Project]) -> Project:
    """A clone whose guidance scale and prompts were edited while its images were made."""
    project = new_project("edited")
    make_small(project)
    script = project.folder / "scripts/generate_images.py"
    script.write_text(script.read_text().replace(MAIN, MAIN + WAITING))
    process = subprocess.Popen(
        project.command("--", *IMAGES),
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until((project.folder / "begun").exists, process)
    before = prompts_file(project).read_text()
    edit_scale(project, 7.0)
    prompts_file(project).write_text("One more cat\n" + before.replace("a", "the", 1))
    (project.folder / "edited").touch()
    output = process.communicate()[0]
    assert process.returncode == 0, output[-4000:]
    edit_scale(project, 9.0)
    prompts_file(project).write_text(before)
    return project


def plans_images(project: Project) -> bool:
    """Whether a dry run would make the images again; otherwise it has nothing to do."""
    output = project.snakemake("-n", "--", *IMAGES).stdout
    plans = "\ngenerate_images " in output
    assert plans != ("Nothing to be done" in output), output[-3000:]
    assert "missing provenance" not in output
    return plans


@pytest.mark.slow
def test_what_is_edited_while_a_run_goes_on_is_not_in_its_results(
    edited: Project, finished: Project
) -> None:
    for file in IMAGES:
        assert (edited.folder / file).read_bytes() == (finished.folder / file).read_bytes()
    assert not plans_images(edited)


@pytest.mark.slow
def test_without_snakemakes_memory_a_run_still_knows_what_its_files_were_made_from(
    edited: Project,
) -> None:
    shutil.rmtree(edited.folder / ".snakemake")
    assert not plans_images(edited)
    edit_scale(edited, 7.0)
    assert plans_images(edited)
    edit_scale(edited, 9.0)
    assert not plans_images(edited)
    before = prompts_file(edited).read_text()
    prompts_file(edited).write_text(before + "One more cat\n")
    assert plans_images(edited)
    prompts_file(edited).write_text(before)


def test_a_job_without_its_runs_environment_is_refused_with_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError, match=rf"{VARIABLE} is missing.*--export=ALL"):
        RunStart.of_this_job()


def test_what_a_run_began_with_is_told_to_its_jobs_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"topics": ["art"], "scorers": {"b": 1, "a": 2}}
    start = RunStart(config, {"art": ["a cat 😀"]}, {"art-1": "What?"})
    monkeypatch.setenv(VARIABLE, "")
    start.tell_jobs(tmp_path)
    told = RunStart.of_this_job()
    assert told == start
    assert list(told.config["scorers"]) == ["b", "a"]
    for file in (tmp_path / "work/run_start").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="file system that all nodes share"):
        RunStart.of_this_job()


def test_each_of_several_modules_in_one_workflow_tells_its_own_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.head.run_start._reused", {})
    for name in (f"{VARIABLE}_one", f"{VARIABLE}_two_inner", REUSE_FROM):
        monkeypatch.setenv(name, "")
    one, two = (RunStart({"run": run}, {"art": ["a cat"]}, {}) for run in ("one", "two"))
    earlier, shared = tmp_path / "earlier", tmp_path / "shared"
    one.tell_jobs(tmp_path / "one", [earlier, shared], "one")
    two.tell_jobs(tmp_path / "two", [shared], "two.inner")
    assert RunStart.of_this_job("one") == one
    assert RunStart.of_this_job("two.inner") == two
    assert os.environ[REUSE_FROM].split(os.pathsep) == [str(earlier), str(shared)]
    with pytest.raises(UserError, match=f"{VARIABLE}_three is missing"):
        RunStart.of_this_job("three")
