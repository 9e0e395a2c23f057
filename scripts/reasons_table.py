"""Rule reasons_table: why prompts gave no pair, why responses were not ranked, and what rule
check_pairs found in the pairs, counted by topic.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.config.tables import ReasonsTableJob
from lib.data.data_sets import PAIRS, reason_of
from lib.data.rows import MissingRow, PairRow
from lib.data.shards import is_missing, read_whole_shards
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.pair_checks.checker import CheckReport, Report
from lib.report.published import our_source
from lib.report.review_counts import count_reviews
from lib.report.tables import Table, TableColumn, TableRow, write_table

VERSION = 2
TOTAL = "all topics"
#: What reviewers do to pairs that stay; what they had left out is a reason.
REVIEWED = {"accept": "accepted", "swap": "swapped"}
NOTE = (
    "An invalid response is left out of its prompt's ranking; a prompt with fewer than two valid"
    " responses gives no pair."
)
QUALITY_NOTE = (
    "What checks found in pairs leaves none of them out; `pairs.quality.max_share` has it stop the"
    " run. What each counts: docs/checking-pairs.md."
)


def length_notes(quality: Report) -> list[str]:
    """What lengths alone say of the pairs; nothing where there is none."""
    if not (lengths := quality.get("lengths")):
        return []
    low, high = lengths["interval"]
    note = (
        f"A rule by which the {lengths['rule']} answer wins is right in {lengths['right']:.1%} of"
        f" the pairs (95 % interval {low:.1%} to {high:.1%}; Cohen's d of the words"
        f" {lengths['effect_size']:+.2f})."
    )
    return [note]


class Reasons:
    """How often each reason is given, by topic and for all topics: why prompts gave no pair (or
    `PAIRS` where they did), why responses are invalid, what reviewers did to pairs that stay, and
    what checks found in pairs.
    """

    def __init__(
        self, rows: Iterable[PairRow | MissingRow], checks: Mapping[str, CheckReport]
    ) -> None:
        """`checks`: what rule check_pairs found, by check."""
        self.prompts: dict[str, Counter[str]] = {}
        self.responses: dict[str, Counter[str]] = {}
        self.reviews: dict[str, Counter[str]] = {}
        for row in rows:
            invalid = [] if is_missing(row) else row["invalid_responses"].values()
            reviewed = "" if is_missing(row) or "review" not in row else row["review"]["verdict"]
            for topic in (row["topic"], TOTAL):
                self.reviews.setdefault(topic, Counter())[REVIEWED.get(reviewed, "")] += 1
                self.prompts.setdefault(topic, Counter())[reason_of(row)] += 1
                self.responses.setdefault(topic, Counter()).update(invalid)

        self.quality: dict[str, Counter[str]] = {topic: Counter() for topic in self.prompts}
        for name, check in checks.items():
            for finding in check["findings"]:
                for topic in (finding["topic"], TOTAL):
                    self.quality[topic][name] += 1

    @property
    def topics(self) -> list[str]:
        """The topics by name, and all of them last; nothing where there is no prompt."""
        return sorted(self.prompts, key=lambda topic: (topic == TOTAL, topic))

    @property
    def of_prompts(self) -> list[str]:
        """Why prompts gave no pair, the most frequent reason first."""
        total = self.prompts.get(TOTAL, Counter())
        reasons = [reason for reason in total if reason != PAIRS]
        return sorted(reasons, key=lambda reason: (-total[reason], reason))

    @property
    def of_responses(self) -> list[str]:
        """Why responses are invalid, by name."""
        return sorted(self.responses.get(TOTAL, Counter()))

    @property
    def of_reviews(self) -> list[str]:
        """What reviewers did to pairs that stay, as far as they did."""
        return [name for name in REVIEWED.values() if self.reviews.get(TOTAL, Counter())[name]]

    @property
    def of_quality(self) -> list[str]:
        """The checks that found something, by name."""
        return sorted(self.quality.get(TOTAL, Counter()))


def columns_of(reasons: Reasons) -> list[TableColumn]:
    """Prompts, pairs, and a column for each reason."""
    no_pair, invalid, quality = "No pair:", "Invalid responses:", "Found in pairs:"
    reviews = "Reviewed pairs:"
    return [
        TableColumn("prompts", "Prompts", "prompts", None, 0),
        TableColumn("pairs", "Pairs", "prompts", None, 0),
        *(
            TableColumn(f"prompt {reason}", reason, "prompts", None, 0, no_pair)
            for reason in reasons.of_prompts
        ),
        *(
            TableColumn(f"response {reason}", reason, "responses", None, 0, invalid)
            for reason in reasons.of_responses
        ),
        *(
            TableColumn(f"review {what}", what, "pairs", None, 0, reviews)
            for what in reasons.of_reviews
        ),
        *(
            TableColumn(f"quality {check}", check, "pairs", None, 0, quality)
            for check in reasons.of_quality
        ),
    ]


def row_of(topic: str, reasons: Reasons, columns: Sequence[TableColumn], source: str) -> TableRow:
    """A topic's row."""
    prompts, responses = reasons.prompts[topic], reasons.responses[topic]
    values: dict[str, float] = {
        "prompts": prompts.total(),
        "pairs": prompts[PAIRS],
        **{f"prompt {reason}": prompts[reason] for reason in reasons.of_prompts},
        **{f"response {reason}": responses[reason] for reason in reasons.of_responses},
        **{f"review {what}": reasons.reviews[topic][what] for what in reasons.of_reviews},
        **{f"quality {check}": reasons.quality[topic][check] for check in reasons.of_quality},
    }
    origin = {"pairs": "pairs" if topic == TOTAL else f"pairs/{topic}"}
    origins = {column.key: origin for column in columns}
    return TableRow(source, {"topic": topic}, values, origins={**origins})


def build_table(rows: Iterable[PairRow | MissingRow], quality: Report, source: str) -> Table:
    """One line a topic and one for all: prompts, pairs, prompts left out by reason, invalid
    responses by reason, pairs that a check found something in. `source`: whose rows.
    """
    rows = list(rows)
    reasons = Reasons(rows, quality["checks"])
    columns = columns_of(reasons)
    return Table(
        "Why prompts gave no pair, and why responses were not ranked",
        {"topic": "Topic"},
        columns,
        [row_of(topic, reasons, columns, source) for topic in reasons.topics],
        [NOTE, QUALITY_NOTE, *length_notes(quality), *count_reviews(rows).lines()],
    )


def main(snakemake: Any) -> None:
    with Job(snakemake, ReasonsTableJob, VERSION) as job:
        rows = read_whole_shards(job, snakemake.input.pairs, PairRow)
        quality: Report = json.loads(Path(snakemake.input.quality).read_text(encoding="utf-8"))
        table = build_table(rows.values(), quality, our_source(job.settings.label))
        write_table(table, list(snakemake.input), snakemake.output)
        job.count(len(rows))


if __name__ == "__main__":
    run_script(main)
