"""What tables and figures say of where they come from: files with their digests, models with their
revisions, the project's commit.

All of it stands in sidecars (`<table>.json`, `<figure>.json`), never in a table or figure itself.
"""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lib import weights
from lib.files import digest_of_file

PROJECT = Path(__file__).resolve().parents[3]
GIT_SECONDS = 30


def project_commit(project: Path = PROJECT) -> str | None:
    """The commit of the repository that tracks this project's Snakefile, `-dirty` appended where a
    tracked file differs from it.

    None where there is no git, no commit, or the project only lies inside somebody else's
    repository. It is asked for when a file is written and is no rule's parameter, so that a new
    commit by itself makes no rule run again.
    """

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


def built_with(*packages: str) -> dict[str, Any]:
    """The project's commit, Python and the packages that wrote a file, with their versions."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"commit": project_commit(), "python": platform.python_version(), **versions}


def file_digests(paths: Iterable[str], root: Path) -> dict[str, str]:
    """sha256 (hex) of each file, by its path in the run's folder `root`, or as the rule names it
    where it lies elsewhere.
    """
    return {
        (path.relative_to(root) if path.is_relative_to(root) else path).as_posix(): digest_of_file(
            path
        )
        for path in map(Path, paths)
    }


def model_origin(
    settings: Mapping[str, Any], root: Path, rule: str, job: str = ""
) -> dict[str, Any]:
    """Which model a stage used: name, revision as configured, and the identity that it resolved to.

    `settings`: of a `Model` block, as `Plan.settings` gives them. `rule`, `job`: whose records
    under `work/` tell the commit that a branch or tag stood for; where the records are gone, the
    identity is None.
    """
    model, revision = settings["model"], settings["revision"]
    origin = {"model": model, "revision": revision}
    if weights.is_folder(model):
        return {"model": model, "identity": settings.get("identity")}
    if weights.COMMIT.fullmatch(revision):
        return origin | {"identity": revision}
    found = set()
    for path in sorted((root / "work" / rule / job).glob("**/*.json")):
        try:
            found.add(json.loads(path.read_text(encoding="utf-8"))["models"][model])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return origin | {"identity": found.pop() if len(found) == 1 else sorted(found) or None}
