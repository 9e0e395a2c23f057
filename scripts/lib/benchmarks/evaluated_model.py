"""The model that a benchmark is put to: an experiment's merged one, or the base model."""

from typing import Any

from lib.blocks import Model
from lib.jobs.job import Job


def find_evaluated_model(snakemake: Any, job: Job[Any], base_model: Model) -> tuple[Model, str]:
    """The model of a job, in the base model's dtype, and its identity, which is put on record."""
    # Snakemake gives a list where there is no merged model, for the base model, and a path where
    # there is one.
    merged = str(snakemake.input.merged or "")
    if not merged:
        return base_model, job.identify(base_model)
    model = Model(model=merged, revision="main", dtype=base_model.dtype)
    return model, job.identify(model, snakemake.wildcards.model)
