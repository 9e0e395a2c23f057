"""Rule vision_language_table: the paper's Table 1 (vision-language benchmarks) with our base model and largest experiments beside it."""

from typing import Any

from lib.job import ShardJob, run_script
from lib.model_tables import write_models_table

VERSION = 1


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    write_models_table(job.settings, snakemake.input, snakemake.output)
    job.record.items = job.record.computed = len(job.settings["rows"])
    job.write_record()


if __name__ == "__main__":
    run_script(main)
