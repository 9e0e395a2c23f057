"""Snakemake's graph of jobs and its executor, which its interface prints or uses but does not hand
out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Reason(str):
    """A reason for a job that no parameter is."""

    __slots__ = ()


def build_graph(workflow: Any) -> Any:
    """Snakemake's own workflow with its graph (`.dag.jobs`, `.rules`), from that of its API.

    The graph is printed on the way.
    """
    workflow.dag().printrulegraph()
    return workflow._workflow


def executor_of(workflow: Any) -> Any:
    """The executor that submits a running workflow's jobs, from `onstart` on."""
    return workflow.scheduler._executor


def own_name(rule: Any) -> str:
    """The name that a rule has in our own workflow: its script's. Another workflow that uses ours
    as a module may give it another (`use rule * from pds as pds_*`).
    """
    return Path(str(rule.script)).stem if rule.script else str(rule.name)


def root_of(job: Any) -> str | None:
    """The folder of the run that a job belongs to; None of a job that leaves no record, such as one
    of a workflow that uses ours as a module.
    """
    common = getattr(job.params, "common", None)
    return common.get("root") if isinstance(common, Mapping) else None


def jobs_to_run(
    workflow: Any, root: str | None = None
) -> list[tuple[str, dict[str, str], bool, str]]:
    """The jobs of a workflow's graph that are to run, of all or for the run in the folder `root`:
    rule, wildcards, whether that is for a reason of their own, not only because a job before them
    runs, and why.
    """
    jobs = workflow.dag.needrun_jobs(exclude_finished=False)
    reasons = [(job, workflow.dag.reason(job)) for job in jobs]
    return [
        (
            own_name(job.rule),
            dict(job.wildcards_dict),
            bool(reason.is_provenance_triggered()),
            _in_words(reason),
        )
        for job, reason in reasons
        if root is None or root_of(job) == root
    ]


def environments_of_jobs_to_run(workflow: Any, root: str) -> list[tuple[str, str]]:
    """The rules and the environments' files of the jobs that are to run for the run in the folder
    `root` and have one, whether or not Snakemake is asked to make it.
    """
    jobs = workflow.dag.needrun_jobs(exclude_finished=False)
    return [
        (own_name(job.rule), str(job.conda_env_spec.file.get_path_or_uri(secret_free=True)))
        for job in jobs
        if job.conda_env_spec and root_of(job) == root
    ]


def _in_words(reason: Any) -> str:
    """Snakemake's reason for a job, which names all parameters and files, in a few words."""
    changed = reason.params_changed
    own = [each for each in changed.only_old if isinstance(each, Reason)] if changed else []
    words = {
        "settings or prompts changed": changed and not own,
        "its script changed": reason.code_changed,
        "its environment changed": reason.software_stack_changed,
        "it reads other files": reason.input_changed,
        "a file that it reads is newer": reason.updated_input,
        "it was cut off": reason.incomplete_output,
        "not made yet": reason.missing_output,
        "asked for": reason.forced,
    }
    told = [*own, *(text for text, is_so in words.items() if is_so)]
    return ", ".join(told) or "jobs before it run"
