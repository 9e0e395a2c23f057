"""Snakemake's graph (9.27): its interface prints the jobs and does not hand them out."""

from typing import Any


def jobs_of(workflow_api: Any) -> list[Any]:
    """The jobs of a planned workflow that run a script."""
    return [job for job in workflow_api._workflow.dag.jobs if job.rule.script]


def rules_of(workflow_api: Any) -> list[str]:
    """The names of a workflow's rules that run a script."""
    return [rule.name for rule in workflow_api._workflow.rules if rule.script]
