"""What tables and figures say of where they come from: files with their digests, models with their
revisions, the project's commit.

All of it stands in sidecars (`<table>.json`, `<figure>.json`), never in a table or figure itself.
"""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from lib import weights
from lib.blocks import Block
from lib.files import PROJECT, digest_of_file
from lib.jobs.record import read_record

#: How tables and figures mark this run's numbers (the configuration's `label`).
Label = Literal["ours", "demo"]
#: The commit of the project, Python's version, and those of packages.
BuiltWith = dict[str, str | None]
GIT_SECONDS = 30


def project_commit(project: Path = PROJECT) -> str | None:
    """The commit of the repository that tracks this project's Snakefile, `-dirty` appended where a
    tracked file differs from it; or the one that the project is a copy of (rules/project.smk).

    None where there is no git, no commit, or the project only lies inside somebody else's
    repository. It is asked for when a file is written and is no rule's parameter, so that a new
    commit by itself makes no rule run again.
    """

    copied = project / ".commit"
    if copied.is_file():
        return copied.read_text(encoding="utf-8").strip()

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(project), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=GIT_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "Snakefile") is None:
        return None
    return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def built_with(*packages: str) -> BuiltWith:
    """The project's commit, Python and the packages that wrote a file, with their versions."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"commit": project_commit(), "python": platform.python_version(), **versions}


class ProductFile(TypedDict):
    """A file that lies beside its sidecar: its name and its sha256 (hex)."""

    file: str
    sha256: str


def product_files(products: Mapping[str, Path]) -> dict[str, ProductFile]:
    """The written files of a table or figure, by kind."""
    return {
        kind: {"file": path.name, "sha256": digest_of_file(path)} for kind, path in products.items()
    }


def file_digests(paths: Iterable[str], root: Path) -> dict[str, str]:
    """sha256 (hex) of each file, by its path in the run's folder `root`, by its path in this
    project, or as the rule names it where it lies elsewhere.
    """
    return {_place(path, root).as_posix(): digest_of_file(path) for path in map(Path, paths)}


def _place(path: Path, root: Path) -> Path:
    # A run's folder may lie in the project.
    around = next((folder for folder in (root, PROJECT) if path.is_relative_to(folder)), None)
    return path.relative_to(around) if around else path


class ModelOrigin(Block):
    """Where a model comes from: name and revision as configured, and of a folder the digest of its
    contents.
    """

    model: str
    revision: str
    identity: str | None = None


class ResolvedModel(TypedDict):
    """Which model a stage used. `identity`: a folder's digest (which has no revision), or the
    commit; the commits, where jobs of one run met several; None where no record tells it.
    """

    model: str
    revision: NotRequired[str]
    identity: str | list[str] | None


def resolve_model(origin: ModelOrigin, root: Path, rule: str, job: str = "") -> ResolvedModel:
    """Which model a stage used. `rule`, `job`: whose records under `work/` tell the commit that a
    branch or tag stood for.
    """
    if weights.is_folder(origin.model):
        return {"model": origin.model, "identity": origin.identity}
    identity: str | list[str] | None = origin.revision
    if not weights.COMMIT.fullmatch(origin.revision):
        commits = recorded_commits(origin.model, root / "work" / rule / job)
        identity = commits[0] if len(commits) == 1 else commits or None
    return {"model": origin.model, "revision": origin.revision, "identity": identity}


def resolve_image_model(origin: ModelOrigin | None, root: Path) -> ResolvedModel | None:
    """Which model drew the images; None where they are the user's own."""
    return resolve_model(origin, root, "generate_images") if origin else None


def recorded_commits(model: str, folder: Path) -> list[str]:
    """The commits of a hub model that the jobs whose records lie in a folder used."""
    records = [read_record(path) for path in folder.glob("**/*.json")]
    return sorted({record.models[model] for record in records if record and model in record.models})


class ScorerOfSidecar(ResolvedModel):
    """An image scorer: the name that the configuration gives it, and which model it is."""

    name: str


def resolve_scorer(name: str, origin: ModelOrigin, root: Path) -> ScorerOfSidecar:
    """Which model an image scorer is."""
    return {"name": name, **resolve_model(origin, root, "rank_images", name)}
