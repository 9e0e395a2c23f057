"""Where a score comes from: one block in every scores.json, so that each cell of a table can be
traced: `Provenance`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from lib.data.evaluation_files import ComputedBy, JudgeName
from lib.files import digest_of_file


class AnswersFile(TypedDict):
    """The answers that were scored: their place in the run's folder, and their sha256 (hex)."""

    file: str
    sha256: str


class Environment(TypedDict):
    """The versions of the packages that decided the answers and the scores."""

    answers: dict[str, str]
    scores: dict[str, str]


class Provenance(TypedDict):
    """The block."""

    computed_by: ComputedBy
    answers: AnswersFile
    environment: Environment


def computed_by(
    scorer: str,
    parser: str | None = None,
    judge: JudgeName | None = None,
    language_tools: str | None = None,
) -> ComputedBy:
    """What made a score of the answers."""
    return {
        "scorer": scorer,
        "parser": parser,
        "judge": judge,
        "language_tools": language_tools,
    }


def block(
    made: ComputedBy,
    answers: Path,
    root: Path,
    answering: Mapping[str, str],
    scoring: Mapping[str, str],
) -> Provenance:
    """The block. `made`: of `computed_by`; `root`: the run's folder; `answering`, `scoring`:
    versions of what decided the two.
    """
    file = answers.relative_to(root) if answers.is_relative_to(root) else answers
    return {
        "computed_by": made,
        "answers": {"file": file.as_posix(), "sha256": digest_of_file(answers)},
        "environment": {"answers": dict(answering), "scores": dict(scoring)},
    }
