"""Rule answer_part: one model answers a part of a benchmark's questions through lmms-eval; rule
answer_benchmark joins the parts.

Answers are asked, journalled and kept under the same keys as where one job answers everything, so
that answers stay where a benchmark is divided otherwise. Nothing is scored here.
"""

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

from answer_benchmark import VERSION, ask, asked_model, key_of, keys_of, pin_data, run_folder
from lib.benchmarks.evaluated_model import find_evaluated_model
from lib.benchmarks.lmms_eval.harness import Harness
from lib.config.evaluation import AnswerBenchmarkJob
from lib.files import mendable_storage_errors, write_json
from lib.jobs.job import Job
from lib.jobs.script import run_script


def main(snakemake: Any) -> None:
    with Job(snakemake, AnswerBenchmarkJob, VERSION) as job, mendable_storage_errors(job.root):
        settings, data = pin_data(job.settings)
        model, identity = find_evaluated_model(snakemake, job, settings.base_model)
        version = importlib.metadata.version("lmms-eval")
        key = key_of(job, settings, data, identity, version)
        keys = keys_of(job, settings, identity, version, key)
        part = snakemake.wildcards.part
        harness = Harness(settings, job.name, Path(str(snakemake.log.harness)))
        asked, _ = ask(
            job,
            harness,
            asked_model(job, model, part),
            keys,
            snakemake.threads,
            lambda output: None,
        )
        shutil.rmtree(run_folder(job))
        job.record.items = len(asked)
        write_json(Path(snakemake.output[0]), {"part": part, "questions": len(asked), "data": data})


if __name__ == "__main__":
    run_script(main)
