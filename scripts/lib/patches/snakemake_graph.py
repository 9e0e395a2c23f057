"""Snakemake's graph of jobs and its executor, which its interface prints or uses but does not hand
out.
"""

from collections.abc import Callable, Iterable, Mapping
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


class _Reason(str):
    """A reason for a job that no parameter is."""

    __slots__ = ()


def _in_words(reason: Any) -> str:
    """Snakemake's reason for a job, which names all parameters and files, in a few words."""
    changed = reason.params_changed
    own = [each for each in changed.only_old if isinstance(each, _Reason)] if changed else []
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


#: What is called back, by the folder of the run. A Snakefile may be read several times in a
#: process: once for each `use rule`, and in a workflow that makes several runs for each of them.
_why_again: dict[str, Callable[[Any, bool], str]] = {}
_refuse_while_at_work: dict[str, Callable[[], object]] = {}
_print_after_dry_run: dict[str, Callable[[], None]] = {}


def after_dry_run(root: str, print_lines: Callable[[], None]) -> None:
    """Has something printed of the run in the folder `root` at the end of a dry run, for which
    Snakemake has no handler, in place of its advice not to run what has changed.
    """
    from snakemake.workflow import Workflow

    def print_all(_workflow: Any) -> None:
        for print_of_run in _print_after_dry_run.values():
            print_of_run()

    _print_after_dry_run[root] = print_lines
    Workflow.log_provenance_info = print_all


def know_jobs_by_records(root: str, why_again: Callable[[Any, bool], str]) -> None:
    """Has Snakemake run a job again where `why_again` gives a reason, which is shown as a change of
    its parameters. By itself it would take any file that is newer than its inputs where it has no
    memory of a job (its folder `.snakemake` was lost, or the results came from elsewhere).

    `root`: the folder of the run whose jobs are meant. `why_again`: of a job that leaves a record,
    and whether Snakemake remembers it.
    """
    from snakemake.persistence import NO_PARAMS_CHANGE, ParamsChange, PersistenceBase

    _why_again[root] = why_again
    remembers, params_changed = PersistenceBase.has_metadata, PersistenceBase.params_changed
    if getattr(remembers, "asks_records", False):
        return

    def has_metadata(self: Any, job: Any) -> Any:
        return root_of(job) in _why_again or remembers(self, job)

    def changed(self: Any, job: Any, file: Any = None) -> Any:
        if (ask := _why_again.get(root_of(job) or "")) is None:
            return params_changed(self, job, file)
        is_remembered = remembers(self, job)
        if reason := ask(job, is_remembered):
            return ParamsChange(only_old={_Reason(reason)}, only_new=set(), files=set(job.output))
        return params_changed(self, job, file) if is_remembered else NO_PARAMS_CHANGE

    has_metadata.asks_records = True  # type: ignore[attr-defined]
    PersistenceBase.has_metadata, PersistenceBase.params_changed = has_metadata, changed


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

    _refuse_while_at_work[root] = refuse_while_at_work
    write, delete_all = FilePersistence._write_locks, FilePersistence._delete_locks
    lock = FilePersistence.lock
    if getattr(lock, "is_of_runs", False):
        return

    def lock_if_alone(self: Any) -> Any:
        for refuse in _refuse_while_at_work.values():
            refuse()
        for file in Path(self._lockdir).glob("*.lock"):
            held = map(Path, file.read_text(encoding="utf-8").splitlines())
            if any(path.is_relative_to(own) for path in held for own in _refuse_while_at_work):
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

    lock_if_alone.is_of_runs = True  # type: ignore[attr-defined]
    FilePersistence.lock = lock_if_alone
    FilePersistence._write_locks, FilePersistence._delete_locks = write_into_folder, delete_own
    # `--unlock` is asked for all of them.
    FilePersistence.cleanup_locks = delete_all
