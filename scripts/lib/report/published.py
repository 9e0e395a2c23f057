"""The paper's own tables (published/*.yaml, described in published/README.md) as rows to put ours
beside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import yaml

from lib.errors import UserError
from lib.files import digest_of_file
from lib.report.tables import TableColumn, TableRow

PAPER = "paper"
#: What the file says of a row besides its columns.
ABOUT_ROWS = ("cites", "pairs", "scorers", "not_compared")


@dataclass(frozen=True)
class PublishedRow:
    """A row as it is printed; texts and values by column key, None where the paper has a dash.

    cites         the paper's citation number
    pairs         size of the preference data, in rows that runs are compared with
    scorers       the kinds of scorers that are compared (Table 4)
    not_compared  columns whose numbers are not compared with a run's
    """

    texts: dict[str, str | None]
    values: dict[str, float | None]
    cites: int | None = None
    pairs: int | None = None
    scorers: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A table of the paper.

    columns       as it prints them
    file, sha256  where its numbers were read from
    ours          columns that a run has besides, each compared with one of the paper's
    """

    number: int
    title: str
    source: str
    text_columns: dict[str, str]
    columns: tuple[TableColumn, ...]
    rows: tuple[PublishedRow, ...]
    file: str = ""
    sha256: str = ""
    ours: tuple[TableColumn, ...] = ()

    @property
    def shown_columns(self) -> list[TableColumn]:
        """Its columns, and after each those of ours that are compared with it."""
        return [
            column
            for printed in self.columns
            for column in (printed, *(c for c in self.ours if c.compared_with == printed.key))
        ]


class PaperOrigin(TypedDict):
    """Where a number of the paper stands, and the file of this project that has it."""

    paper: str
    table: int
    file: str
    sha256: str


def read_published(path: Path) -> Published:
    """One of the paper's tables. Errors: UserError if the file is not as published/README.md
    says.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        columns = tuple(TableColumn(**column) for column in values["columns"])
        texts = values["text_columns"]
        return Published(
            number=values["table"],
            title=values["title"],
            source=values["source"],
            text_columns=texts,
            columns=columns,
            rows=tuple(_read_row(row, texts, columns) for row in values["rows"]),
            # The file's place in the project, wherever that lies.
            file=f"{path.parent.name}/{path.name}",
            sha256=digest_of_file(path),
            ours=tuple(TableColumn(**column) for column in values.get("ours", ())),
        )
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: not a table of the paper as published/README.md describes it ({error})."
            " Restore the file."
        ) from error


def _read_row(
    row: Mapping[str, Any], text_columns: Iterable[str], columns: Sequence[TableColumn]
) -> PublishedRow:
    """A row of the file. Errors: KeyError for a key that is no column."""
    known = {*text_columns, *(column.key for column in columns), *ABOUT_ROWS}
    if strays := row.keys() - known:
        raise KeyError(f"no such column: {', '.join(sorted(strays))}")
    return PublishedRow(
        texts={key: row[key] for key in text_columns if key in row},
        values={column.key: row[column.key] for column in columns if column.key in row},
        cites=row.get("cites"),
        pairs=row.get("pairs"),
        scorers=tuple(row.get("scorers", ())),
        not_compared=tuple(row.get("not_compared", ())),
    )


def paper_rows(published: Published) -> list[TableRow]:
    """The paper's rows as they are printed, with the citation number in brackets."""
    origin: PaperOrigin = {
        "paper": published.source,
        "table": published.number,
        "file": published.file,
        "sha256": published.sha256,
    }
    origins = {column.key: origin for column in published.shown_columns}
    return [
        TableRow(PAPER, _printed_texts(published, row), printed_values(row), origins={**origins})
        for row in published.rows
    ]


def _printed_texts(published: Published, row: PublishedRow) -> dict[str, str]:
    texts = {key: str(row.texts.get(key) or "") for key in published.text_columns}
    if row.cites is not None:
        first = next(iter(texts))
        texts[first] = f"{texts[first]} [{row.cites}]"
    return texts


def printed_values(row: PublishedRow) -> dict[str, float]:
    """The numbers of a row of the paper, without its dashes."""
    return {key: value for key, value in row.values.items() if value is not None}


def comparable_values(row: PublishedRow, columns: Sequence[TableColumn]) -> dict[str, float]:
    """The numbers of a row of the paper that a run's are compared with, by the run's column."""
    values = printed_values(row)
    theirs = {column.key: column.compared_with or column.key for column in columns}
    return {
        ours: values[key]
        for ours, key in theirs.items()
        if key in values and key not in row.not_compared
    }


def our_source(label: str) -> str:
    """What the rows of this run are marked with. `label`: "ours" or "demo"."""
    return "ours" if label == "ours" else f"ours, {label}"


def demo_notes(label: str) -> list[str]:
    """What a demo's numbers are worth; nothing of a run that is none."""
    if label == "ours":
        return []
    return [
        (
            f"Source 'ours, {label}': small models and small local data. It shows how the workflow"
            " works, not what a method reaches."
        )
    ]


def notes_of(published: Published, rows: Sequence[TableRow], label: str) -> list[str]:
    """What is to be known of a table as a whole: sources, differences, a demo's worth."""
    notes = [
        (
            f"Source 'paper': {published.source}, as printed; a dash there is a dash in the paper,"
            " a number in brackets the paper's citation."
        ),
    ]
    notes += [
        f"{column.name}: {column.dash}"
        for column in published.ours
        if column.dash and any(column.key in {**row.values, **row.missing} for row in rows)
    ]
    notes += demo_notes(label)
    if any(row.differences for row in rows):
        notes.append(
            "In parentheses: the difference to the paper's row of the same model and data size."
        )
    return notes
