"""What Snakemake remembers of a job, from which it tells whether the job runs again."""

from collections.abc import Callable
from typing import Any

from lib.patches.snakemake_graph import Reason, root_of

#: What is called back, by the folder of the run. A Snakefile may be read several times in a
#: process: once for each `use rule`, and in a workflow that makes several runs for each of them.
_why_again: dict[str, Callable[[Any, bool], str]] = {}


def know_jobs_by_records(root: str, why_again: Callable[[Any, bool], str]) -> None:
    """Has Snakemake run a job again where `why_again` gives a reason, which is shown as a change of
    its parameters. By itself it would take any file that is newer than its inputs where it has no
    memory of a job (its folder `.snakemake` was lost, or the results came from elsewhere).

    `root`: the folder of the run whose jobs are meant. `why_again`: of a job that leaves a record,
    and whether Snakemake remembers it: what it knows of a file that another rule made is of no use
    (one job may have done what several jobs of another rule do).
    """
    from snakemake.persistence import NO_PARAMS_CHANGE, ParamsChange, PersistenceBase

    _why_again[root] = why_again
    remembers, params_changed = PersistenceBase.has_metadata, PersistenceBase.params_changed
    if remembers.__module__ == __name__:
        return

    def has_metadata(self: Any, job: Any) -> Any:
        return root_of(job) in _why_again or remembers(self, job)

    def changed(self: Any, job: Any, file: Any = None) -> Any:
        if (ask := _why_again.get(root_of(job) or "")) is None:
            return params_changed(self, job, file)
        is_remembered = remembers(self, job) and all(
            self.rule(path) == job.rule.name for path in job.output
        )
        if reason := ask(job, is_remembered):
            return ParamsChange(only_old={Reason(reason)}, only_new=set(), files=set(job.output))
        return params_changed(self, job, file) if is_remembered else NO_PARAMS_CHANGE

    PersistenceBase.has_metadata, PersistenceBase.params_changed = has_metadata, changed
