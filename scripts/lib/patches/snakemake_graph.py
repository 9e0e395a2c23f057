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


def know_jobs_by_records(is_as_asked: Callable[[Any], bool]) -> None:
    """Has Snakemake run a job again of which it has no memory (its folder `.snakemake` was lost, or
    the results came from elsewhere), unless `is_as_asked` says that the job's files are what is
    asked now. By itself it would take any file that is newer than its inputs.
    """
    from snakemake.persistence import NO_PARAMS_CHANGE, ParamsChange, PersistenceBase

    remembers, params_changed = PersistenceBase.has_metadata, PersistenceBase.params_changed

    def changed(self: Any, job: Any, file: Any = None) -> Any:
        if remembers(self, job):
            return params_changed(self, job, file)
        if is_as_asked(job):
            return NO_PARAMS_CHANGE
        return ParamsChange(
            only_old={"what its record in work/ says"}, only_new=set(), files=set(job.output)
        )

    PersistenceBase.has_metadata, PersistenceBase.params_changed = lambda *_: True, changed


def hold_own_locks_alone() -> None:
    """Has a run that ends remove its own lock files. By itself Snakemake removes the folder of them
    all: another run in the same clone loses its locks, or dies of the missing folder if it was just
    about to begin.
    """
    from snakemake.persistence.file import FilePersistence

    write, delete_all = FilePersistence._write_locks, FilePersistence._delete_locks

    def write_into_folder(self: Any, lock_type: str, keys: Iterable[str]) -> None:
        Path(self._lockdir).mkdir(parents=True, exist_ok=True)
        write(self, lock_type, keys)

    def delete_own(self: Any) -> None:
        for file in self._lockfile.values():
            Path(file).unlink(missing_ok=True)
        self._lockfile.clear()
        with suppress(OSError):  # those of another run are in it
            Path(self._lockdir).rmdir()

    # `--unlock` is asked for all of them.
    FilePersistence._write_locks, FilePersistence._delete_locks = write_into_folder, delete_own
    FilePersistence.cleanup_locks = delete_all
