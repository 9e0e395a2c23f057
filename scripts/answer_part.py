"""Rule answer_part: one model answers a part of a benchmark's questions through lmms-eval; rule
answer_benchmark joins the parts. Rule answer_together: the same of all questions of several
benchmarks, for which the model is loaded once.

Answers are asked, journalled and kept under the same keys as where one job answers everything, so
that answers stay where a benchmark is divided otherwise. Nothing is scored here.
"""

from pathlib import Path
from typing import Any

from answer_benchmark import VERSION, Asking, ask
from lib.config.evaluation import AnswerBenchmarkJob
from lib.files import mendable_storage_errors, write_json
from lib.jobs.job import Common
from lib.jobs.script import run_script
from lib.jobs.turns import open_jobs


def main(snakemake: Any) -> None:
    root = Common.model_validate(snakemake.params.common).root
    with (
        open_jobs(snakemake, AnswerBenchmarkJob, VERSION) as opened,
        mendable_storage_errors(root),
    ):
        jobs = [job for _, job in opened]
        part = jobs[0].name.rpartition("/")[2]
        names = [job.name for job in jobs]
        asked = [
            Asking(snakemake, job, beside=[name for name in names if name != job.name])
            for job in jobs
        ]
        keys, _ = ask(asked, part, snakemake.threads, lambda output: None)
        for (handed, job), asking, of_job in zip(opened, asked, keys, strict=True):
            job.record.items = len(of_job)
            told = {"part": part, "questions": len(of_job), "data": asking.data}
            write_json(Path(handed.output[0]), told)
            job.clock.count(job.record.load_seconds + job.record.compute_seconds)


if __name__ == "__main__":
    run_script(main)
