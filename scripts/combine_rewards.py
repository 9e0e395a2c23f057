"""Rule combine_rewards: the rewards of an ensemble as one, by the weighted mean of their
standardised scores.

An item is a prompt. It goes on where every reward has a result for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from lib.config.response_ranking import CombineRewardsJob, scores_input
from lib.data.ensembles import Standard, combined
from lib.data.rows import MissingRow, PickedImage, PromptRow, RankedResponse, ResponseRankingRow
from lib.data.shards import is_missing, missing_row, read_whole_shard, stage_rows
from lib.jobs.batches import Batches
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item

VERSION = 1
Rows = Mapping[str, ResponseRankingRow | MissingRow]


class Combined(TypedDict):
    """The result of an item: `ResponseRankingRow` without its prompt."""

    image: PickedImage
    instruction: str
    responses: dict[str, RankedResponse]


@dataclass(frozen=True)
class Scales:
    """What the scores of rewards are standardised by, and how much each counts, by their names."""

    standards: Mapping[str, Standard]
    weights: Mapping[str, float]


def unrated(rows: Mapping[str, ResponseRankingRow | MissingRow], rule: str) -> MissingRow | None:
    """The row of a prompt that a reward has no result for, or an earlier stage; None where all
    have. `rows`: the prompt's, by reward; `rule`: that rates.
    """
    for name, row in rows.items():
        if is_missing(row):
            missing = row["missing"]
            is_of_reward = missing["rule"] == rule
            return missing_row(row, rule, f"{name}: {missing['reason']}") if is_of_reward else row
    return None


def combine(rows: Mapping[str, ResponseRankingRow], scales: Scales) -> Combined:
    """A prompt's rows, by reward, as one."""
    first = next(iter(rows.values()))
    return {
        "image": first["image"],
        "instruction": first["instruction"],
        "responses": {
            policy: combined(
                {name: row["responses"][policy] for name, row in rows.items()},
                scales.standards,
                scales.weights,
            )
            for policy in first["responses"]
        },
    }


def main(snakemake: Any) -> None:
    with Job(snakemake, CombineRewardsJob, VERSION) as job:
        weights = job.settings.weights
        standards = json.loads(Path(snakemake.input.standards).read_text(encoding="utf-8"))
        scales = Scales(standards, weights)
        shards: dict[str, Rows] = {
            name: read_whole_shard(
                job, getattr(snakemake.input, scores_input(name)), ResponseRankingRow
            )
            for name in weights
        }
        rows: dict[str, PromptRow] = {}
        items = []
        for prompt_id in next(iter(shards.values())):
            of_rewards = {name: shard[prompt_id] for name, shard in shards.items()}
            if missing := unrated(of_rewards, "rank_responses"):
                rows[prompt_id] = missing
                continue
            rated: Any = of_rewards
            rows[prompt_id] = next(iter(rated.values()))
            key = job.key(
                rewards={
                    name: {part: row[part] for part in ("image", "instruction", "responses")}
                    for name, row in rated.items()
                },
                weights=weights,
                standards=standards,
            )
            items.append(Item(prompt_id, key, rated))

        def compute(
            scales: Scales, batch: Sequence[Item[Mapping[str, ResponseRankingRow]]]
        ) -> list[Combined]:
            return [combine(item.inputs, scales) for item in batch]

        outcomes = Batches(job, load=lambda: scales, compute=compute).run(items)
        job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
