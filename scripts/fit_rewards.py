"""Rule fit_rewards: what the scores of each reward of an ensemble are standardised by, over the
whole run.

Each reward is looked at by itself, over the responses that it has a score of: what another one
failed at changes nothing in it.
"""

from pathlib import Path
from typing import Any

from lib.config.response_ranking import FitRewardsJob, scores_input
from lib.data.ensembles import Standard, scores_in, standard_of
from lib.data.rows import ResponseRankingRow
from lib.data.shards import present, read_whole_shards
from lib.files import write_json
from lib.jobs.job import Job
from lib.jobs.script import run_script

VERSION = 1


def main(snakemake: Any) -> None:
    with Job(snakemake, FitRewardsJob, VERSION) as job:
        standards: dict[str, Standard] = {}
        for name in job.settings.rewards:
            files = getattr(snakemake.input, scores_input(name))
            rows = present(read_whole_shards(job, files, ResponseRankingRow).values())
            standards[name] = standard_of(scores_in(row["responses"]) for row in rows)
            if not standards[name]["deviation"]:
                job.note(
                    f"reward {name} gives the responses to a prompt one score: it decides nothing"
                )
        write_json(Path(snakemake.output[0]), standards)
        job.count(len(standards))


if __name__ == "__main__":
    run_script(main)
