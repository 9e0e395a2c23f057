"""Snakemake's graph of jobs and its executor, which its interface prints or uses but does not hand
out.
"""

from typing import Any


def build_graph(workflow: Any) -> Any:
    """Snakemake's own workflow with its graph (`.dag.jobs`, `.rules`), from that of its API.

    The graph is printed on the way.
    """
    workflow.dag().printrulegraph()
    return workflow._workflow


def executor_of(workflow: Any) -> Any:
    """The executor that submits a running workflow's jobs, from `onstart` on."""
    return workflow.scheduler._executor
