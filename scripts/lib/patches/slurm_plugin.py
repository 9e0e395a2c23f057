"""Snakemake's executor plugin for Slurm (2.8.0): what it keeps to itself, and one function of it
that is replaced.
"""

from typing import Any


def is_asked(executor_settings: Any) -> bool:
    """Whether a run's jobs go to Slurm, by the settings of its executor."""
    return type(executor_settings).__module__ == "snakemake_executor_plugin_slurm"


def job_name_of(workflow: Any) -> str:
    """The name in Slurm of all jobs of a run that has begun."""
    return str(workflow.scheduler._executor.run_uuid)


def keep_minimum_job_age() -> int | None:
    """Has the plugin ask only once how long ended jobs are remembered (seconds; None: unknown).

    It asks the controller at each look, takes silence for "not at all", and turns to sacct, which
    without accounting never answers: the jobs are lost from sight. What the controller said at the
    start holds for the run.
    """
    import snakemake_executor_plugin_slurm as plugin

    age: int | None = plugin.get_min_job_age()
    plugin.get_min_job_age = lambda: age
    return age
