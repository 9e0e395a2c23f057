"""The published shard files: one row a prompt, in the order of the prompt ids, in every stage.

A row that a stage has no result for says which stage stopped it and why, and is carried through all
later stages: `{"id", "topic", "prompt", "missing": {"rule", "reason"}}`. So each file tells of
every prompt of its shard.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.files import read_jsonl
from lib.jobs.job import Outcome

Row = dict[str, Any]


def read_shard(path: str | Path) -> dict[str, Row]:
    """The rows of a shard file by prompt id."""
    return {row["id"]: row for row in read_jsonl(Path(path))}


def is_missing(row: Row) -> bool:
    """Whether this or an earlier stage has no result for the prompt."""
    return "missing" in row


def missing_row(row: Row, rule: str, reason: str) -> Row:
    """The row of a prompt that `rule` has no result for."""
    return {
        "id": row["id"],
        "topic": row["topic"],
        "prompt": row["prompt"],
        "missing": {"rule": rule, "reason": reason},
    }


def stage_rows(rows: Mapping[str, Row], outcomes: Mapping[str, Outcome], rule: str) -> list[Row]:
    """A stage's rows from those of the stage before: what was missing stays so, the rest has its
    result or its reason.

    `outcomes`: by prompt id, for each row that was not missing.
    """
    published = []
    for prompt_id, row in rows.items():
        if is_missing(row):
            published.append(row)
        elif (outcome := outcomes[prompt_id]).result is None:
            published.append(missing_row(row, rule, str(outcome.reason)))
        else:
            published.append(
                {"id": row["id"], "topic": row["topic"], "prompt": row["prompt"], **outcome.result}
            )
    return published
