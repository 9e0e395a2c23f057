"""Several answers of one policy model to a prompt: what they are called, and how a row of stage
responses holds them.

A policy model with samples publishes one file a shard, under its own name. The samples' names
(`llava#2`) stand in rows only: no file, job or wildcard has a `#`, which not every shell, file
system and scheduler takes.
"""

from collections.abc import Sequence
from typing import cast

from typing_extensions import TypeIs

from lib.data.rows import MissingRow, ResponseRow, SampledResponsesRow
from lib.data.shards import is_missing, missing_row, prompt_of

MARK = "#"
RULE = "generate_responses"


def names_of(policy: str, samples: int) -> list[str]:
    """What the answers of a policy model are called."""
    if samples == 1:
        return [policy]
    return [f"{policy}{MARK}{number}" for number in range(1, samples + 1)]


def policy_of(name: str) -> str:
    """The policy model whose answer has a name."""
    return name.partition(MARK)[0]


def apart(
    row: ResponseRow | SampledResponsesRow | MissingRow, names: Sequence[str]
) -> dict[str, ResponseRow | MissingRow]:
    """The rows of a policy model's answers by their names, from its row of a prompt."""
    if is_missing(row):
        return dict.fromkeys(names, row)
    if not _is_sampled(row):
        return {names[0]: row}
    shared = {**prompt_of(row), "image": row["image"], "instruction": row["instruction"]}
    rows: dict[str, ResponseRow | MissingRow] = {}
    for name, sample in zip(names, row["samples"], strict=True):
        if "failed" in sample:
            rows[name] = missing_row(row, RULE, sample["failed"])
        else:
            rows[name] = cast("ResponseRow", {**shared, **sample})
    return rows


def _is_sampled(row: ResponseRow | SampledResponsesRow) -> TypeIs[SampledResponsesRow]:
    return "samples" in row
