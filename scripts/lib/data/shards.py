"""The published shard files: one row a prompt, in the order of the prompt ids, in every stage.

A row that a stage has no result for says which stage stopped it and why, and is carried through all
later stages (`MissingRow`). So each file tells of every prompt of its shard; one that does not is
refused by whoever reads it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from typing_extensions import TypeIs

from lib.data.rows import MissingRow, PromptRow
from lib.errors import UserError
from lib.files import digest, read_jsonl
from lib.jobs.batches import Outcome
from lib.jobs.job import Job, paths_in

Row = TypeVar("Row", bound=PromptRow)


def read_shard(path: str | Path, row: type[Row]) -> dict[str, Row | MissingRow]:
    """The rows of a shard file by prompt id. `row`: what its stage publishes (lib/data/rows.py)."""
    return {entry["id"]: cast("Row", entry) for entry in read_jsonl(Path(path))}


def read_shards(paths: Iterable[str | Path], row: type[Row]) -> dict[str, Row | MissingRow]:
    """The rows of several shard files of a stage by prompt id."""
    return {name: entry for path in paths for name, entry in read_shard(path, row).items()}


def read_whole_shard(job: Job[Any], files: Any, row: type[Row]) -> dict[str, Row | MissingRow]:
    """The rows that a job goes on from, by prompt id, in the order of the ids. `files`: the stage's
    file of the job's shard, or several where the stage has more shards.

    Errors: UserError if those of a file are not of its shard's prompts, each once.
    """
    paths = paths_in(files)
    rows = read_whole_shards(job, paths, row)
    return rows if len(paths) == 1 else dict(sorted(rows.items()))


def read_whole_shards(
    job: Job[Any], paths: Iterable[str | Path], row: type[Row]
) -> dict[str, Row | MissingRow]:
    """The rows of several shard files by prompt id, in the order of the files. Errors: as those of
    `read_whole_shard`.
    """
    rows: dict[str, Row | MissingRow] = {}
    for path in map(Path, paths):
        entries = read_jsonl(path)
        refuse_other_prompts(job, path, [entry.get("id") for entry in entries])
        rows |= {entry["id"]: cast("Row", entry) for entry in entries}
    return rows


def files_by_name(names: Sequence[str], files: Sequence[str]) -> dict[str, Sequence[str]]:
    """Each one's files, where a rule's input has those of all, as many of each, one after the
    other.
    """
    each = len(files) // len(names) if names else 0
    return {name: files[place * each :][:each] for place, name in enumerate(names)}


def refuse_other_prompts(job: Job[Any], path: Path, ids: Sequence[str | None]) -> None:
    """A UserError if the rows of a shard file are not those of its prompts, each once."""
    expected = job.prompts.get(f"{path.parent.name}/{path.stem}")
    if expected is not None and digest(list(ids)) != expected:
        raise UserError(
            f"{path}: its {len(ids)} lines are not those of the shard's prompts; lines were lost,"
            " added or moved. Delete it and run again: it is made anew from its journal."
        )


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
