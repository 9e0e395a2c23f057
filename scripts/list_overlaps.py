"""Rule list_overlaps: everything that the training data and the benchmarks have in common, in one
list, and what could not be checked.

`overlaps.jsonl` has one overlap a line, `overlaps.csv` the same for a spreadsheet, `overlaps.md`
the numbers and the first of them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lib.config.contamination import ListOverlapsJob
from lib.contamination import short_questions
from lib.data.evaluation_files import Coverage, IndexedQuestion
from lib.data.rows import ListedOverlap, OverlapsRow
from lib.data.shards import present, read_whole_shards
from lib.files import read_jsonl, write_text
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.tables import csv_text, markdown_text

VERSION = 1
SHOWN = 50
HEADINGS = (
    "Checked",
    "Questions",
    "Too short",
    "Different images",
    "Prompts",
    "Instructions",
    "Images",
)
COLUMNS = ("id", "of", "benchmark", "question", "questions", "measure", "value", "text")
KEPT = (
    "They are listed, and stay in the training data (`evaluation.contamination.exclude` leaves them"
    " out)."
)
LEFT_OUT = "Those prompts gave no pair (reason `in a benchmark`)."


def csv_of(overlaps: Sequence[ListedOverlap]) -> str:
    """The overlaps for a spreadsheet; no text of them is read as a formula."""
    import pandas as pd

    cells: list[Mapping[str, Any]] = [*overlaps]
    frame = pd.DataFrame(
        [{name: csv_text(overlap[name]) for name in COLUMNS} for overlap in cells],
        columns=list(COLUMNS),
    )
    return str(frame.to_csv(index=False, lineterminator="\n"))


def list_overlaps(rows: Sequence[OverlapsRow]) -> list[ListedOverlap]:
    """The overlaps of all prompts, each with its prompt's id."""
    return [
        {"id": row["id"], "topic": row["topic"], **overlap}
        for row in rows
        for overlap in row["overlaps"]
    ]


def count_short(
    index: Sequence[IndexedQuestion], benchmarks: Sequence[str], min_words: int
) -> dict[str, int]:
    """How many questions of each benchmark are too short to be compared."""
    # A question with several images has several rows.
    questions = {(row["benchmark"], row["id"], row["question"]): row for row in index}
    return {
        name: short_questions(
            [row for row in questions.values() if row["benchmark"] == name], min_words
        )
        for name in benchmarks
    }


def measures_text(settings: ListOverlapsJob) -> str:
    """What counts as an overlap."""
    return (
        f"Texts overlap where they have {settings.ngram} words in a row in common, or where a"
        " question of fewer words stands in the text as a whole or shares"
        f" {settings.short_similarity:.0%} of its word pairs with it (Jaccard); questions of"
        f" fewer than {settings.min_words} words are not compared. Images overlap where their"
        f" perceptual hashes differ in at most {settings.image_distance} of 64 bits."
    )


def coverage_lines(
    overlaps: Sequence[ListedOverlap], coverage: Mapping[str, Coverage], short: Mapping[str, int]
) -> list[str]:
    """The table of benchmarks: what was checked, and what was found."""
    lines = [
        f"| Benchmark | {' | '.join(HEADINGS)} |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, about in coverage.items():
        if not about["checked"]:
            why = markdown_text(about["why"])
            lines.append(f"| {markdown_text(name)} | **no**: {why} |" + " – |" * 6)
            continue
        of = Counter(each["of"] for each in overlaps if each["benchmark"] == name)
        numbers = [about["questions"], short.get(name, 0), about["different_images"]]
        numbers += [of["prompt"], of["instruction"], of["image"]]
        lines.append(f"| {markdown_text(name)} | yes | " + " | ".join(map(str, numbers)) + " |")
    return lines


def overlap_lines(overlaps: Sequence[ListedOverlap]) -> list[str]:
    """The table of the first overlaps."""
    lines = [
        "",
        "| Prompt | Of | Benchmark | Question | Measure | Value | Words in common |",
        "|---|---|---|---|---|---:|---|",
    ]
    for overlap in overlaps[:SHOWN]:
        names = [overlap["id"], overlap["of"], overlap["benchmark"], overlap["question"]]
        cells = [markdown_text(str(name)) for name in [*names, overlap["measure"]]]
        cells += [f"{overlap['value']:g}", markdown_text(overlap["text"])]
        lines.append("| " + " | ".join(cells) + " |")
    if len(overlaps) > SHOWN:
        lines += [
            "",
            f"The first {SHOWN} of {len(overlaps)}; all are in overlaps.jsonl and overlaps.csv.",
        ]
    return lines


def page(
    overlaps: Sequence[ListedOverlap],
    checked: str,
    coverage: Mapping[str, Coverage],
    short: Mapping[str, int],
    settings: ListOverlapsJob,
) -> str:
    """The numbers, what was not checked and why, and the first overlaps. `checked`: of how many
    prompts and pairs these are.
    """
    touched = len({overlap["id"] for overlap in overlaps})
    numbers = f"{len(overlaps)} overlaps in all."
    if overlaps:
        numbers += f" {LEFT_OUT if settings.exclude else KEPT}"
    lines = [
        "# What training data and benchmarks have in common",
        "",
        f"{touched} of {checked} have an overlap, {numbers}",
        "",
        measures_text(settings),
        "",
        *coverage_lines(overlaps, coverage, short),
        *(overlap_lines(overlaps) if overlaps else []),
    ]
    return "\n".join(lines) + "\n"


def main(snakemake: Any) -> None:
    with Job(snakemake, ListOverlapsJob, VERSION) as job:
        rows = present(read_whole_shards(job, snakemake.input.shards, OverlapsRow).values())
        # Ids of somebody's pairs may be those of others, or of prompts, too.
        files = getattr(snakemake.input, "own_pairs", [])
        own = [
            cast("OverlapsRow", row | {"id": f"{row['topic']}: {row['id']}"})
            for file in files
            for row in read_jsonl(Path(file))
        ]
        coverage: dict[str, Coverage] = json.loads(
            Path(snakemake.input.coverage).read_text(encoding="utf-8")
        )
        index = cast("list[IndexedQuestion]", read_jsonl(Path(snakemake.input.index)))
        short = count_short(index, list(coverage), job.settings.min_words)
        overlaps = list_overlaps([*rows, *own])
        job.publish(snakemake.output.list, overlaps)
        write_text(Path(snakemake.output.csv), csv_of(overlaps))
        checked = " and ".join(
            f"{len(each)} {what}" for each, what in ((rows, "prompts"), (own, "own pairs")) if each
        )
        text = page(overlaps, checked or "0 prompts", coverage, short, job.settings)
        write_text(Path(snakemake.output.page), text)
        job.count(len(rows) + len(own))


if __name__ == "__main__":
    run_script(main)
