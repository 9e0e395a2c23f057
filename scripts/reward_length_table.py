"""Rule reward_length_table: how the reward, and each attribute that makes it up, goes with the
length of the responses.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lib.config.tables import RewardLengthTableJob
from lib.data.lengths import LengthFit, Rewarded, fit, rewarded
from lib.data.rows import ResponseRankingRow
from lib.data.shards import present, read_whole_shards
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.published import our_source
from lib.report.tables import Table, TableColumn, TableRow, write_table

VERSION = 1
COLUMNS = [
    TableColumn("responses", "Responses", "responses", None, 0),
    TableColumn("doubling", "Gain as the length doubles", "", None, 4, "Within a prompt:"),
    TableColumn("within", "Correlation", "", None, 3, "Within a prompt:"),
    TableColumn("best_is_longer", "Best is longer than worst", "%", None, 1, "Within a prompt:"),
    TableColumn("correlation", "Correlation", "", None, 3, "All responses:"),
]
NOTE = (
    "Correlations are of the logarithm of the length in characters, over the valid responses of"
    " prompts that have two or more. A judge that does not look at lengths has gains and"
    " correlations near 0, unless longer answers are better ones."
)
CONTROLLED = (
    "`pairs.length_control: residual` takes the gain of the reward out of it before pairs are made."
)
NO_DIFFERENCE = "There are no prompts with responses of several lengths and scores."


def values_of(found: LengthFit) -> dict[str, float]:
    """A line's numbers, as far as there are any."""
    values = {
        "responses": found.responses,
        "doubling": None if found.slope is None else found.slope * math.log(2),
        "within": found.within,
        "best_is_longer": None if found.best_is_longer is None else 100 * found.best_is_longer,
        "correlation": found.correlation,
    }
    return {name: value for name, value in values.items() if value is not None}


def build_table(
    rows: Iterable[ResponseRankingRow], judge: str, source: str, is_controlled: bool
) -> Table:
    """A line for the reward, and one for each attribute by name. `judge`: who gave them; `source`:
    whose rows.
    """
    prompts: dict[str, list[Sequence[Rewarded]]] = {"reward": []}
    for row in rows:
        for name, responses in rewarded(row["responses"]).items():
            prompts.setdefault(name, []).append(responses)
    return Table(
        "The reward of responses against their length",
        {"judge": "Judge", "score": "Score"},
        COLUMNS,
        [
            row_of({"judge": judge, "score": name}, values_of(fit(prompts[name])), source)
            for name in sorted(prompts, key=lambda name: (name != "reward", name))
        ],
        [NOTE, CONTROLLED] if is_controlled else [NOTE],
    )


def row_of(texts: dict[str, str], values: Mapping[str, float], source: str) -> TableRow:
    """One line."""
    missing = {column.key: NO_DIFFERENCE for column in COLUMNS if column.key not in values}
    origins = {key: {"rewards": "response_ranking"} for key in values}
    return TableRow(source, texts, dict(values), missing=missing, origins={**origins})


def main(snakemake: Any) -> None:
    with Job(snakemake, RewardLengthTableJob, VERSION) as job:
        settings = job.settings
        rows = present(
            read_whole_shards(job, snakemake.input.rankings, ResponseRankingRow).values()
        )
        source = our_source(settings.label)
        table = build_table(rows, settings.judge, source, settings.is_controlled)
        write_table(table, list(snakemake.input), snakemake.output)
        job.count(len(rows))


if __name__ == "__main__":
    run_script(main)
