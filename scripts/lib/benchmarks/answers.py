"""Answers of models to a benchmark's questions, as read from a file, and what is wrong with its
rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.judge import encodable


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row, and what became of it. `line` counts from 1; None where it is
    about the whole file.
    """

    file: str
    line: int | None
    what: str

    def __str__(self) -> str:
        return (
            f"{self.file}, line {self.line}: {self.what}"
            if self.line
            else f"{self.file}: {self.what}"
        )


@dataclass(frozen=True)
class Answer:
    """One answer of a model. `details`: whatever else of its row the benchmark reads (a category,
    kept judgements, ...).
    """

    id: str
    text: str
    line: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """The answers of a file in its order, ids unique, and its bad rows. `judge`: who gave the
    judgements that the rows carry.
    """

    file: str
    rows: Sequence[Answer]
    problems: Sequence[Problem] = ()
    judge: str | None = None

    def by_id(self) -> dict[str, Answer]:
        """The answers by id."""
        return {answer.id: answer for answer in self.rows}


def yes_or_no(text: str) -> str | None:
    """The plain word of an answer: "yes" or "no" if that is the whole text, up to case, white space
    and punctuation around it; None for anything else.
    """
    word = re.sub(r"^\W+|\W+$", "", text).casefold()
    return word if word in ("yes", "no") else None


def to_rows(answers: Answers) -> list[dict[str, Any]]:
    """Answers as `{"id", "response", ...}` rows for lib.files.write_jsonl, judgements and all;
    `read_answers` reads them back.
    """
    return [
        {"id": encodable(answer.id), "response": encodable(answer.text), **answer.details}
        for answer in answers.rows
    ]
