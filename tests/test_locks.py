"""The locks of the environments: they hold their pins, name no host, and `make envs-check` tells a
conflict and a stale lock.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from test_environments import COMMANDS, SCRIPT_ENVIRONMENTS

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENTS = sorted(
    path.stem for path in (REPOSITORY / "envs").glob("*.yaml") if path.stem != "site"
)
NAMED_BY_RULES = sorted(
    {
        name.removesuffix(".yaml")
        for script, names in SCRIPT_ENVIRONMENTS.items()
        for name in names
        if script not in COMMANDS
    }
)


def versions(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+", line) for line in lines), (
        f"{path.name} holds more than name==version"
    )
    return {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower(): line.split("==")[1] for line in lines
    }


def pins(name):
    dependencies = yaml.safe_load((REPOSITORY / f"envs/{name}.yaml").read_text())["dependencies"]
    return {
        re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower(): pin.split("==")[1]
        for pin in dependencies[-1]["pip"]
    }


def check(folder):
    command = [sys.executable, REPOSITORY / "envs/locks.py", "--check", "--folder", folder]
    return subprocess.run(command, text=True, capture_output=True, check=False)


@pytest.fixture
def folder(tmp_path):
    """A folder of environments with one small environment and its lock."""
    write(tmp_path, "httpx==0.28.1")
    subprocess.run(
        [sys.executable, REPOSITORY / "envs/locks.py", "--folder", tmp_path],
        check=True,
        capture_output=True,
    )
    return tmp_path


def write(folder, *wanted):
    text = yaml.safe_dump(
        {"channels": ["conda-forge"], "dependencies": ["python=3.11.7", {"pip": list(wanted)}]}
    )
    (folder / "small.yaml").write_text(text)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_has_a_lock_that_holds_its_pins_and_no_host(name):
    assert pins(name).items() <= versions(REPOSITORY / f"envs/{name}.lock").items()


def test_the_lock_for_gpu_machines_holds_all_environments_in_the_models_versions():
    everything = versions(REPOSITORY / "envs/gpu.lock")
    for name in set(ENVIRONMENTS) - {"image-reward"}:
        assert pins(name).items() <= everything.items()
    assert everything["numpy"] == versions(REPOSITORY / "envs/cpu.lock")["numpy"]


def test_a_lock_that_fits_passes_the_check(folder):
    done = check(folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_pins_that_contradict_each_other_end_the_check_with_their_names(folder):
    write(folder, "httpx==0.28.1", "httpcore==0.18.0")
    done = check(folder)
    assert done.returncode == 1
    assert "envs/small: the pins do not resolve together" in done.stderr
    assert "httpcore" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lock_that_does_not_fit_its_yaml_any_more_ends_the_check(folder):
    write(folder, "httpx==0.27.2")
    done = check(folder)
    assert done.returncode == 1
    assert "envs/small.lock does not fit its yaml any more" in done.stderr
    assert "-httpx==0.28.1" in done.stderr
    assert "+httpx==0.27.2" in done.stderr
    assert "make envs-lock" in done.stderr


def test_a_package_missing_from_a_lock_ends_the_check(folder):
    lock = folder / "small.lock"
    lock.write_text(
        "".join(
            line
            for line in lock.read_text().splitlines(keepends=True)
            if not line.startswith("h11==")
        )
    )
    done = check(folder)
    assert done.returncode == 1
    assert "+h11==" in done.stderr


@pytest.mark.parametrize("name", NAMED_BY_RULES)
def test_a_conda_environment_installs_its_lock_and_refuses_an_edited_one(name, tmp_path):
    # Snakemake runs <name>.post-deploy.sh in a new conda environment. Here a pip that only says
    # what it was asked stands on PATH.
    shutil.copytree(REPOSITORY / "envs", tmp_path / "envs")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)

    def deploy():
        return subprocess.run(
            ["/bin/sh", f"envs/{name}.post-deploy.sh"],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
            env={"PATH": f"{python.parent}:/usr/bin:/bin"},
        )

    done = deploy()
    assert (
        done.stdout.split()
        == f"-m pip install --quiet --no-deps --requirement envs/{name}.lock".split()
    ), done.stderr
    with open(tmp_path / f"envs/{name}.lock", "a") as stream:
        stream.write("left-pad==1.0\n")
    done = deploy()
    assert done.returncode == 1
    assert "pip" not in done.stdout
    assert f"envs/{name}.lock is missing or has been edited" in done.stderr
