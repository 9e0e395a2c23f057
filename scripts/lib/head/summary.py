"""What a run did, as a table: from the records that its jobs wrote."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lib.jobs.record import Record, read_record

#: The rules in the order of the flow; others follow by name.
ORDER = (
    "generate_prompts",
    "add_prompts",
    "generate_images",
    "gather_images",
    "rank_images",
    "write_instructions",
    "generate_responses",
    "rank_responses",
    "fit_rewards",
    "combine_rewards",
    "index_benchmarks",
    "check_contamination",
    "list_overlaps",
    "check_content",
    "fit_length",
    "build_pairs",
    "check_pairs",
    "merge_pairs",
    "data_set_card",
    "list_data_sets",
    "check_own_pairs",
    "import_pairs",
    "train_dpo",
    "merge_adapter",
    "convert_model",
    "answer_part",
    "answer_benchmark",
    "answer_questions",
    "score_benchmark",
    "score_answers",
    "model_cards",
    "compare_picks",
    "embed_texts",
    "report",
)


@dataclass
class RuleSummary:
    """What the jobs of a rule did."""

    rule: str
    jobs: int = 0
    computed: int = 0
    reused: int = 0
    failed: int = 0
    load_seconds: float = 0.0
    compute_seconds: float = 0.0

    def add(self, record: Record) -> None:
        """Adds a job."""
        self.jobs += 1
        self.computed += record.computed
        self.reused += record.reused
        self.failed += record.failed
        self.load_seconds += record.load_seconds
        self.compute_seconds += record.compute_seconds

    def cells(self) -> list[str | Text]:
        """Its line of the table."""
        failed = Text(str(self.failed), style="bold red" if self.failed else "")
        seconds = [f"{self.load_seconds:.1f}", f"{self.compute_seconds:.1f}"]
        return [self.rule, str(self.jobs), str(self.computed), str(self.reused), failed, *seconds]


def read_records(root: Path, since: str = "") -> list[Record]:
    """The records of all jobs under `root`, or of those that ended at or after `since` (ISO time,
    UTC).
    """
    # A job that runs meanwhile may remove a folder of its own while it is listed: os.walk passes
    # over it, where Path.glob raises.
    paths = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root / "work")
        for name in names
        if name.endswith(".json")
    )
    records = [record for path in paths if (record := read_record(path))]
    return [record for record in records if record.finished >= since]


def summarise(records: Iterable[Record]) -> list[RuleSummary]:
    """What each rule did, in the order of the flow."""
    rules: dict[str, RuleSummary] = {}
    for record in records:
        rules.setdefault(record.rule, RuleSummary(record.rule)).add(record)
    known = {rule: place for place, rule in enumerate(ORDER)}
    return sorted(rules.values(), key=lambda each: (known.get(each.rule, len(known)), each.rule))


@dataclass(frozen=True)
class Loading:
    """How much of the time of some jobs was loading models and libraries, in seconds by the clock
    from each job's first line to its record.
    """

    jobs: int
    load_seconds: float
    seconds: float

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """That of the jobs of these records."""
        costs = [(record.load_seconds, record.wall_seconds) for record in records]
        return cls(len(costs), sum(load for load, _ in costs), sum(wall for _, wall in costs))

    @property
    def share(self) -> float:
        """Of the jobs' time; 0 where they took none."""
        return self.load_seconds / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"loading was {self.share:.0%} of the jobs' time"
            f" ({self.load_seconds:.1f} of {self.seconds:.1f} s)"
        )


def notes_of(records: Iterable[Record]) -> list[str]:
    """What jobs put on record as unusual, a line each; what several jobs of a rule say in the same
    words is one line.
    """
    jobs: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for note in record.notes:
            jobs.setdefault((record.rule, note), []).append(record.job)
    return [
        (
            f"{rule} {noted[0]}: {note}"
            if len(noted) == 1
            else f"{rule} ({len(noted)} jobs, {noted[0]} first): {note}"
        )
        for (rule, note), noted in jobs.items()
    ]


def taken_over(records: Iterable[Record]) -> list[str]:
    """Where items came from that no job of this run had computed, a line each."""
    counts: dict[tuple[str, str], int] = {}
    for record in records:
        for source, count in record.taken_over.items():
            counts[record.rule, source] = counts.get((record.rule, source), 0) + count
    return [
        f"{rule}: {count} of the reused items were found in {source}"
        for (rule, source), count in counts.items()
    ]


def print_summary(root: Path, since: str, also: Sequence[str] = ()) -> None:
    """Prints what the jobs did that ended at or after `since`, what they put on record as unusual,
    and the lines of `also`.
    """
    records = read_records(root, since)
    if not records:
        return
    table = Table(title=f"What this run did ({root})", title_justify="left")
    table.add_column("rule", no_wrap=True)
    for column in ("jobs", "computed", "reused", "failed", "loading s", "computing s"):
        table.add_column(column, justify="right")
    for rule in summarise(records):
        table.add_row(*rule.cells())
    # A log file has no width of its own; eighty columns would cut the rules' names.
    # Names, paths and notes are data: nothing in them is markup or an emoji's name.
    console = Console(
        stderr=True,
        width=None if sys.stderr.isatty() else 110,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(table)
    notes = [f"note: {note}" for note in notes_of(records)]
    for line in (str(Loading.of(records)), *taken_over(records), *notes, *also):
        console.print(line)
