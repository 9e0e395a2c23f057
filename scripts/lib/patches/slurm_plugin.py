"""Snakemake's executor plugin for Slurm."""

from typing import Any


def keep_min_job_age() -> int | None:
    """Has the plugin go by what the controller says now of how long it remembers ended jobs, and
    returns that (MinJobAge in seconds; None where there is no answer).

    The plugin asks anew at each look, takes silence for "not at all", and turns to sacct, which
    without accounting never answers: the jobs are lost from sight.
    """
    import snakemake_executor_plugin_slurm as plugin

    age: int | None = plugin.get_min_job_age()
    plugin.get_min_job_age = lambda: age
    return age


def job_name(executor: Any) -> str:
    """The name that Slurm has for all jobs of this run, told apart by their comments."""
    return str(executor.run_uuid)


def is_asked(executor_settings: Any) -> bool:
    """Whether a run's jobs go to Slurm, by the settings of its executor."""
    return type(executor_settings).__module__ == "snakemake_executor_plugin_slurm"
