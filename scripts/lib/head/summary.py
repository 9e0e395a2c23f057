"""What a run did, as a table: from the records that its jobs wrote."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

#: The rules in the order of the flow; others follow by name.
ORDER = (
    "generate_prompts",
    "generate_images",
    "rank_images",
    "write_instructions",
    "generate_responses",
    "rank_responses",
    "index_benchmarks",
    "check_contamination",
    "list_overlaps",
    "build_pairs",
    "merge_pairs",
    "train_dpo",
    "merge_adapter",
    "answer_benchmark",
    "answer_questions",
    "score_benchmark",
    "score_answers",
    "compare_picks",
    "embed_texts",
)


def read_records(root: Path, since: str = "") -> list[dict[str, Any]]:
    """The records of all jobs under `root`, or of those that ended at or after `since` (ISO time,
    UTC).
    """
    records = []
    # A job that runs meanwhile may remove a folder of its own while it is listed: os.walk passes
    # over it, where Path.glob raises.
    for path in sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root / "work")
        for name in names
        if name.endswith(".json")
    ):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (
            isinstance(record, dict)
            and {"rule", "job", "computed", "finished"} <= record.keys()
            and record["finished"] >= since
        ):
            records.append(record)
    return records


def summarise(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a rule: jobs, items computed, reused and failed, seconds loading and computing; in
    the order of the flow.
    """
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        row = rows.setdefault(record["rule"], {"rule": record["rule"], "jobs": 0})
        row["jobs"] += 1
        for name in ("computed", "reused", "failed", "load_seconds", "compute_seconds"):
            row[name] = row.get(name, 0) + record[name]
    known = {rule: place for place, rule in enumerate(ORDER)}
    return sorted(rows.values(), key=lambda row: (known.get(row["rule"], len(known)), row["rule"]))


def notes_of(records: Iterable[dict[str, Any]]) -> list[str]:
    """What jobs put on record as unusual, a line each; what several jobs of a rule say in the same
    words is one line.
    """
    jobs: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for note in record["notes"]:
            jobs.setdefault((record["rule"], note), []).append(record["job"])
    return [
        (
            f"{rule} {said[0]}: {note}"
            if len(said) == 1
            else f"{rule} ({len(said)} jobs, {said[0]} first): {note}"
        )
        for (rule, note), said in jobs.items()
    ]


def print_summary(root: Path, since: str) -> None:
    """Prints what the jobs did that ended at or after `since`, and what they put on record as
    unusual.
    """
    records = read_records(root, since)
    if not records:
        return
    table = Table(title=f"What this run did ({root})", title_justify="left")
    table.add_column("rule", no_wrap=True)
    for column in ("jobs", "computed", "reused", "failed", "loading s", "computing s"):
        table.add_column(column, justify="right")
    for row in summarise(records):
        failed = f"[bold red]{row['failed']}[/]" if row["failed"] else "0"
        seconds = (f"{row['load_seconds']:.1f}", f"{row['compute_seconds']:.1f}")
        table.add_row(
            row["rule"],
            str(row["jobs"]),
            str(row["computed"]),
            str(row["reused"]),
            failed,
            *seconds,
        )
    # A log file has no width of its own; eighty columns would cut the rules' names.
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 110)
    console.print(table)
    for note in notes_of(records):
        console.print(f"note: {note}", markup=False, highlight=False)
