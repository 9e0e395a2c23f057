"""Rule hallucination_table: the paper's Table 2 (hallucination benchmarks) with our base model and our largest experiments beside it."""

from pathlib import Path
from typing import Any

from lib.job import ShardJob, run_script
from lib.tables import compare_models, read_published, read_scores, write_table

VERSION = 1


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    table = compare_models(
        read_published(Path(snakemake.input.published)),
        settings["models"],
        settings["wanted"],
        read_scores([Path(path) for path in snakemake.input.scores]),
        settings["label"],
        settings["base_model"],
    )
    write_table(table, snakemake.output.csv, snakemake.output.markdown, snakemake.output.latex)
    job.record.items = job.record.computed = len(settings["models"])
    job.write_record()


if __name__ == "__main__":
    run_script(main)
