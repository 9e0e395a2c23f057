"""Rule gather_images: the rows of the images of a shard over all topics, in one file."""

from typing import Any

from lib.data.rows import ImagesRow
from lib.data.shards import read_whole_shard
from lib.jobs.job import Job, NoSettings
from lib.jobs.script import run_script

VERSION = 1


def main(snakemake: Any) -> None:
    with Job(snakemake, NoSettings, VERSION) as job:
        rows = read_whole_shard(job, snakemake.input, ImagesRow)
        job.count(len(rows))
        job.publish(snakemake.output[0], list(rows.values()))


if __name__ == "__main__":
    run_script(main)
