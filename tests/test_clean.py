"""`make clean`: it knows all that make and the tests leave behind, and what is not its own."""

import subprocess
from pathlib import Path

from conftest import REPOSITORY

#: What git ignores and `make clean` leaves: the user's results and data, and what is of all runs.
KEPT = ("/results/", "/data/", ".snakemake/", "/.venv", "/.venv-image-reward/", "/.whl/")


def make(folder: Path, target: str) -> None:
    subprocess.run(
        ["make", "--file", REPOSITORY / "Makefile", target],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def fill(folder: Path) -> dict[str, Path]:
    """A file in each folder that git ignores, by its line in .gitignore."""
    lines = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").split()
    files = {}
    for line in lines:
        place = "scripts/lib/__pycache__" if line == "__pycache__/" else line.strip("/")
        files[line] = folder / place / "file"
        files[line].parent.mkdir(parents=True, exist_ok=True)
        files[line].touch()
    for name in ("benchmarks", "docs", "envs", "tests"):
        (folder / name).mkdir()
    return files


def test_make_clean_removes_all_that_was_made_and_no_user_s_results(tmp_path: Path) -> None:
    files = fill(tmp_path)
    made = [tmp_path / "results" / run / "tables" for run in ("demo", "random", "paper", "claims")]
    for folder in made:
        folder.mkdir(parents=True)
    make(tmp_path, "clean")
    assert {line for line, file in files.items() if file.exists()} == set(KEPT)
    assert [folder.exists() for folder in made] == [False, False, True, True]
    make(tmp_path, "clean-all")
    assert {line for line, file in files.items() if file.exists()} == {
        "/results/",
        "/data/",
        "/.whl/",
    }
