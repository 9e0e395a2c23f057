"""Tables of numbers, as CSV, Markdown and LaTeX, and beside them a sidecar that says of every cell
where its number comes from.

A cell without a number is a dash whose reason stands below the table.

Texts come from configurations and models: they are escaped for each format, and in CSV kept from
being read as formulas.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict

from lib.files import write_json, write_text
from lib.report.sidecar import BuiltWith, ProductFile, built_with, file_digests, product_files

if TYPE_CHECKING:
    import pandas as pd

ARROWS = {"higher": "↑", "lower": "↓", None: ""}


@dataclass(frozen=True)
class TableColumn:
    """A column of numbers.

    unit           of its values; empty where each row has its own
    better         "higher", "lower" or None
    decimals       as the paper prints it
    compared_with  the paper's column that ours is compared with, where it is another one
    dash           why the paper has no number in it, where it has none
    """

    key: str
    header: str
    unit: str
    better: str | None
    decimals: int
    group: str = ""
    compared_with: str | None = None
    dash: str | None = None

    @property
    def name(self) -> str:
        """The header with the one above it, e.g. `POPE Score`."""
        return f"{self.group} {self.header}".strip()


@dataclass(frozen=True)
class CellTest:
    """A test of a cell's number against another model's: in words, and whether the two differ by
    more than chance.
    """

    text: str
    is_clear: bool


@dataclass
class TableRow:
    """One line of a table; all but the first two are by column key.

    `differences`: to the paper's row; `spreads`: standard deviation over seeds, in the unit of the
    values; `tests`: against the base model; `missing`: why there is no number; `remarks`: what to
    know of the number; `origins`: where it comes from, for the sidecar.
    """

    source: str
    texts: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    tests: dict[str, CellTest] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    origins: dict[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass
class Table:
    """A table to be written: text columns (key -> header) first, then the numbers."""

    title: str
    text_columns: dict[str, str]
    columns: Sequence[TableColumn]
    rows: list[TableRow]
    notes: list[str]


def shown_number(column: TableColumn, row: TableRow) -> str:
    """A cell's number as the paper would print it, with its spread, a star where a test is clear,
    and its difference to the paper; empty if there is none.
    """
    key, decimals = column.key, column.decimals
    if key not in row.values:
        return ""
    spread = f" ± {row.spreads[key]:.{decimals}f}" if key in row.spreads else ""
    difference = f" ({row.differences[key]:+.{decimals}f})" if key in row.differences else ""
    star = "*" if key in row.tests and row.tests[key].is_clear else ""
    return f"{row.values[key]:.{decimals}f}{spread}{star}{difference}"


def frame(table: Table) -> "pd.DataFrame":
    """The table for machines: numbers in full, spreads, differences and tests beside them; what is
    missing is empty, and its reason stands in `notes`.
    """
    import pandas as pd

    header = list(_frame_line(table, TableRow("", {})))
    return pd.DataFrame([_frame_line(table, row) for row in table.rows], columns=header)


def _frame_line(table: Table, row: TableRow) -> dict[str, Any]:
    columns = table.columns
    with_spreads = [c for c in columns if any(c.key in other.spreads for other in table.rows)]
    with_differences = [
        c for c in columns if any(c.key in other.differences for other in table.rows)
    ]
    texts = {header: row.texts.get(key, "") for key, header in table.text_columns.items()}
    numbers = {
        **{f"{c.name} ({c.unit})" if c.unit else c.name: row.values.get(c.key) for c in columns},
        **{
            f"{c.name}: standard deviation over seeds": row.spreads.get(c.key) for c in with_spreads
        },
        **{
            f"{c.name}: difference to the paper": row.differences.get(c.key)
            for c in with_differences
        },
    }
    tests = {
        f"{c.name}: against the base model, by question": row.tests[c.key].text
        if c.key in row.tests
        else ""
        for c in columns
        if any(c.key in other.tests for other in table.rows)
    }
    notes = " ".join(dict.fromkeys([*row.missing.values(), *row.remarks.values()]))
    return {"source": row.source, **texts, **numbers, **tests, "notes": notes}


def csv_text(text: Any) -> Any:
    """A text cell that no spreadsheet reads as a formula: one that begins like one gets an
    apostrophe before it.
    """
    return (
        f"'{text}"
        if isinstance(text, str)
        and text.lstrip()[:1] in ("=", "+", "-", "@", "\t", "\r")
        and text.strip()
        else text
    )


def to_csv(table: Table) -> str:
    """RFC 4180 with a header line and "\\n" line ends; missing numbers are empty."""
    lines = frame(table)
    for name in lines.select_dtypes(exclude="number").columns:
        lines[name] = lines[name].map(csv_text)
    header = [csv_text(name) for name in lines.columns]
    return str(lines.to_csv(index=False, lineterminator="\n", header=header))


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def markdown_text(text: str) -> str:
    """A text in a Markdown table or line: nothing in it is markup or HTML."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "[": "{[}",
    "]": "{]}",
    "-": "-{}",
    "`": r"\textasciigrave{}",
    "'": "'{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "–": "--",
}


def latex_text(text: str) -> str:
    """A text in LaTeX: nothing in it is a command, an alignment, an optional argument or a
    ligature.
    """
    escaped = "".join(LATEX.get(character, character) for character in one_line(text))
    return re.sub(r"([-'])\{\}(?!\1)", r"\1", escaped)


def footnotes(table: Table) -> dict[str, str]:
    """Reason or remark -> its letter, in the order of the table."""
    reasons = dict.fromkeys(
        text
        for row in table.rows
        for column in table.columns
        for text in (row.missing.get(column.key), row.remarks.get(column.key))
        if text
    )
    return {text: _letter(number) for number, text in enumerate(reasons)}


def _letter(number: int) -> str:
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def about_cell(column: TableColumn, row: TableRow) -> str | None:
    """What stands below the table of a cell: why it has no number, or what to know of it."""
    return row.missing.get(column.key) or row.remarks.get(column.key)


def with_arrow(name: str, column: TableColumn) -> str:
    """A column's name with the direction that is better."""
    return f"{name} {ARROWS[column.better]}".strip()


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown with its notes below."""
    letters = footnotes(table)
    arrows = [with_arrow(column.name, column) for column in table.columns]
    header = map(markdown_text, ["Source", *table.text_columns.values(), *arrows])
    lines = [
        f"# {markdown_text(table.title)}",
        "",
        _markdown_line(header),
        "|---" * (1 + len(table.text_columns)) + "|---:" * len(table.columns) + "|",
        *(_markdown_line(_markdown_cells(table, row, letters)) for row in table.rows),
    ]
    below = [
        *(f"<sup>{letter}</sup> {markdown_text(text)}" for text, letter in letters.items()),
        *map(markdown_text, table.notes),
    ]
    return "\n".join(lines) + "\n\n" + "\n\n".join(below) + "\n"


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cells(table: Table, row: TableRow, letters: Mapping[str, str]) -> Iterator[str]:
    yield markdown_text(row.source)
    for key in table.text_columns:
        yield markdown_text(row.texts.get(key, "")) or "–"
    for column in table.columns:
        about = about_cell(column, row)
        mark = f"<sup>{letters[about]}</sup>" if about else ""
        yield (shown_number(column, row) or "–") + mark


def to_latex(table: Table) -> str:
    """A `table` environment with booktabs' rules and the notes below; its first lines name the
    packages that it needs.
    """
    letters = footnotes(table)
    below = [
        *(f"\\textsuperscript{{{letter}}} {latex_text(text)}" for text, letter in letters.items()),
        *map(latex_text, table.notes),
    ]
    lines = [
        "% \\usepackage{booktabs}",
        "% \\usepackage{graphicx}",
        "% \\usepackage{textcomp}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(table.title)}}}\\smallskip",
        # As wide as it is, and no wider than the text.
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{l{'l' * len(table.text_columns)}{'r' * len(table.columns)}}}",
        "\\toprule",
        *_latex_header(table),
        *_latex_body(table, letters),
        "\\bottomrule",
        "\\end{tabular}}",
        "",
        "\\smallskip",
        "\\begin{minipage}{\\linewidth}\\footnotesize",
        "\n\n".join(below),
        "\\end{minipage}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_header(table: Table) -> Iterator[str]:
    """The columns' headers, below those of groups of columns where there are any."""
    groups = ["", *("" for _ in table.text_columns), *(column.group for column in table.columns)]
    if any(groups):
        spans = [(group, len(list(columns))) for group, columns in groupby(groups)]
        yield _latex_line(
            f"\\multicolumn{{{width}}}{{c}}{{{latex_text(group)}}}" for group, width in spans
        )
    headers = [with_arrow(column.header, column) for column in table.columns]
    yield _latex_line(map(latex_text, ["Source", *table.text_columns.values(), *headers]))


def _latex_body(table: Table, letters: Mapping[str, str]) -> Iterator[str]:
    """The rows, a rule before each source's."""
    before = None
    for row in table.rows:
        if row.source != before:
            yield "\\midrule"
            before = row.source
        yield _latex_line(_latex_cells(table, row, letters))


def _latex_cells(table: Table, row: TableRow, letters: Mapping[str, str]) -> Iterator[str]:
    yield latex_text(row.source)
    for key in table.text_columns:
        yield latex_text(row.texts.get(key, "")) or "--"
    for column in table.columns:
        about = about_cell(column, row)
        mark = f"\\textsuperscript{{{letters[about]}}}" if about else ""
        signed = re.sub(r"([+-])(?=[\d.])", r"$\1$", shown_number(column, row))
        yield (signed.replace("±", r"$\pm$") or "--") + mark


_From = TypedDict("_From", {"from": Mapping[str, Any] | None})


class TableCell(_From):
    """All that is known of a cell: `row` counts from 1, `of` are the row's texts, and `from` says
    where its number comes from.
    """

    row: int
    source: str
    of: dict[str, str]
    column: str
    value: float | None
    shown: str
    difference: NotRequired[float]
    spread: NotRequired[float]
    against_base: NotRequired[str]
    missing: NotRequired[str]
    remark: NotRequired[str]


def cells(table: Table) -> list[TableCell]:
    """Every cell of the table in reading order: the sidecar's heart."""
    return [
        cell_of(column, row, number)
        for number, row in enumerate(table.rows, start=1)
        for column in table.columns
    ]


def cell_of(column: TableColumn, row: TableRow, number: int) -> TableCell:
    """The cell of a column and a row; `number`: the row's, from 1."""
    key = column.key
    cell: TableCell = {
        "row": number,
        "source": row.source,
        "of": dict(row.texts),
        "column": key,
        "value": row.values.get(key),
        "shown": shown_number(column, row) or "–",
        "from": row.origins.get(key),
    }
    if key in row.differences:
        cell["difference"] = row.differences[key]
    if key in row.spreads:
        cell["spread"] = row.spreads[key]
    if key in row.tests:
        cell["against_base"] = row.tests[key].text
    if key in row.missing:
        cell["missing"] = row.missing[key]
    if key in row.remarks:
        cell["remark"] = row.remarks[key]
    return cell


class ColumnOfSidecar(TypedDict):
    """A column as a sidecar describes it."""

    key: str
    name: str
    unit: str
    better: str | None
    decimals: int


class TableSidecar(TypedDict):
    """What `tables/<table>.json` holds, beside what a table says of itself: its columns and cells,
    the table's files, and what they were made from and with.
    """

    title: str
    columns: list[ColumnOfSidecar]
    cells: list[TableCell]
    notes: list[str]
    files: dict[str, ProductFile]
    inputs: dict[str, str]
    built_with: BuiltWith


class TableFiles(Protocol):
    """The files of a table, as its rule names them."""

    csv: str
    markdown: str
    latex: str
    sidecar: str


def sidecar(table: Table, products: Mapping[str, Path], inputs: Sequence[str]) -> TableSidecar:
    """The sidecar of a table. `products`: its files by kind; `inputs`: what it was made from."""
    return {
        "title": table.title,
        "columns": [
            {
                "key": column.key,
                "name": column.name,
                "unit": column.unit,
                "better": column.better,
                "decimals": column.decimals,
            }
            for column in table.columns
        ],
        "cells": cells(table),
        "notes": table.notes,
        "files": product_files(products),
        # tables/ lies in the run's folder.
        "inputs": file_digests(inputs, products["csv"].parent.parent),
        "built_with": built_with("pandas"),
    }


def write_table(
    table: Table,
    inputs: Sequence[str],
    outputs: TableFiles,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a table's `csv`, `markdown` and `latex` and its `sidecar`, each whole or not at all.

    `inputs`: files that it was made from; `about`: what the sidecar says besides.
    """
    products = {
        "csv": Path(outputs.csv),
        "markdown": Path(outputs.markdown),
        "latex": Path(outputs.latex),
    }
    write_text(products["csv"], to_csv(table))
    write_text(products["markdown"], to_markdown(table))
    write_text(products["latex"], to_latex(table))
    write_json(Path(outputs.sidecar), {**(about or {}), **sidecar(table, products, inputs)})
