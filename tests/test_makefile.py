"""What make runs and installs: in the environment that is active, and of the lock that `.venv` was
made of. The Pythons here are scripts that write down what they are asked for.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
#: Stands for a Python 3.11, and for pip in the environments that it makes.
PYTHON = """#!/bin/bash
case "$1 $2" in
"-m venv")
    test "$3" = --clear && rm -rf "${@: -1}"
    mkdir -p "${@: -1}/bin" "${@: -1}/lib/python3.11/site-packages"
    cp "$0" "${@: -1}/bin/python"
    cp "$0" "${@: -1}/bin/pip"
    ;;
"install "*) echo "$*" >>pip.log; test ! -e no-network || exit 1 ;;
"-c "*) test "${2/purelib}" = "$2" || echo .venv/lib/python3.11/site-packages ;;
esac
"""


class Clone:
    """A folder with the project's Makefile and locks, and a Python on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        shutil.copytree(REPOSITORY / "envs", self.folder / "envs")
        shutil.copytree(REPOSITORY / "rules", self.folder / "rules")
        shutil.copy2(REPOSITORY / "Makefile", self.folder)
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.write_program(self.programs / "python3", PYTHON)
        self.path = [self.programs, Path("/usr/bin"), Path("/bin")]

    def write_program(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def activate(self, folder: Path, python: str = "exit 0") -> None:
        """Puts an environment with a Snakemake in front of the PATH."""
        for name in ("snakemake", "python"):
            self.write_program(folder / "bin" / name, f"#!/bin/bash\n{python}\n")
        self.path.insert(0, folder / "bin")

    def make(self, *words: str, check: bool = True) -> str:
        """Runs make; returns all that it printed."""
        done = subprocess.run(
            ["make", *words],
            cwd=self.folder,
            env={"PATH": os.pathsep.join(map(str, self.path)), "HOME": str(self.folder)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def installed(self) -> list[str]:
        """The locks that pip was asked to install, in turn, but for its own."""
        log = self.folder / "pip.log"
        lines = log.read_text().splitlines() if log.exists() else []
        locks = [line.split("-r ")[1] for line in lines if "-r " in line]
        return [lock for lock in locks if lock != "envs/pip.lock"]

    def change(self, lock: str) -> None:
        """A new version of a lock comes with `git pull`."""
        path = self.folder / lock
        later = (self.folder / ".venv/installed").stat().st_mtime + 10
        os.utime(path, (later, later))


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


@pytest.mark.parametrize("goal", ["plan", "fetch", "verify", "resume", "tables", "jobs"])
def test_what_plans_submits_and_reads_runs_in_the_active_environment_and_installs_nothing(
    clone, tmp_path, goal
):
    active = tmp_path / "an active environment"
    clone.activate(active)
    shown = clone.make("-n", goal)
    assert "install" not in shown
    assert ".venv" not in shown
    assert goal == "jobs" or f'"{active}/bin/' in shown


def test_an_active_environment_that_cannot_run_the_workflow_is_passed_over_for_venv(
    clone, tmp_path
):
    clone.activate(tmp_path / "base", python="exit 1")
    assert '".venv/bin/python" scripts/plan.py' in clone.make("-n", "plan")


def test_an_environment_of_one_s_own_in_venv_is_used_as_it_is(clone):
    clone.activate(clone.folder / ".venv")
    shown = clone.make("-n", "plan")
    assert "install" not in shown
    assert ".venv/bin/python" in shown


@pytest.mark.parametrize("lock", ["envs/gpu.lock", "envs/head.lock", "envs/cpu.lock"])
def test_when_its_lock_changed_venv_is_brought_up_to_the_lock_that_it_was_made_of(clone, lock):
    clone.make("install", f"LOCK={lock}")
    assert clone.installed() == [lock]
    shown = clone.make("-n", "resume")
    assert "install" not in shown
    for changed in ("envs/cpu.lock", "envs/gpu.lock", "envs/head.lock"):
        clone.change(changed)
    clone.make("install")
    assert clone.installed() == [lock, lock]
    assert "--clear" not in clone.make("-n", "install")


@pytest.mark.parametrize(
    ("torch", "lock"),
    [
        ("torch-2.13.0+cpu.dist-info", "envs/cpu.lock"),
        ("torch-2.13.0.dist-info", "envs/gpu.lock"),
        ("torch-2.13.0+cu130.dist-info", "envs/gpu.lock"),
        (None, "envs/head.lock"),
    ],
)
def test_a_venv_from_before_its_lock_was_remembered_is_known_by_its_torch(clone, torch, lock):
    packages = clone.folder / ".venv/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    if torch:
        (packages / torch).mkdir()
    (clone.folder / ".venv/installed").touch()
    clone.change(lock)
    clone.make("install")
    assert clone.installed() == [lock]


def test_another_lock_that_is_asked_for_by_name_makes_venv_anew(clone):
    clone.make("install")
    left = clone.folder / ".venv/lib/python3.11/site-packages/of-the-cpu-lock"
    left.touch()
    clone.make("install", "LOCK=envs/gpu.lock")
    assert clone.installed() == ["envs/cpu.lock", "envs/gpu.lock"]
    assert not left.exists()
    clone.make("install", "LOCK=envs/gpu.lock")
    clone.make("install")
    assert clone.installed() == ["envs/cpu.lock", "envs/gpu.lock"]


def test_an_installation_that_was_broken_off_goes_on_with_the_same_lock(clone):
    (clone.folder / "no-network").touch()
    assert "Error" in clone.make("install", "LOCK=envs/gpu.lock", check=False)
    (clone.folder / "no-network").unlink()
    clone.make("install")
    assert set(clone.installed()) == {"envs/gpu.lock"}
