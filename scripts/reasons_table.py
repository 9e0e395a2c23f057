"""Rule reasons_table: why prompts gave no pair, and why responses were not ranked, counted by
topic.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from lib.data.shards import Row as ShardRow
from lib.data.shards import is_missing, read_shard
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report.published import our_source
from lib.report.tables import Column, Row, Table, write_table

VERSION = 1
#: Reasons that a stage gives on purpose; everything else that is missing is a failed item.
ON_PURPOSE = ("all images blank", "image reward below minimum")
TOTAL = "all topics"


def reason_of(row: ShardRow) -> str:
    """What became of a prompt: "pairs", or why it has none. A failure's own words can be anything:
    it is counted by its rule.
    """
    if "pair" in row:
        return "pairs"
    if is_missing(row):
        rule, reason = row["missing"]["rule"], row["missing"]["reason"]
        return next((known for known in ON_PURPOSE if reason.startswith(known)), f"{rule} failed")
    return str(row["no_pair"])


def build_table(rows: Iterable[ShardRow], source: str) -> Table:
    """One line a topic and one for all: prompts, pairs, prompts left out by reason, invalid
    responses by reason. `source`: whose rows.
    """
    prompts: dict[str, Counter[str]] = {}
    responses: dict[str, Counter[str]] = {}
    for row in rows:
        for topic in (row["topic"], TOTAL):
            prompts.setdefault(topic, Counter())[reason_of(row)] += 1
            responses.setdefault(topic, Counter()).update(row.get("invalid_responses", {}).values())
    total = prompts.get(TOTAL, Counter())
    reasons = sorted(
        (reason for reason in total if reason != "pairs"),
        key=lambda reason: (-total[reason], reason),
    )
    invalid = sorted(responses.get(TOTAL, Counter()))
    columns = [
        Column("prompts", "Prompts", "prompts", None, 0),
        Column("pairs", "Pairs", "prompts", None, 0),
        *(Column(f"prompt {reason}", reason, "prompts", None, 0, "No pair:") for reason in reasons),
        *(
            Column(f"response {reason}", reason, "responses", None, 0, "Invalid responses:")
            for reason in invalid
        ),
    ]
    topics = [*sorted(topic for topic in prompts if topic != TOTAL), *([TOTAL] if prompts else [])]
    lines = []
    for topic in topics:
        values: dict[str, float] = {
            "prompts": prompts[topic].total(),
            "pairs": prompts[topic]["pairs"],
        }
        values |= {f"prompt {reason}": prompts[topic][reason] for reason in reasons}
        values |= {f"response {reason}": responses[topic][reason] for reason in invalid}
        origin = {"pairs": "pairs" if topic == TOTAL else f"pairs/{topic}"}
        lines.append(
            Row(
                source, {"topic": topic}, values, origins={column.key: origin for column in columns}
            )
        )
    notes = [
        "An invalid response is left out of its prompt's ranking; a prompt with fewer than two"
        " valid responses gives no pair."
    ]
    return Table(
        "Why prompts gave no pair, and why responses were not ranked",
        {"topic": "Topic"},
        columns,
        lines,
        notes,
    )


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    rows = [row for path in snakemake.input for row in read_shard(path).values()]
    write_table(
        build_table(rows, our_source(job.settings["label"])),
        list(snakemake.input),
        snakemake.output,
    )
    job.record.items = job.record.computed = len(rows)
    job.write_record()


if __name__ == "__main__":
    run_script(main)
