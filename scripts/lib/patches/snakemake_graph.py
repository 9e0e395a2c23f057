"""Snakemake's graph of jobs and its executor, which its interface prints or uses but does not hand
out.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
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


def jobs_to_run(workflow: Any) -> list[tuple[str, dict[str, str], bool]]:
    """The jobs of a workflow's graph that are to run: rule, wildcards, and whether that is for a
    reason of their own, not only because a job before them runs.
    """
    dag = workflow.dag
    return [
        (
            job.rule.name,
            dict(job.wildcards_dict),
            bool(dag.reason(job).is_provenance_triggered()),
        )
        for job in dag.needrun_jobs(exclude_finished=False)
    ]


def environments_of_jobs_to_run(workflow: Any) -> list[tuple[str, str]]:
    """The rules and the environments' files of the jobs that are to run and have one, whether or
    not Snakemake is asked to make it.
    """
    jobs = workflow.dag.needrun_jobs(exclude_finished=False)
    return [
        (job.rule.name, str(job.conda_env_spec.file.get_path_or_uri(secret_free=True)))
        for job in jobs
        if job.conda_env_spec
    ]


def after_dry_run(*steps: Callable[[], None]) -> None:
    """Has something done at the end of a dry run, for which Snakemake has no handler."""
    from snakemake.workflow import Workflow

    tell_reasons = Workflow.log_provenance_info

    def tell_also(self: Any) -> None:
        tell_reasons(self)
        for step in steps:
            step()

    Workflow.log_provenance_info = tell_also


def know_jobs_by_records(why_again: Callable[[Any, bool], str]) -> None:
    """Has Snakemake run a job again where `why_again` gives a reason, which is shown as a change of
    its parameters. By itself it would take any file that is newer than its inputs where it has no
    memory of a job (its folder `.snakemake` was lost, or the results came from elsewhere).

    `why_again`: of a job that leaves a record, and whether Snakemake remembers it.
    """
    from snakemake.persistence import NO_PARAMS_CHANGE, ParamsChange, PersistenceBase

    remembers, params_changed = PersistenceBase.has_metadata, PersistenceBase.params_changed

    def changed(self: Any, job: Any, file: Any = None) -> Any:
        is_remembered = remembers(self, job)
        if hasattr(job.params, "common") and (reason := why_again(job, is_remembered)):
            return ParamsChange(only_old={reason}, only_new=set(), files=set(job.output))
        return params_changed(self, job, file) if is_remembered else NO_PARAMS_CHANGE

    PersistenceBase.has_metadata, PersistenceBase.params_changed = lambda *_: True, changed


def hold_own_locks(root: str, refuse_while_at_work: Callable[[], object]) -> None:
    """Has a run hold and remove its own lock files, those of a dead Snakemake of its own included,
    and no others.

    By itself Snakemake removes the folder of all of them when a run ends: another run in the same
    clone loses its locks, or dies of the missing folder if it was just about to begin. And it asks
    a user to unlock after each crash, since it cannot tell whether the other lives.

    `root`: the run's folder. `refuse_while_at_work`: raises what a user is told if a Snakemake that
    makes this run lives.
    """
    from snakemake.persistence.file import FilePersistence

    write, delete_all = FilePersistence._write_locks, FilePersistence._delete_locks
    lock = FilePersistence.lock

    def lock_if_alone(self: Any) -> Any:
        refuse_while_at_work()
        for file in Path(self._lockdir).glob("*.lock"):
            held = file.read_text(encoding="utf-8").splitlines()
            if any(Path(path).is_relative_to(root) for path in held):
                file.unlink(missing_ok=True)
        return lock(self)

    def write_into_folder(self: Any, lock_type: str, keys: Iterable[str]) -> None:
        Path(self._lockdir).mkdir(parents=True, exist_ok=True)
        write(self, lock_type, keys)

    def delete_own(self: Any) -> None:
        for file in self._lockfile.values():
            Path(file).unlink(missing_ok=True)
        self._lockfile.clear()
        with suppress(OSError):  # those of another run are in it
            Path(self._lockdir).rmdir()

    FilePersistence.lock = lock_if_alone
    FilePersistence._write_locks, FilePersistence._delete_locks = write_into_folder, delete_own
    # `--unlock` is asked for all of them.
    FilePersistence.cleanup_locks = delete_all
