"""Rule list_overlaps: everything that the training data and the benchmarks have in common, in one
list, and what could not be checked.

`overlaps.jsonl` has one overlap a line, `overlaps.csv` the same for a spreadsheet, `overlaps.md`
the numbers and the first of them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.contamination import short_questions
from lib.data.shards import is_missing, read_shard
from lib.files import read_jsonl, write_jsonl, write_text
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report.tables import csv_text, markdown_text

VERSION = 1
SHOWN = 50
COLUMNS = ("id", "of", "benchmark", "question", "questions", "measure", "value", "text")


def csv_of(overlaps: Sequence[Mapping[str, Any]]) -> str:
    """The overlaps for a spreadsheet; no text of them is read as a formula."""
    import pandas as pd

    frame = pd.DataFrame(
        [{name: csv_text(overlap[name]) for name in COLUMNS} for overlap in overlaps],
        columns=list(COLUMNS),
    )
    return str(frame.to_csv(index=False, lineterminator="\n"))


def page(
    overlaps: Sequence[Mapping[str, Any]],
    prompts: int,
    coverage: Mapping[str, Any],
    short: Mapping[str, int],
    settings: Mapping[str, Any],
) -> str:
    """The numbers, what was not checked and why, and the first overlaps."""
    touched = len({overlap["id"] for overlap in overlaps})
    by_benchmark = {
        name: Counter(each["of"] for each in overlaps if each["benchmark"] == name)
        for name in coverage
    }
    how = (
        f"Texts overlap where they have {settings['ngram']} words in a row in common, or where a"
        " question of fewer words stands in the text as a whole or shares"
        f" {settings['short_similarity']:.0%} of its word pairs with it (Jaccard); questions of"
        f" fewer than {settings['min_words']} words are not compared. Images overlap where their"
        f" perceptual hashes differ in at most {settings['image_distance']} of 64 bits."
    )
    kept = (
        "Those prompts gave no pair (reason `in a benchmark`)."
        if settings["exclude"]
        else (
            "They are listed, and stay in the training data (`evaluation.contamination.exclude`"
            " leaves them out)."
        )
    )
    lines = [
        "# What training data and benchmarks have in common",
        "",
        f"{touched} of {prompts} prompts have an overlap, {len(overlaps)} overlaps in all."
        + (f" {kept}" if overlaps else ""),
        "",
        how,
        "",
        (
            "| Benchmark | Checked | Questions | Too short | Different images | Prompts |"
            " Instructions | Images |"
        ),
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, about in coverage.items():
        if about["checked"]:
            numbers = [about["questions"], short.get(name, 0), about["different_images"]]
            numbers += [by_benchmark[name][of] for of in ("prompt", "instruction", "image")]
            lines.append(f"| {markdown_text(name)} | yes | " + " | ".join(map(str, numbers)) + " |")
        else:
            lines.append(
                f"| {markdown_text(name)} | **no**: {markdown_text(about['why'])} |" + " – |" * 6
            )
    if overlaps:
        lines += [
            "",
            "| Prompt | Of | Benchmark | Question | Measure | Value | Words in common |",
            "|---|---|---|---|---|---:|---|",
        ]
    for overlap in overlaps[:SHOWN]:
        cells = [str(overlap[name]) for name in ("id", "of", "benchmark", "question", "measure")]
        cells = [
            *map(markdown_text, cells),
            f"{overlap['value']:g}",
            markdown_text(overlap["text"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if len(overlaps) > SHOWN:
        lines += [
            "",
            f"The first {SHOWN} of {len(overlaps)}; all are in overlaps.jsonl and overlaps.csv.",
        ]
    return "\n".join(lines) + "\n"


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    rows = [
        row
        for path in snakemake.input.shards
        for row in read_shard(path).values()
        if not is_missing(row)
    ]
    overlaps = [
        {"id": row["id"], "topic": row["topic"], **overlap}
        for row in rows
        for overlap in row["overlaps"]
    ]
    coverage = json.loads(Path(snakemake.input.coverage).read_text(encoding="utf-8"))
    index = read_jsonl(Path(snakemake.input.index))
    # A question with several images has several rows.
    questions = {(row["benchmark"], row["id"], row["question"]): row for row in index}
    short = {
        name: short_questions(
            [row for row in questions.values() if row["benchmark"] == name],
            job.settings["min_words"],
        )
        for name in coverage
    }
    write_jsonl(Path(snakemake.output.list), overlaps)
    write_text(Path(snakemake.output.csv), csv_of(overlaps))
    write_text(
        Path(snakemake.output.page), page(overlaps, len(rows), coverage, short, job.settings)
    )
    job.record.items = job.record.computed = len(rows)
    job.write_record()


if __name__ == "__main__":
    run_script(main)
