"""The paper's own tables (published/*.yaml, described in published/README.md) as rows to put ours
beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib.errors import UserError
from lib.files import digest_of_file
from lib.report.tables import Column, Row

PAPER = "paper"
#: A dash of the paper itself.
PRINTED_DASH = "a dash in the paper"


@dataclass(frozen=True)
class Published:
    """A table of the paper. `file` and `sha256`: where its numbers were read from."""

    number: int
    title: str
    source: str
    text_columns: dict[str, str]
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    file: str = ""
    sha256: str = ""


def read_published(path: Path) -> Published:
    """One of the paper's tables. Errors: UserError if the file is not as published/README.md says."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        columns = tuple(Column(**column) for column in values["columns"])
        keys = {
            "cites",
            "pairs",
            "scorers",
            "not_compared",
            *values["text_columns"],
            *(column.key for column in columns),
        }
        if strays := {key for row in values["rows"] for key in row} - keys:
            raise KeyError(f"no such column: {', '.join(sorted(strays))}")
        return Published(
            values["table"],
            values["title"],
            values["source"],
            values["text_columns"],
            columns,
            tuple(values["rows"]),
            # The file's place in the project, wherever that lies.
            f"{path.parent.name}/{path.name}",
            digest_of_file(path),
        )
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: not a table of the paper as published/README.md describes it ({error})."
            " Restore the file."
        ) from error


def paper_rows(published: Published) -> list[Row]:
    """The paper's rows as they are printed, with the citation number in brackets."""
    rows = []
    for printed in published.rows:
        texts = {
            key: str(printed[key]) if printed.get(key) is not None else ""
            for key in published.text_columns
        }
        if printed.get("cites") is not None:
            first = next(iter(texts))
            texts[first] = f"{texts[first]} [{printed['cites']}]"
        values = {
            column.key: printed[column.key]
            for column in published.columns
            if printed.get(column.key) is not None
        }
        origin = {
            "paper": published.source,
            "table": published.number,
            "file": published.file,
            "sha256": published.sha256,
        }
        rows.append(
            Row(PAPER, texts, values, origins={column.key: origin for column in published.columns})
        )
    return rows


def our_source(label: str) -> str:
    """What the rows of this run are marked with. `label`: "ours" or "demo"."""
    return "ours" if label == "ours" else f"ours, {label}"


def notes_of(published: Published, rows: Sequence[Row], label: str) -> list[str]:
    """What is to be known of a table as a whole: sources, differences, a demo's worth."""
    notes = [
        (
            f"Source 'paper': {published.source}, as printed; a dash there is a dash in the paper,"
            " a number in brackets the paper's citation."
        ),
    ]
    if label != "ours":
        notes.append(
            f"Source 'ours, {label}': small models and small local data. It shows how the workflow"
            " works, not what a method reaches."
        )
    if any(row.differences for row in rows):
        notes.append(
            "In parentheses: the difference to the paper's row of the same model and data size."
        )
    return notes
