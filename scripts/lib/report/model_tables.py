"""Tables of models (the paper's Tables 1, 2 and 3): the paper's rows, then our models with their
scores.

A difference to the paper is shown only where it means something: our row and the paper's are of the
same model and data size, on all questions, and the run is no demo. Experiments that differ in
nothing but their training seed are one row, with mean and spread.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.jobs.legacy import ShardJob
from lib.report.published import Published, notes_of, our_source, paper_rows, read_published
from lib.report.tables import Column, Row, Table, write_table

VERSION = 1
#: The model that the paper's rows with `pairs` are of, as its hub names contain it.
PAPER_BASE_MODEL = "llava-1.5-7b"
#: What a scores.json says of how its scores came to be; the sidecar's cells carry it.
ORIGIN = (
    "model",
    "benchmark",
    "model_identity",
    "task",
    "lmms_eval",
    "limit",
    "questions",
    "questions_in_data",
    "answers",
    "computed_by",
    "environment",
)

Scores = Mapping[tuple[str, str], Mapping[str, Any]]


def read_scores(paths: Sequence[Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """The scores.json files by (model, benchmark)."""
    found = {}
    for path in paths:
        score = json.loads(Path(path).read_text(encoding="utf-8"))
        # evaluation/<model>/<benchmark>/scores.json in the run's folder.
        found[score["model"], score["benchmark"]] = score | {
            "file": "/".join(Path(path).parts[-4:])
        }
    return found


def _cell(row: Row, column: Column, models: Sequence[str], wanted: str, scores: Scores) -> None:
    """Fills one cell from the scores of one model, or from those of several seeds: mean, and
    standard deviation of the sample.
    """
    benchmark, names = _named(wanted)
    shown = column.group or column.header
    found = [scores.get((model, benchmark)) for model in models]
    present = [score for score in found if score is not None]
    name = next(
        (name for name in names if all(score["scores"].get(name) is not None for score in present)),
        names[-1],
    )
    row.origins[column.key] = {"score": name, "runs": [_origin(score, name) for score in present]}
    if len(present) < len(models):
        row.missing[column.key] = f"{shown}: no benchmark '{benchmark}' configured in this run."
        return
    for score in present:
        if score["scores"].get(name) is None:
            told = [reason for each in names if (reason := (score.get("missing") or {}).get(each))]
            reason = (
                told[0] if told else f"benchmark '{benchmark}' of this run has no score '{name}'"
            )
            row.missing[column.key] = f"{shown}: {reason}."
            return
    values = [float(score["scores"][name]) for score in present]
    row.values[column.key] = statistics.fmean(values)
    if len(values) > 1:
        row.spreads[column.key] = statistics.stdev(values)
    if present[0].get("limit"):
        row.remarks[column.key] = (
            f"{shown}: only the first {present[0]['questions']} of"
            f" {present[0]['questions_in_data']} questions."
        )


def _named(wanted: str) -> tuple[str, list[str]]:
    """Benchmark and names of scores of "benchmark/one|other"."""
    benchmark, _, names = wanted.partition("/")
    return benchmark, names.split("|")


def _origin(score: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Where one score comes from. Some are another scorer's than the file's (`also`), which then is
    the one to be named.
    """
    origin = {
        "scores": score.get("file"),
        "value": score["scores"].get(name),
        **{key: score[key] for key in ORIGIN if key in score},
    }
    also = score.get("also") or {}
    return origin | ({"computed_by": also["computed_by"]} if name in also.get("scores", {}) else {})


def _control(about: Mapping[str, Any]) -> str:
    """What marks a row as a negative control; nothing for all others."""
    return f"; control: {about['control']}" if "control" in about else ""


def our_row(
    about: Mapping[str, Any],
    published: Published,
    wanted: Mapping[str, str],
    scores: Scores,
    label: str,
    compared: Mapping[str, Any] | None,
) -> Row:
    """One row of ours. `about`: see `compare_models`; `wanted`: see lib/head/evaluation.py; `compared`:
    the paper's row.
    """
    first, *others = published.text_columns
    seeds = f", {len(about['models'])} seeds" if len(about["models"]) > 1 else ""
    size = (
        "before training"
        if about["pairs"] == 0
        else f"{about['pairs']} pairs{seeds}{_control(about)}"
    )
    texts = {first: f"{about['name']} ({size})"} | {
        key: str(about["texts"].get(key, "")) for key in others
    }
    row = Row(our_source(label), texts)
    for column in published.columns:
        _cell(row, column, about["models"], wanted[column.key], scores)
        comparable = (
            label == "ours"
            and compared
            and column.key in row.values
            and column.key not in row.remarks
        )
        if (
            comparable
            and compared
            and compared.get(column.key) is not None
            and column.key not in compared.get("not_compared", ())
        ):
            row.differences[column.key] = row.values[column.key] - compared[column.key]
    return row


def compare_models(
    published: Published,
    rows: Sequence[Mapping[str, Any]],
    wanted: Mapping[str, str],
    scores: Scores,
    label: str,
    base_model: str,
) -> Table:
    """A table of models: the paper's rows, then ours in the order of `rows`.

    `rows`: each with `name`, `models` (the experiments it is of: several where they differ in their
    seed only), `seeds`, `pairs` (number it was trained on, 0 for the base model) and `texts` (of
    the text columns beside the name); of a negative control also `control`, what it is in words:
    such a row is marked, and compared with none of the paper's.
    """
    printed = {row["pairs"]: row for row in published.rows if "pairs" in row}
    same_model = PAPER_BASE_MODEL in base_model.casefold()
    table_rows = paper_rows(published)
    for about in rows:
        compared = printed.get(about["pairs"]) if same_model and "control" not in about else None
        table_rows.append(our_row(about, published, wanted, scores, label, compared))
    notes = (
        notes_of(published, table_rows, label)
        + seed_notes(rows)
        + origins(published.columns, table_rows)
    )
    return Table(published.title, published.text_columns, published.columns, table_rows, notes)


def seed_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which rows are means over several seeds, and of what."""
    return [
        f"{about['name']} ({about['pairs']} pairs{_control(about)}): mean ± standard deviation of"
        f" the sample over {len(about['seeds'])} training seeds"
        f" ({', '.join(map(str, about['seeds']))}), experiments {', '.join(about['models'])}."
        for about in rows
        if len(about["models"]) > 1
    ]


def origins(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Where our numbers come from: benchmark, score, and what computed it; columns that have that
    in common in one note.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for column in columns:
        for row in rows:
            for run in row.origins[column.key].get("runs", []) if column.key in row.values else ():
                found.setdefault((run["benchmark"], computed_by(run)), {})[column.name] = (
                    row.origins[column.key]["score"]
                )
    return [
        f"Ours, {', '.join(scores)}: score{'s' if len(scores) > 1 else ''}"
        f" {', '.join(map(repr, scores.values()))} of benchmark '{benchmark}' ({by})."
        for (benchmark, by), scores in found.items()
    ]


def computed_by(run: Mapping[str, Any]) -> str:
    """What computed a score, in words."""
    made = run["computed_by"]
    also = [
        f"answers read by: {made['parser']}" if made["parser"] else "",
        f"judge {made['judge']['model']}" if made["judge"] else "",
        f"language tools: {made['language_tools']}" if made["language_tools"] else "",
    ]
    return "; ".join([made["scorer"], *filter(None, also)])


def models_table(snakemake: Any) -> None:
    """A rule that makes such a table: inputs `published` and `scores`, outputs as `write_table` has
    them.
    """
    job = ShardJob(snakemake, VERSION)
    settings, inputs = job.settings, snakemake.input
    published = read_published(Path(inputs.published))
    scores = read_scores([Path(path) for path in inputs.scores])
    table = compare_models(
        published,
        settings["rows"],
        settings["wanted"],
        scores,
        settings["label"],
        settings["base"]["model"],
    )
    about = {
        "base_model": settings["base"],
        "experiments": {
            row["name"]: {name: row[name] for name in ("models", "seeds", "control") if name in row}
            for row in settings["rows"]
        },
    }
    write_table(table, [inputs.published, *inputs.scores], snakemake.output, about)
    job.record.items = job.record.computed = len(settings["rows"])
    job.write_record()
