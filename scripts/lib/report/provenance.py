"""Where a score comes from: one block in every scores.json, so that each cell of a table can be
traced.

"computed_by": {"scorer", "parser", "judge": {"model", "version"} or null, "language_tools"}
"answers": {"file": as in the run's folder, "sha256"}
"environment": {"answers": {package: version}, "scores": {package: version}}
"""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lib.files import digest_of_file


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those of the packages that are installed. Nothing is imported."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def computed_by(
    scorer: str,
    parser: str | None = None,
    judge: Mapping[str, object] | None = None,
    language_tools: str | None = None,
) -> dict[str, Any]:
    """What made a score of the answers.

    Args:
        scorer: its name and version, in words.
        parser: how an answer was read, in words; None where the scorer's name says it.
        judge: `model` as configured and `version` as the endpoint reported it.
        language_tools: tokenizer, tagger, lemmatiser and word vectors, where a scorer uses any.
    """
    return {
        "scorer": scorer,
        "parser": parser,
        "judge": dict(judge) if judge else None,
        "language_tools": language_tools,
    }


def block(
    made: Mapping[str, Any],
    answers: Path,
    root: Path,
    answering: Mapping[str, str],
    scoring: Mapping[str, str],
) -> dict[str, Any]:
    """The block. `made`: of `computed_by`; `root`: the run's folder; `answering`, `scoring`:
    versions of what decided the two.
    """
    file = answers.relative_to(root) if answers.is_relative_to(root) else answers
    return {
        "computed_by": dict(made),
        "answers": {"file": file.as_posix(), "sha256": digest_of_file(answers)},
        "environment": {"answers": dict(answering), "scores": dict(scoring)},
    }
