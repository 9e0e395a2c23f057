"""The published shard files: one row a prompt, in the order of the prompt ids, in every stage.

A row that a stage has no result for says which stage stopped it and why, and is carried through all
later stages (`MissingRow`). So each file tells of every prompt of its shard.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from typing_extensions import TypeIs

from lib.data.rows import MissingRow, PromptRow
from lib.files import read_jsonl
from lib.jobs.batches import Outcome

Row = TypeVar("Row", bound=PromptRow)


def read_shard(path: str | Path, row: type[Row]) -> dict[str, Row | MissingRow]:
    """The rows of a shard file by prompt id. `row`: what its stage publishes (lib/data/rows.py)."""
    return {entry["id"]: cast("Row", entry) for entry in read_jsonl(Path(path))}


def read_shards(paths: Iterable[str | Path], row: type[Row]) -> dict[str, Row | MissingRow]:
    """The rows of several shard files of a stage by prompt id."""
    return {name: entry for path in paths for name, entry in read_shard(path, row).items()}


def is_missing(row: PromptRow) -> TypeIs[MissingRow]:
    """Whether this or an earlier stage has no result for the prompt."""
    return "missing" in row


def present(rows: Iterable[Row | MissingRow]) -> list[Row]:
    """The rows that are not missing."""
    return [row for row in rows if not is_missing(row)]


def missing_row(row: PromptRow, rule: str, reason: str) -> MissingRow:
    """The row of a prompt that `rule` has no result for."""
    return {**prompt_of(row), "missing": {"rule": rule, "reason": reason}}


def prompt_of(row: PromptRow) -> PromptRow:
    """What the rows of all stages of a prompt begin with."""
    return {"id": row["id"], "topic": row["topic"], "prompt": row["prompt"]}


def stage_rows(
    rows: Mapping[str, Any], outcomes: Mapping[str, Outcome[Any]], rule: str
) -> list[PromptRow]:
    """A stage's rows from those of the stage before: what was missing stays so, the rest has its
    result or its reason.

    `rows`: by prompt id. `outcomes`: by prompt id, for each row that was not missing.
    """
    published: list[PromptRow] = []
    for prompt_id, row in rows.items():
        if is_missing(row):
            published.append(row)
        elif (outcome := outcomes[prompt_id]).result is None:
            published.append(missing_row(row, rule, str(outcome.reason)))
        else:
            published.append(cast("PromptRow", {**prompt_of(row), **outcome.result}))
    return published
