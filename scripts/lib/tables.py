"""The paper's tables with our rows beside them, as CSV, Markdown and LaTeX.

A cell without a number is a dash whose reason stands below the table. A difference to the paper is shown only where it means something:
our row and the paper's are of the same model and data size, on all questions, and the run is no demo.

Texts come from configurations and models: they are escaped for each format, and in CSV kept from being read as formulas.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lib.errors import UserError
from lib.files import write_text

#: The model that the paper's rows with `pairs` are of, as its hub names contain it.
PAPER_BASE_MODEL = "llava-1.5-7b"
PAPER = "paper"
ARROWS = {"higher": "↑", "lower": "↓", None: ""}


@dataclass(frozen=True)
class Column:
    """A column of numbers. `unit`: of its values; `better`: "higher", "lower" or None; `decimals`: as the paper prints it."""

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


@dataclass(frozen=True)
class Published:
    """A table of the paper: see published/README.md."""

    number: int
    title: str
    source: str
    text_columns: dict[str, str]
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]


@dataclass
class Row:
    """One line of a table. `missing`: column key -> why there is no number; `remarks`: column key -> what to know of the number."""

    source: str
    texts: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


@dataclass
class Table:
    """A table to be written: text columns (key -> header) first, then the numbers."""

    title: str
    text_columns: dict[str, str]
    columns: Sequence[Column]
    rows: list[Row]
    notes: list[str]


def read_published(path: Path) -> Published:
    """One of the paper's tables. Errors: UserError if the file is not as published/README.md says."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        columns = tuple(Column(**column) for column in values["columns"])
        keys = {"cites", "pairs", "scorers", *values["text_columns"], *(column.key for column in columns)}
        if strays := {key for row in values["rows"] for key in row} - keys:
            raise KeyError(f"no such column: {', '.join(sorted(strays))}")
        return Published(values["table"], values["title"], values["source"], values["text_columns"], columns, tuple(values["rows"]))
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a table of the paper as published/README.md describes it ({error}). Restore the file.") from error


def paper_rows(published: Published) -> list[Row]:
    """The paper's rows as they are printed, with the citation number in brackets."""
    rows = []
    for printed in published.rows:
        texts = {key: str(printed[key]) if printed.get(key) is not None else "" for key in published.text_columns}
        if printed.get("cites") is not None:
            first = next(iter(texts))
            texts[first] = f"{texts[first]} [{printed['cites']}]"
        values = {column.key: printed[column.key] for column in published.columns if printed.get(column.key) is not None}
        rows.append(Row(PAPER, texts, values))
    return rows


def read_scores(paths: Sequence[Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """The scores.json files by (model, benchmark)."""
    scores = (json.loads(Path(path).read_text(encoding="utf-8")) for path in paths)
    return {(score["model"], score["benchmark"]): score for score in scores}


def our_row(
    texts: dict[str, str],
    model: str,
    columns: Sequence[Column],
    wanted: Mapping[str, str],
    scores: Mapping[tuple[str, str], dict[str, Any]],
    label: str,
    compared: Mapping[str, Any] | None,
) -> Row:
    """A model's row. `wanted`: column key -> "benchmark/score" of this run; `label`: "ours" or "demo"; `compared`: the paper's row."""
    row = Row("ours" if label == "ours" else f"ours, {label}", texts)
    for column in columns:
        benchmark, _, name = wanted[column.key].partition("/")
        score = scores.get((model, benchmark))
        if score is None:
            row.missing[column.key] = f"{column.group or column.header}: no scorer configured in this run."
            continue
        if name not in score["scores"]:
            row.missing[column.key] = f"{column.group or column.header}: benchmark '{benchmark}' of this run has no score '{name}'."
            continue
        row.values[column.key] = score["scores"][name]
        if score["limit"]:
            row.remarks[column.key] = (
                f"{column.group or column.header}: only the first {score['questions']} of {score['questions_in_data']} questions."
            )
        elif label == "ours" and compared and compared.get(column.key) is not None:
            row.differences[column.key] = row.values[column.key] - compared[column.key]
    return row


def compare_models(
    published: Published,
    models: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, str],
    scores: Mapping[tuple[str, str], dict[str, Any]],
    label: str,
    base_model: str,
) -> Table:
    """A table of models: the paper's rows, then ours in the order of `models`.

    `models`: model -> `pairs` (number it was trained on, 0 for the base model) and texts of the text columns beside the name.
    """
    printed = {row["pairs"]: row for row in published.rows if "pairs" in row}
    same_model = PAPER_BASE_MODEL in base_model.casefold()
    rows = paper_rows(published)
    for model, about in models.items():
        name = f"{base_model.rstrip('/').rsplit('/', 1)[-1]} (before training)" if model == "base" else f"{model} ({about['pairs']} pairs)"
        first, *others = published.text_columns
        texts = {first: name} | {key: str(about.get(key, "")) for key in others}
        rows.append(our_row(texts, model, published.columns, wanted, scores, label, printed.get(about["pairs"]) if same_model else None))
    notes = notes_of(published, rows, label) + origins(published.columns, wanted, scores)
    return Table(published.title, published.text_columns, published.columns, rows, notes)


def origins(columns: Sequence[Column], wanted: Mapping[str, str], scores: Mapping[tuple[str, str], dict[str, Any]]) -> list[str]:
    """Where our numbers come from: benchmark, score, and what computed it."""
    notes = []
    for column in columns:
        benchmark, _, name = wanted[column.key].partition("/")
        found = {f"lmms-eval {score['lmms_eval']}, task {score['task']}" for key, score in scores.items() if key[1] == benchmark}
        if found:
            notes.append(f"Ours, {column.name}: score '{name}' of benchmark '{benchmark}' ({'; '.join(sorted(found))}).")
    return notes


def notes_of(published: Published, rows: Sequence[Row], label: str) -> list[str]:
    """What is to be known of a table as a whole: sources, differences, a demo's worth."""
    notes = [
        f"Source 'paper': {published.source}, as printed; a dash there is a dash in the paper, a number in brackets the paper's citation.",
    ]
    if label != "ours":
        notes.append(
            f"Source 'ours, {label}': tiny random models and small local data. It shows how the workflow works, and nothing of any method."
        )
    if any(row.differences for row in rows):
        notes.append("In parentheses: the difference to the paper's row of the same model and data size.")
    return notes


def shown_number(column: Column, row: Row) -> str:
    """A cell's number as the paper would print it, with its difference; empty if there is none."""
    if column.key not in row.values:
        return ""
    difference = f" ({row.differences[column.key]:+.{column.decimals}f})" if column.key in row.differences else ""
    return f"{row.values[column.key]:.{column.decimals}f}{difference}"


def frame(table: Table) -> pd.DataFrame:
    """The table for machines: numbers in full, differences in columns of their own; what is missing is empty and told in `notes`."""
    lines = []
    for row in table.rows:
        line: dict[str, Any] = {"source": row.source} | {header: row.texts.get(key, "") for key, header in table.text_columns.items()}
        for column in table.columns:
            line[f"{column.name} ({column.unit})"] = row.values.get(column.key)
        for column in table.columns:
            if any(column.key in other.differences for other in table.rows):
                line[f"{column.name}: difference to the paper"] = row.differences.get(column.key)
        line["notes"] = " ".join(dict.fromkeys([*row.missing.values(), *row.remarks.values()]))
        lines.append(line)
    return pd.DataFrame(lines)


def csv_text(text: Any) -> Any:
    """A text cell that no spreadsheet reads as a formula: one that begins like one gets an apostrophe before it."""
    return f"'{text}" if isinstance(text, str) and text.lstrip()[:1] in ("=", "+", "-", "@", "\t", "\r") and text.strip() else text


def to_csv(table: Table) -> str:
    """RFC 4180 with a header line and "\\n" line ends; missing numbers are empty."""
    cells = frame(table)
    for name in cells.select_dtypes(exclude="number").columns:
        cells[name] = cells[name].map(csv_text)
    return str(cells.to_csv(index=False, lineterminator="\n", header=[csv_text(name) for name in cells.columns]))


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def markdown_text(text: str) -> str:
    """A text in a Markdown table or line: nothing in it is markup or HTML."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}", "-": "-{}", "`": r"\textasciigrave{}", "'": "'{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """A text in LaTeX: nothing in it is a command, an alignment, an optional argument or a ligature."""
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
        "| " + " | ".join(markdown_text(name) for name in ["Source", *table.text_columns.values(), *arrows]) + " |",
        "|---" * (1 + len(table.text_columns)) + "|---:" * len(table.columns) + "|",
    ]
    for row in table.rows:
        cells = [markdown_text(row.source), *(markdown_text(row.texts.get(key, "")) or "–" for key in table.text_columns)]
        for column in table.columns:
            about = row.missing.get(column.key) or row.remarks.get(column.key)
            mark = f"<sup>{letters[about]}</sup>" if about else ""
            cells.append((shown_number(column, row) or "–") + mark)
        lines.append("| " + " | ".join(cells) + " |")
    below = [*(f"<sup>{letter}</sup> {markdown_text(text)}" for text, letter in letters.items()), *map(markdown_text, table.notes)]
    return "\n".join(lines) + "\n\n" + "\n\n".join(below) + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment with booktabs' rules and the notes below; needs \\usepackage{booktabs} and \\usepackage{textcomp}."""
    letters = footnotes(table)
    lines = [
        "% \\usepackage{booktabs}",
        "% \\usepackage{textcomp}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(table.title)}}}",
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
        lines.append(" & ".join(f"\\multicolumn{{{width}}}{{c}}{{{latex_text(group)}}}" for group, width in spans) + r" \\")
    headers = [f"{column.header} {ARROWS[column.better]}".strip() for column in table.columns]
    lines.append(" & ".join(latex_text(name) for name in ["Source", *table.text_columns.values(), *headers]) + r" \\")
    before = None
    for row in table.rows:
        if row.source != before:
            lines.append("\\midrule")
            before = row.source
        cells = [latex_text(row.source), *(latex_text(row.texts.get(key, "")) or "--" for key in table.text_columns)]
        for column in table.columns:
            about = row.missing.get(column.key) or row.remarks.get(column.key)
            mark = f"\\textsuperscript{{{letters[about]}}}" if about else ""
            number = re.sub(r"([+-])(?=[\d.])", r"$\1$", shown_number(column, row))
            cells.append((number or "--") + mark)
        lines.append(" & ".join(cells) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}", "", "\\smallskip", "\\begin{minipage}{\\linewidth}\\footnotesize"]
    below = [*(f"\\textsuperscript{{{letter}}} {latex_text(text)}" for text, letter in letters.items()), *map(latex_text, table.notes)]
    lines += ["\n\n".join(below), "\\end{minipage}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def write_table(table: Table, csv: str, markdown: str, latex: str) -> None:
    """Writes the three files of a table, each whole or not at all."""
    write_text(Path(csv), to_csv(table))
    write_text(Path(markdown), to_markdown(table))
    write_text(Path(latex), to_latex(table))


def write_models_table(settings: Mapping[str, Any], inputs: Any, outputs: Any) -> None:
    """A table of models, from a rule's settings, its inputs (`published`, `scores`) and its outputs (`csv`, `markdown`, `latex`)."""
    published = read_published(Path(inputs.published))
    scores = read_scores([Path(path) for path in inputs.scores])
    table = compare_models(published, settings["models"], settings["wanted"], scores, settings["label"], settings["base_model"])
    write_table(table, outputs.csv, outputs.markdown, outputs.latex)
