"""The locks of the environments: they hold their pins, name no host, and `make envs-check` tells a
conflict and a stale lock.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from test_environments import COMMANDS, SCRIPT_ENVIRONMENTS

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENTS = sorted(
    path.stem for path in (REPOSITORY / "envs").glob("*.yaml") if path.stem != "site"
)
LOCKS = [*sorted((REPOSITORY / "envs").glob("*.lock")), REPOSITORY / "envs/image-reward.txt"]
FILES_WITH_COMMANDS = ("envs/Dockerfile", "envs/apptainer.def", "docs/environments.md")
NAMED_BY_RULES = sorted(
    {
        name.removesuffix(".yaml")
        for script, names in SCRIPT_ENVIRONMENTS.items()
        for name in names
        if script not in COMMANDS
    }
)


#: Packages that have no wheels for the index's own users either: pip builds them from their source.
WITHOUT_WHEELS = {
    "antlr4-python3-runtime",
    "connection-pool",
    "deepspeed",
    "fairscale",
    "jsonpath-rw",
    "openai-clip",
    "transformers-stream-generator",
    "zss",
}
LINE = re.compile(r"([A-Za-z0-9._-]+)==([\w.+!]+)((?: --hash=sha256:[0-9a-f]{64})+)")


def lines_of(path):
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def versions(path):
    lines = [line for line in lines_of(path) if not line.startswith("--")]
    found = [match for line in lines if (match := LINE.fullmatch(line))]
    assert len(found) == len(lines), f"{path.name} holds more than name==version and hashes"
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found}


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
    assert "-httpx==0.28.1 --hash=sha256:" in done.stderr
    assert "+httpx==0.27.2 --hash=sha256:" in done.stderr
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


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_pip_check_every_file_and_build_nothing_but_what_has_no_wheel(path):
    assert versions(path)
    options = [line for line in lines_of(path) if line.startswith("--")]
    built = options.pop().removeprefix("--no-binary ").split(",") if len(options) > 2 else []
    assert options == ["--require-hashes", "--only-binary :all:"]
    assert set(built) == WITHOUT_WHEELS & versions(path).keys()


def test_every_installing_command_has_hashes_checked():
    commands = [
        line
        for name in ("Makefile", *FILES_WITH_COMMANDS)
        for line in (REPOSITORY / name).read_text().splitlines()
        if re.search(r"\bpip install\b.* -r", line)
    ]
    assert len(commands) > 5
    assert not [line for line in commands if "--require-hashes" not in line]


def test_an_index_that_has_another_file_of_a_package_is_not_believed(tmp_path):
    """A file of the same name and version on a further index, as PyTorch's CPU index is one."""
    wheel = tmp_path / "six-1.17.0-py2.py3-none-any.whl"
    information = {
        "METADATA": "Metadata-Version: 2.1\nName: six\nVersion: 1.17.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("six.py", "")
        for name, text in information.items():
            archive.writestr(f"six-1.17.0.dist-info/{name}", text)
    lock = tmp_path / "six.lock"
    [line] = [
        line for line in lines_of(REPOSITORY / "envs/cpu.lock") if line.startswith("six==1.17.0 ")
    ]
    lock.write_text(f"--require-hashes\n{line}\n")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", tmp_path]
    done = subprocess.run(
        [*command, "--no-deps", "--target", tmp_path / "site", "-r", lock],
        text=True,
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1"},
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "site/six.py").exists()


def test_a_lock_keeps_its_hashes_when_the_index_gets_further_files(folder):
    lock = folder / "small.lock"
    text = lock.read_text()
    several = next(line for line in text.splitlines() if line.startswith("anyio=="))
    assert several.count("--hash=") >= 1
    lock.write_text(text.replace(several, several.rpartition(" --hash=")[0] or several))
    assert check(folder).returncode == (several.count("--hash=") == 1)
    lock.write_text(re.sub(r"(anyio==\S+ --hash=sha256:)[0-9a-f]{64}", r"\g<1>" + "0" * 64, text))
    done = check(folder)
    assert done.returncode == 1
    assert "-anyio==" in done.stderr


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
    command = "-m pip install --quiet --no-deps --require-hashes --requirement"
    assert done.stdout.split() == [*command.split(), f"envs/{name}.lock"], done.stderr
    with open(tmp_path / f"envs/{name}.lock", "a") as stream:
        stream.write("left-pad==1.0\n")
    done = deploy()
    assert done.returncode == 1
    assert "pip" not in done.stdout
    assert f"envs/{name}.lock is missing or has been edited" in done.stderr
