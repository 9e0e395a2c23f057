"""Rule fit_length: how the reward goes with the length of responses within a prompt, over the whole
run, for `pairs.length_control: residual`.

The slope is rounded to two digits: one prompt edited among thousands then leaves it, and with it
all other pairs, as they are.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib.data.lengths import fit, rewarded
from lib.data.rows import ResponseRankingRow
from lib.data.shards import present, read_whole_shards
from lib.files import write_json
from lib.jobs.job import Job, NoSettings
from lib.jobs.script import run_script

VERSION = 1


def main(snakemake: Any) -> None:
    with Job(snakemake, NoSettings, VERSION) as job:
        rows = present(read_whole_shards(job, snakemake.input, ResponseRankingRow).values())
        found = fit(rewarded(row["responses"]).get("reward", []) for row in rows)
        slope = float(f"{found.slope or 0:.1e}")
        write_json(Path(snakemake.output[0]), {**asdict(found), "used_slope": slope})
        job.count(len(rows))


if __name__ == "__main__":
    run_script(main)
