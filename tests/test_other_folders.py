"""The workflow from other folders and from other workflows: what it makes is the same, and where it
belongs.

Whole runs are compared elsewhere; here it is two jobs, one with a model and one that reads
published/.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY, Project, make_small
from lib.files import PROJECT
from lib.head import project as own_project
from lib.report.sidecar import file_digests, project_commit

IMAGES = "images/nature/00.jsonl"
TABLE = [f"tables/vision_language_table.{suffix}" for suffix in ("csv", "md", "tex", "json")]
FILES = [IMAGES, *TABLE]
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))


class Folder:
    """A user's folder outside the clone: the data of the small run's configuration are in it, and
    `mine.yaml`, that configuration.
    """

    def __init__(self, path: Path, clone: Project) -> None:
        self.path = path
        (path / "demo").mkdir(parents=True)
        for name in ("models", "benchmarks", "random_prompts"):
            (path / "demo" / name).symlink_to((clone.folder / "demo" / name).resolve())
        shutil.copy2(clone.folder / "demo/random.yaml", path / "mine.yaml")

    def run(
        self,
        *arguments: str,
        before: Sequence[str] = (),
        cwd: Path | None = None,
        code: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Runs snakemake, by default in this folder; gives what it printed. `before`: what its
        command stands behind.
        """
        done = subprocess.run(
            [*before, SNAKEMAKE, "--cores", "2", "--resources", "gpu=1", *arguments],
            cwd=cwd or self.path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == code, done.stdout[-6000:]
        return done.stdout

    def made(self, root: str, files: Sequence[str] = FILES) -> dict[str, bytes]:
        """The files under a folder of this one."""
        return {name: (self.path / root / name).read_bytes() for name in files}

    def write(self, name: str, text: str) -> None:
        """Writes a file."""
        (self.path / name).parent.mkdir(exist_ok=True)
        (self.path / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def clone(new_project: Callable[..., Project]) -> Project:
    """A clone with the small run's configuration, which no test changes."""
    project = new_project("clone")
    make_small(project)
    return project


@pytest.fixture
def folder(tmp_path: Path, clone: Project) -> Folder:
    """A user's folder."""
    return Folder(tmp_path / "user", clone)


@pytest.fixture(scope="module")
def expected(finished: Project) -> dict[str, bytes]:
    """What the jobs make in a clone."""
    return {name: (finished.folder / "results/random" / name).read_bytes() for name in FILES}


def below(root: str, files: Sequence[str] = FILES) -> list[str]:
    return [f"{root}/{name}" for name in files]


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- other folders --------------------------------------------------------------------------------


def read_only(folder: Path) -> list[str]:
    """What to put before a command to which a folder is read-only, root or not."""
    mounted = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    before = ["unshare", "--mount", "sh", "-c", f'{mounted} && exec "$@"', "sh"]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a folder read-only")
    return before


@pytest.mark.slow
def test_a_read_only_clone_makes_a_users_run_in_the_users_folder(
    clone: Project, folder: Folder, expected: dict[str, bytes]
) -> None:
    before = files_in(clone.folder)
    profile = str(clone.folder / "profiles/local")
    words = ["-s", str(clone.folder / "Snakefile"), "--profile", profile]
    folder.run(
        *words,
        "--configfile",
        "mine.yaml",
        "--",
        *below("results/random"),
        before=read_only(clone.folder),
    )
    assert folder.made("results/random") == expected
    assert files_in(clone.folder) == before
    # ... and from a third one, with --directory; nothing is to be done.
    configfile = str(folder.path / "mine.yaml")
    again = [*words, "--directory", str(folder.path), "--configfile", configfile, "-n", "--"]
    assert "Nothing to be done" in folder.run(*again, *below("results/random"), cwd=Path("/"))


@pytest.mark.slow
def test_a_folder_without_configuration_and_prompts_gets_the_projects(
    clone: Project, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    folder = Folder(tmp_path / "unused", clone)
    words = ["-s", str(clone.folder / "Snakefile"), "--directory", str(tmp_path / "empty"), "-n"]
    output = folder.run(*words, "--", "results/paper/images/art/00.jsonl")
    assert re.search(r"^generate_images +1 ", output, re.MULTILINE)
    # Whoever names prompts means their own.
    output = folder.run(*words, "--config", "prompts=mine", "--", "images", code=1)
    assert "'mine'" in output or "mine/" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_clone_on_a_path_with_blanks_and_letters_of_any_language_works_as_any(
    new_project: Callable[..., Project], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    (tmp_path / "größe β").mkdir()
    project = new_project(folder=tmp_path / "größe β" / "pds dpo's 图")
    make_small(project)
    project.snakemake("--", *below("results/random"))
    assert Folder.made(_at(project.folder), "results/random") == expected


def _at(path: Path) -> Folder:
    """A folder as it is."""
    folder = object.__new__(Folder)
    folder.path = path
    return folder


def test_the_projects_files_are_called_as_in_a_clone_only_where_that_is_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    assert own_project.path("published/table1.yaml") == "published/table1.yaml"
    monkeypatch.chdir(tmp_path)
    assert own_project.path("published/table1.yaml") == f"{PROJECT}/published/table1.yaml"
    assert own_project.default_config_file() == f"{PROJECT}/config.yaml"
    (tmp_path / "config.yaml").touch()
    assert own_project.default_config_file() == "config.yaml"
    assert own_project.default_config_file(is_module=True) == f"{PROJECT}/config.yaml"


def test_prompts_that_nobody_names_are_those_here_or_else_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = {"prompts": f"{PROJECT}/prompts"}
    named = {"prompts": "prompts"}
    projects = [f"{PROJECT}/config.yaml"]
    assert own_project.with_own_prompts({}, [], {}) == own
    assert own_project.with_own_prompts({}, ["mine.yaml"], {}) == own
    assert own_project.with_own_prompts(named, projects, {}) == own
    assert own_project.with_own_prompts(named, ["mine.yaml"], {}) == named
    assert own_project.with_own_prompts(named, projects, named) == named
    (tmp_path / "prompts").mkdir()
    assert own_project.with_own_prompts({}, [], {}) == {}
    assert own_project.with_own_prompts(named, projects, {}) == named


def test_a_sidecar_names_the_projects_files_alike_wherever_it_lies(tmp_path: Path) -> None:
    published = PROJECT / "published/table1.yaml"
    other, own = tmp_path / "other.txt", tmp_path / "run/own.txt"
    own.parent.mkdir()
    for path in (other, own):
        path.touch()
    names = file_digests(map(str, (published, other, own)), tmp_path / "run")
    assert list(names) == ["published/table1.yaml", other.as_posix(), "own.txt"]


# --- other workflows ------------------------------------------------------------------------------

OUTER = """
configfile: "outer.yaml"

rule all:
    input:
        "mine.txt",

module pds:
    snakefile: "{snakefile}"
    config: config["pds"]
    prefix: "sub"

use rule * from pds as pds_*

rule mine:
    input:
        {files},
    output:
        "mine.txt",
    params:
        common="of another workflow",
    shell:
        "cat {{input}} > {{output}}"

onstart:
    print("their onstart")

onsuccess:
    print("their onsuccess")
"""


@pytest.mark.slow
def test_a_module_with_a_prefix_and_other_names_of_rules_makes_the_same(
    clone: Project, folder: Folder, expected: dict[str, bytes]
) -> None:
    root = "sub/results/random"
    files = ",".join(map(repr, below(root)))
    text = OUTER.format(snakefile=clone.folder / "Snakefile", files=files)
    folder.write("workflow/Snakefile", text)
    values = yaml.safe_load((folder.path / "mine.yaml").read_text(encoding="utf-8"))
    folder.write("outer.yaml", yaml.safe_dump({"samples": ["a"], "pds": values}))
    output = folder.run()
    assert folder.made(root) == expected
    assert (folder.path / "mine.txt").read_bytes() == b"".join(expected.values())
    # The workflow's own beginning and end, and that of the module's run.
    assert "their onstart" in output
    assert output.index("What this run did") < output.index("their onsuccess")
    assert "Nothing to be done" in folder.run("-n")
    assert not (folder.path / "results").exists()

    # A job in a process of its own, as on a cluster, works on what its run began with.
    (folder.path / root / TABLE[0]).unlink()
    folder.write("outer.yaml", yaml.safe_dump({"pds": {**values, "label": "ours"}}))
    alone = ["--mode", "subprocess", "--target-jobs", "pds_vision_language_table:", "--force"]
    alone += ["--allowed-rules", "pds_vision_language_table", "--nolock", "--no-hooks"]
    alone += ["--target-files-omit-workdir-adjustment"]
    (start,) = (folder.path / root / "work/run_start").iterdir()
    folder.run(*alone, environment={"PDS_DPO_RUN_START_pds": str(start)})
    assert folder.made(root) == expected
    output = folder.run(*alone, code=1)
    assert "PDS_DPO_RUN_START_pds is missing" in output


TWO = """
module one:
    snakefile: "{snakefile}"
    config: dict(config, run="one")

module two:
    snakefile: "{snakefile}"
    config: dict(config, run="two")

use rule * from one as one_*
use rule * from two as two_*
use rule vision_language_table from two as two_vision_language_table with:
    message: "changed"

rule both:
    default_target: True
    input:
        {files},
"""


@pytest.mark.slow
def test_two_modules_make_two_runs_in_one_workflow(
    clone: Project, folder: Folder, expected: dict[str, bytes]
) -> None:
    files = ",".join(repr(f"results/{run}/{TABLE[0]}") for run in ("one", "two"))
    folder.write("Snakefile", TWO.format(snakefile=clone.folder / "Snakefile", files=files))
    output = folder.run("--configfile", "mine.yaml")
    assert "What this run did (results/one)" in output
    assert "What this run did (results/two)" in output
    for run in ("one", "two"):
        assert folder.made(f"results/{run}", TABLE) == {name: expected[name] for name in TABLE}
    assert "Nothing to be done" in folder.run("--configfile", "mine.yaml", "-n")


CONFIG = """
    config: config"""
PLAIN = f"""
configfile: "mine.yaml"

module pds:
    snakefile: "{{snakefile}}"{CONFIG}

use rule * from pds
"""


@pytest.mark.slow
def test_a_module_has_the_whole_runs_target_and_refuses_what_is_no_key_of_its_own(
    clone: Project, folder: Folder
) -> None:
    folder.write("Snakefile", PLAIN.format(snakefile=clone.folder / "Snakefile"))
    output = folder.run("-n", "--quiet", "rules")
    assert re.search(r"^train_dpo +1$", output, re.MULTILINE)
    with open(folder.path / "mine.yaml", "a", encoding="utf-8") as stream:
        stream.write("samples: [a]\n")
    output = folder.run("-n", code=1)
    assert "module pds: samples: unknown key" in output
    assert 'config: config["pds_dpo"]' in output
    assert "Traceback" not in output
    # Without `config:` it is the paper's run, whatever the other workflow's config.yaml is.
    folder.write("config.yaml", "samples: [a]")
    folder.write("Snakefile", (folder.path / "Snakefile").read_text().replace(CONFIG, ""))
    output = folder.run("-n", "--", "results/paper/images/art/00.jsonl")
    assert re.search(r"^generate_images +1 ", output, re.MULTILINE)


#: As snakedeploy 0.17 writes it.
DEPLOYED = """
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare https://github.com/owner/pds-dpo as a module
module pds_dpo:
    snakefile:
        github("owner/pds-dpo", path="Snakefile", tag="v1")
    config:
        config


# use all rules from https://github.com/owner/pds-dpo
use rule * from pds_dpo
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_what_snakedeploy_writes_runs_from_a_copy_of_the_project_at_its_commit(
    new_project: Callable[..., Project], folder: Folder, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    hosted = new_project(folder=tmp_path / "hosted").folder
    git(hosted, "init", "-q")
    git(
        hosted,
        "add",
        "Snakefile",
        "config.yaml",
        "rules",
        "scripts",
        "envs",
        "profiles",
        "published",
    )
    git(hosted, "commit", "-q", "-m", "the project")
    git(hosted, "tag", "v1")
    (tmp_path / "github/owner").mkdir(parents=True)
    hosted.rename(tmp_path / "github/owner/pds-dpo")
    folder.write("workflow/Snakefile", DEPLOYED)
    folder.write("config/config.yaml", (folder.path / "mine.yaml").read_text(encoding="utf-8"))
    # git takes the folder for the host.
    host = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{tmp_path}/github/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    folder.run("--", *below("results/random", TABLE), environment=host)
    made = folder.made("results/random", TABLE)
    assert made[TABLE[0]] == expected[TABLE[0]]
    commit = git(tmp_path / "github/owner/pds-dpo", "rev-parse", "HEAD")
    assert json.loads(made[TABLE[3]])["built_with"]["commit"] == commit
    assert project_commit(folder.path / ".snakemake/pds-dpo" / commit) == commit


def test_the_workflow_catalogue_finds_what_it_looks_for() -> None:
    """By https://snakemake.github.io/snakemake-workflow-catalog (Adding workflows)."""
    settings = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text("utf-8"))
    usage = settings["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    assert all(isinstance(text, str) for text in usage["mandatory-flags"].values())
    deployment = usage["software-stack-deployment"]
    assert deployment.keys() == {"conda", "apptainer", "apptainer+conda"}
    assert all(isinstance(value, bool) for value in (*deployment.values(), usage["report"]))
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (REPOSITORY / "Snakefile").is_file()
    assert list((REPOSITORY / "rules").glob("*.smk"))


# --- a report -------------------------------------------------------------------------------------


def data_of(page: str, name: str) -> dict[str, Any]:
    """What a report's page has under a name in its script."""
    found = re.search(rf"^\s*var {name} = (\{{.*\}});$", page, re.MULTILINE)
    assert found
    return dict(json.loads(found[1]))


@pytest.mark.slow
def test_a_report_holds_tables_and_figures_with_captions_and_categories_without_a_network(
    finished_copy: Project, tmp_path: Path
) -> None:
    nowhere = "http://127.0.0.1:9"
    finished_copy.snakemake(
        "--report", "report.zip", http_proxy=nowhere, https_proxy=nowhere, HTTPS_PROXY=nowhere
    )
    with zipfile.ZipFile(finished_copy.folder / "report.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    report = tmp_path / "unpacked/report"
    there = {path.name: path.read_bytes() for path in report.glob("data/raw/*/*")}
    published = finished_copy.published()
    products = {name for name in published if name.startswith(("tables/", "figures/"))}
    assert len(products) > 30
    for name in (*products, "models/random-2/training.svg", "contamination/overlaps.md"):
        assert there[Path(name).name] == published[name]

    page = (report / "report.html").read_text(encoding="utf-8")
    root = "results/random"
    categories = {
        path: category
        for category, within in data_of(page, "categories").items()
        for paths in within.values()
        for path in paths
    }
    results = data_of(page, "results")
    for name in products:
        assert categories[f"{root}/{name}"] == name.split("/")[0].title()
        assert len(results[f"{root}/{name}"]["caption"]) > 60
    assert "experiment random-2" in results[f"{root}/models/random-2/training.svg"]["caption"]
    assert "training data" in results[f"{root}/contamination/overlaps.md"]["caption"]
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?(https?:)?//", page)
