"""What the tests share: the random run's checkpoints, copies of the project to work in, and the
commands that users type.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock

from lib.data.shards import Row, is_missing, read_shard
from shown import Shown
from tiny.checkpoints import build_checkpoint, hold_lock
from tiny.registry import ON_DEMAND

REPOSITORY = Path(__file__).resolve().parent.parent
#: Released answers with known scores, and a published sample, which are no part of the project.
GOLDEN = Path(os.environ.get("GOLDEN_DIR") or REPOSITORY.parent / "shared/golden")
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"no golden data at {GOLDEN} (GOLDEN_DIR names another place)"
)
#: What a user's clone has; the built checkpoints are linked in.
PROJECT = (
    "Snakefile",
    "config.yaml",
    "pilot.yaml",
    "released.yaml",
    "rules",
    "scripts",
    "envs",
    "profiles",
    "prompts",
    "demo",
    "published",
    "slurm",
    "Makefile",
)

#: The files whose tests take longest, which are begun first, so that no core is idle at the end.
LONGEST = (
    "test_killed.py",
    "test_train_dpo.py",
    "test_incremental.py",
    "test_bad_input.py",
    "test_other_cast.py",
    "test_generate_responses.py",
    "test_write_instructions.py",
    "test_plan_command.py",
    "test_answer_benchmark.py",
    "test_rebuilt_tables.py",
    "test_software.py",
    "test_report_page.py",
    "test_veto.py",
)

#: What a process is told that imports this project's modules and the tests' own.
PYTHONPATH = os.pathsep.join(str(REPOSITORY / name) for name in ("scripts", "demo", "tests"))

os.environ.setdefault("OMP_NUM_THREADS", "1")
#: Where models compute in the tests of rules and of roles: `make test-gpu` names a GPU.
DEVICE = os.environ.get("TEST_DEVICE", "cpu")


def pytest_configure(config: pytest.Config) -> None:
    """Has what was shown of docs/models.md told at the end."""
    config.pluginmanager.register(Shown())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; the others stay in the order of their names."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def _built(name: str, script: str) -> Path:
    folder = REPOSITORY / "demo" / name
    subprocess.run(
        [sys.executable, REPOSITORY / "demo" / script, "--output", folder],
        check=True,
        cwd=REPOSITORY,
    )
    return folder


@pytest.fixture(scope="session")
def demo_models() -> Path:
    """The folder of the random run's tiny checkpoints, built if need be."""
    return _built("models", "build_models.py")


def tiny_checkpoint(models: Path, name: str) -> Path:
    """The folder of a tiny checkpoint, built where the random run has no use for it and it is not
    there yet.
    """
    if builder := ON_DEMAND.get(name):
        with hold_lock(models / ".lock"):
            build_checkpoint(name, builder, models)
    return models / name


@pytest.fixture(scope="session")
def demo_benchmarks() -> Path:
    """The folder of the random run's local benchmarks, built if need be."""
    return _built("benchmarks", "build_benchmarks.py")


def make_head_environment(folder: Path) -> Path:
    """Makes a Python environment in which nothing is installed but the packages of envs/head.lock,
    linked from the tests' own; returns its `bin`.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/*/site-packages"))
    for line in (REPOSITORY / "envs/head.lock").read_text(encoding="utf-8").splitlines():
        name = line.partition("==")[0]
        with suppress(importlib.metadata.PackageNotFoundError):
            _link_package(importlib.metadata.distribution(name), site, folder / "bin")
    return folder / "bin"


def _link_package(package: importlib.metadata.Distribution, site: Path, programs: Path) -> None:
    installed = Path(str(package.locate_file("")))
    for file in package.files or []:
        link = site / file.parts[0]
        if file.parts[0] != ".." and not link.exists():
            link.symlink_to(installed / file.parts[0])
        if file.name == "snakemake" and "bin" in file.parts:
            _, _, script = (installed / file).read_text(encoding="utf-8").partition("\n")
            program = programs / file.name
            program.write_text(f"#!{programs}/python\n{script}", encoding="utf-8")
            program.chmod(0o755)


@pytest.fixture(scope="session")
def head_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment of envs/head.lock alone: no torch, no model library."""
    return make_head_environment(tmp_path_factory.mktemp("head") / "environment")


class Project:
    """A user's clone in a folder of its own, and what a user does there: with the random run,
    unless told otherwise.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configfile = "demo/random.yaml"

    def edit_config(
        self, change: Callable[[dict[str, Any]], object], configfile: str = "demo/random.yaml"
    ) -> None:
        """Edits a configuration file as a mapping."""
        path = self.folder / configfile
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(values)
        path.write_text(
            yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )

    def command(
        self, *arguments: str, cores: int = 2, profile: str = "profiles/local"
    ) -> list[str]:
        """The command that a user types."""
        snakemake = str(Path(sys.executable).with_name("snakemake"))
        return [
            snakemake,
            "--profile",
            profile,
            "--configfile",
            self.configfile,
            "--cores",
            str(cores),
            *arguments,
        ]

    def environment(self) -> dict[str, str]:
        """The environment of an activated .venv."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}

    def snakemake(
        self,
        *arguments: str,
        cores: int = 2,
        check: bool = True,
        profile: str = "profiles/local",
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Runs snakemake to its end; stdout holds both streams."""
        done = subprocess.run(
            self.command(*arguments, cores=cores, profile=profile),
            cwd=self.folder,
            env=self.environment() | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(
                f"snakemake {' '.join(arguments)} ended with"
                f" {done.returncode}:\n{done.stdout[-6000:]}"
            )
        return done

    def python(self, *arguments: str) -> str:
        """Runs Python in the clone; returns what it printed."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout

    def published(self, run: str = "random") -> dict[str, bytes]:
        """The bytes of every published file of a run by name: everything but work/ and logs/."""
        root = self.folder / "results" / run
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.relative_to(root).parts[0] not in ("work", "logs")
        }


@pytest.fixture(scope="session")
def new_project(
    demo_models: Path, demo_benchmarks: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Project]:
    """Makes a fresh clone in a folder of its own."""

    def make(name: str = "project", folder: Path | None = None) -> Project:
        if folder is None:
            folder = tmp_path_factory.mktemp(name)
        else:
            folder.mkdir()
        for part in PROJECT:
            source = REPOSITORY / part
            if source.is_symlink():
                (folder / part).symlink_to(source.readlink())
            elif source.is_dir():
                ignored = (
                    shutil.ignore_patterns("models", "benchmarks", "__pycache__", "*.pyc")
                    if part == "demo"
                    else shutil.ignore_patterns("__pycache__")
                )
                shutil.copytree(source, folder / part, symlinks=True, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, folder / part)
        (folder / "demo" / "models").symlink_to(demo_models)
        (folder / "demo" / "benchmarks").symlink_to(demo_benchmarks)
        return Project(folder)

    return make


@pytest.fixture
def project(new_project: Callable[..., Project]) -> Project:
    """A fresh clone."""
    return new_project()


def rounding(terms: int) -> float:
    """How far apart two results of size 1 may be that add up the same `terms` numbers of float32 in
    another order: in vectors of another width (AVX2, AVX-512), in a batch, in another library.

    Each addition is wrong by at most half an epsilon of a sum, and there are two sums.
    """
    return terms * float(np.finfo(np.float32).eps)


def lost_batches(project: Project) -> Counter[Path]:
    """How many batches were begun and not ended, in all runs so far, by journal. Fails if an item
    was computed again that was finished.
    """
    lost: set[tuple[Path, int]] = set()
    for path in (project.folder / "results/random/work").rglob("*.journal.jsonl"):
        begun: dict[str, int] = {}  # item -> the line where its batch begins
        finished: Counter[str] = Counter()
        for number, line in enumerate(path.read_bytes().split(b"\n")[1:-1]):
            entry = json.loads(line)
            for key in entry.get("begin", []):
                lost |= {(path, begun[key])} if key in begun else set()
                begun[key] = number
            if "key" in entry:
                begun.pop(entry["key"], None)
                finished[entry["key"]] += entry["status"] == "ok"
        lost |= {(path, number) for number in begun.values()}
        assert not finished or max(finished.values()) == 1, f"{path}: an item was computed twice"
    return Counter(path for path, _ in lost)


def read_rows(path: str | Path, row: type[Row]) -> dict[str, Row]:
    """The rows of a shard file by prompt id, of which none is missing."""
    rows = read_shard(path, row)
    present = {prompt_id: each for prompt_id, each in rows.items() if not is_missing(each)}
    assert list(present) == list(rows), f"{path}: a row is missing"
    return present


class Wildcards(list[str]):
    """A rule's wildcards as Snakemake gives them: by attribute, and iterable in the order of the
    output's pattern.
    """

    def __init__(self, **values: str) -> None:
        super().__init__(values.values())
        vars(self).update(values)


class Parameters(dict[str, Any]):
    """A rule's params, by attribute and by name, as Snakemake gives them."""

    __getattr__ = dict.__getitem__


@pytest.fixture
def rule_object(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Makes what Snakemake hands to a rule's script, with the run's folder under tmp_path/run."""

    def make(
        rule: str, wildcards: dict[str, str], inputs: Any, output: Any, **params: Any
    ) -> SimpleNamespace:
        common = {
            "root": str(tmp_path / "run"),
            "device": DEVICE,
            "seed": 0,
            "max_failed_fraction": 0.0,
        } | params.pop("common", {})
        return SimpleNamespace(
            rule=rule,
            wildcards=Wildcards(**wildcards),
            input=inputs,
            output=output,
            log=[],
            threads=1,
            resources=SimpleNamespace(),
            params=Parameters(common=common, **params),
        )

    return make


def make_small(project: Project) -> None:
    """Makes the random run smaller still, with every rule left in it: three prompts in two shards,
    two prompts in one, two policy models, two scorers, a benchmark of each kind.
    """

    def change(values: dict[str, Any]) -> None:
        values["topics"] = ["art", "nature"]
        values["shards_per_topic"] = 2
        values["images"] |= {"steps": 2, "guidance_scales": [5.0, 9.0]}
        del values["image_ranking"]["scorers"]["blip"]
        policies = values["responses"]["policy_models"]
        values["responses"]["policy_models"] = {name: policies[name] for name in list(policies)[:2]}
        values["pairs"]["sizes"] = [2]
        values["training"]["experiments"] = {"random-2": {"size": 2}}
        values["training"]["settings"] |= {"save_steps": 1, "epochs": 3}
        # What benchmarks have in common with the training data is left out, so that all of it is on
        # the way to the pairs.
        values["evaluation"]["contamination"] = {"exclude": True}
        benchmarks = values["evaluation"]["benchmarks"]
        values["evaluation"]["benchmarks"] = {
            name: benchmarks[name] for name in ("pope", "object_halbench")
        }
        values["figures"]["answers"] |= {"experiment": "random-2", "count": 1}

    project.edit_config(change)
    # Nature's two are of one shard: a shard is ten jobs.
    for topic, lines in (("art", slice(0, 3)), ("nature", slice(1, 3))):
        path = project.folder / f"demo/random_prompts/{topic}.txt"
        path.write_text(
            "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[lines]),
            encoding="utf-8",
        )


@pytest.fixture(scope="session")
def made_once(
    new_project: Callable[..., Project], tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Project], object]], Project]:
    """Gives a clone in which `make` has been at work, made by whichever of pytest's workers asks
    for its name first; the others wait for it. Where SHARED_RUNS names a folder, runs of pytest
    that go on side by side share it too.
    """
    base = tmp_path_factory.getbasetemp()
    shared = Path(os.environ.get("SHARED_RUNS") or (base if worker_id == "master" else base.parent))

    def once(name: str, make: Callable[[Project], object]) -> Project:
        folder, made = shared / f"once-{name}", shared / f"once-{name}.made"
        with FileLock(f"{folder}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(new_project(folder=folder))
                made.touch()
        return Project(folder)

    return once


def make_finished(project: Project) -> None:
    """Makes the small run."""
    make_small(project)
    project.snakemake()


@pytest.fixture(scope="session")
def finished(made_once: Callable[[str, Callable[[Project], object]], Project]) -> Project:
    """A clone in which the small run has been made, undisturbed.

    Not to be changed, and no command is to be run in it: others may be copying it. See
    `finished_copy`.
    """
    return made_once("finished", make_finished)


@pytest.fixture
def finished_copy(finished: Project, tmp_path: Path) -> Project:
    """A clone of one's own in which the small run has been made."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")
