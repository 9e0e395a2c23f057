"""Tables of numbers, as CSV, Markdown and LaTeX, and beside them a sidecar that says of every cell
where its number comes from.

A cell without a number is a dash whose reason stands below the table.

Texts come from configurations and models: they are escaped for each format, and in CSV kept from
being read as formulas.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lib.files import digest_of_file, write_json, write_text
from lib.report.sidecar import built_with, file_digests

ARROWS = {"higher": "↑", "lower": "↓", None: ""}


@dataclass(frozen=True)
class Column:
    """A column of numbers. `unit`: of its values; `better`: "higher", "lower" or None; `decimals`:
    as the paper prints it.
    """

    key: str
    header: str
    unit: str
    better: str | None
    decimals: int
    group: str = ""

    @property
    def name(self) -> str:
        """The header with the one above it, e.g. `POPE Score`."""
        return f"{self.group} {self.header}".strip()


@dataclass
class Row:
    """One line of a table; all but the first two are by column key.

    `differences`: to the paper's row; `spreads`: standard deviation over seeds, in the unit of the
    values; `missing`: why there is no number; `remarks`: what to know of the number; `origins`:
    where it comes from, for the sidecar.
    """

    source: str
    texts: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Table:
    """A table to be written: text columns (key -> header) first, then the numbers."""

    title: str
    text_columns: dict[str, str]
    columns: Sequence[Column]
    rows: list[Row]
    notes: list[str]


def shown_number(column: Column, row: Row) -> str:
    """A cell's number as the paper would print it, with its spread and its difference to the paper;
    empty if there is none.
    """
    if column.key not in row.values:
        return ""
    spread = (
        f" ± {row.spreads[column.key]:.{column.decimals}f}" if column.key in row.spreads else ""
    )
    difference = (
        f" ({row.differences[column.key]:+.{column.decimals}f})"
        if column.key in row.differences
        else ""
    )
    return f"{row.values[column.key]:.{column.decimals}f}{spread}{difference}"


def frame(table: Table) -> pd.DataFrame:
    """The table for machines: numbers in full, spreads and differences beside them; what is missing
    is empty and told in `notes`.
    """
    lines = []
    for row in table.rows:
        line: dict[str, Any] = {"source": row.source} | {
            header: row.texts.get(key, "") for key, header in table.text_columns.items()
        }
        for column in table.columns:
            line[f"{column.name} ({column.unit})"] = row.values.get(column.key)
        for column in table.columns:
            if any(column.key in other.spreads for other in table.rows):
                line[f"{column.name}: standard deviation over seeds"] = row.spreads.get(column.key)
        for column in table.columns:
            if any(column.key in other.differences for other in table.rows):
                line[f"{column.name}: difference to the paper"] = row.differences.get(column.key)
        line["notes"] = " ".join(dict.fromkeys([*row.missing.values(), *row.remarks.values()]))
        lines.append(line)
    return pd.DataFrame(lines)


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
    cells = frame(table)
    for name in cells.select_dtypes(exclude="number").columns:
        cells[name] = cells[name].map(csv_text)
    return str(
        cells.to_csv(
            index=False, lineterminator="\n", header=[csv_text(name) for name in cells.columns]
        )
    )


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


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown with its notes below."""
    letters = footnotes(table)
    arrows = [f"{column.name} {ARROWS[column.better]}".strip() for column in table.columns]
    lines = [
        f"# {markdown_text(table.title)}",
        "",
        "| "
        + " | ".join(
            markdown_text(name) for name in ["Source", *table.text_columns.values(), *arrows]
        )
        + " |",
        "|---" * (1 + len(table.text_columns)) + "|---:" * len(table.columns) + "|",
    ]
    for row in table.rows:
        cells = [
            markdown_text(row.source),
            *(markdown_text(row.texts.get(key, "")) or "–" for key in table.text_columns),
        ]
        for column in table.columns:
            about = row.missing.get(column.key) or row.remarks.get(column.key)
            mark = f"<sup>{letters[about]}</sup>" if about else ""
            cells.append((shown_number(column, row) or "–") + mark)
        lines.append("| " + " | ".join(cells) + " |")
    below = [
        *(f"<sup>{letter}</sup> {markdown_text(text)}" for text, letter in letters.items()),
        *map(markdown_text, table.notes),
    ]
    return "\n".join(lines) + "\n\n" + "\n\n".join(below) + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment with booktabs' rules and the notes below; its first lines name the
    packages that it needs.
    """
    letters = footnotes(table)
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
    ]
    groups = ["", *("" for _ in table.text_columns), *(column.group for column in table.columns)]
    if any(groups):
        spans: list[tuple[str, int]] = []
        for group in groups:
            if spans and spans[-1][0] == group:
                spans[-1] = (group, spans[-1][1] + 1)
            else:
                spans.append((group, 1))
        lines.append(
            " & ".join(
                f"\\multicolumn{{{width}}}{{c}}{{{latex_text(group)}}}" for group, width in spans
            )
            + r" \\"
        )
    headers = [f"{column.header} {ARROWS[column.better]}".strip() for column in table.columns]
    lines.append(
        " & ".join(latex_text(name) for name in ["Source", *table.text_columns.values(), *headers])
        + r" \\"
    )
    before = None
    for row in table.rows:
        if row.source != before:
            lines.append("\\midrule")
            before = row.source
        cells = [
            latex_text(row.source),
            *(latex_text(row.texts.get(key, "")) or "--" for key in table.text_columns),
        ]
        for column in table.columns:
            about = row.missing.get(column.key) or row.remarks.get(column.key)
            mark = f"\\textsuperscript{{{letters[about]}}}" if about else ""
            number = re.sub(r"([+-])(?=[\d.])", r"$\1$", shown_number(column, row)).replace(
                "±", r"$\pm$"
            )
            cells.append((number or "--") + mark)
        lines.append(" & ".join(cells) + r" \\")
    lines += [
        "\\bottomrule",
        "\\end{tabular}}",
        "",
        "\\smallskip",
        "\\begin{minipage}{\\linewidth}\\footnotesize",
    ]
    below = [
        *(f"\\textsuperscript{{{letter}}} {latex_text(text)}" for text, letter in letters.items()),
        *map(latex_text, table.notes),
    ]
    lines += ["\n\n".join(below), "\\end{minipage}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def cells(table: Table) -> list[dict[str, Any]]:
    """Every cell of the table with all that is known of it, in reading order: the sidecar's heart."""
    found = []
    for number, row in enumerate(table.rows, start=1):
        for column in table.columns:
            cell: dict[str, Any] = {
                "row": number,
                "source": row.source,
                "of": dict(row.texts),
                "column": column.key,
            }
            cell |= {"value": row.values.get(column.key), "shown": shown_number(column, row) or "–"}
            about: dict[str, dict[str, Any]] = {
                "difference": row.differences,
                "spread": row.spreads,
                "missing": row.missing,
                "remark": row.remarks,
            }
            cell |= {
                name: values[column.key] for name, values in about.items() if column.key in values
            }
            found.append(cell | {"from": row.origins.get(column.key)})
    return found


def sidecar(
    table: Table, products: Mapping[str, Path], inputs: Sequence[str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """What `tables/<table>.json` holds: the table's files, what they were made from and with, and
    where every cell comes from.
    """
    return {
        **about,
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
        "files": {
            kind: {"file": path.name, "sha256": digest_of_file(path)}
            for kind, path in products.items()
        },
        # tables/ lies in the run's folder.
        "inputs": file_digests(inputs, products["csv"].parent.parent),
        "built_with": built_with("pandas"),
    }


def write_table(
    table: Table, inputs: Sequence[str], outputs: Any, about: Mapping[str, Any] | None = None
) -> None:
    """Writes a table's `csv`, `markdown` and `latex` and its `sidecar`, each whole or not at all.

    `inputs`: files that it was made from; `about`: what the sidecar says besides.
    """
    products = {kind: Path(getattr(outputs, kind)) for kind in ("csv", "markdown", "latex")}
    for kind, text in (
        ("csv", to_csv(table)),
        ("markdown", to_markdown(table)),
        ("latex", to_latex(table)),
    ):
        write_text(products[kind], text)
    write_json(Path(outputs.sidecar), sidecar(table, products, inputs, about or {}))
