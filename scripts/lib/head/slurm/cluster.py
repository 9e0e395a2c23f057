"""What a run on Slurm needs beside the executor plugin: a look before anything is submitted, and a
watch while it runs.

Before: every kind of job is shown to the partition file and to `sbatch --test-only`, so that a
wrong account or a GPU that nobody has is one message and no job. Jobs that a killed head process
left in the queue are cancelled, and only those.

While: the plugin loses sight of jobs when Slurm does not answer, or forgets them, and would then
wait for ever. The watch asks Slurm on its own, says when there is no answer, names jobs that cannot
start as they are, and ends a head process that waits for nothing.
"""

import difflib
import json
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lib.config.yaml_files import read_yaml
from lib.errors import UserError
from lib.files import write_json
from lib.patches import slurm_plugin, snakemake_graph
from lib.progress import duration

log = logging.getLogger("snakemake.logging")

SECONDS_BETWEEN_LOOKS = 15.0
#: Slurm's own commands give up after some 10 to 30 s where the controller does not answer.
COMMAND_TIMEOUT = 60.0
#: A head process on another machine that has not touched its file for so long is dead.
HEARTBEAT_LIFETIME = 300.0
SECONDS_TO_CANCEL = 300.0
#: What squeue calls a job that may still do something.
LIVE = {
    "PENDING",
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESIZING",
    "SIGNALING",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
}
#: Why a job is pending that no waiting mends, by the beginning of squeue's reason, and the mend.
STUCK = {
    "BadConstraints": (
        "No node can ever give what it asks for. Correct profiles/slurm/config.yaml and"
        " partitions.yaml"
    ),
    "InvalidAccount": "Correct `slurm_account` in profiles/slurm/config.yaml",
    "InvalidQOS": "Correct `qos` in profiles/slurm/config.yaml",
    "JobHeldAdmin": "The administrators hold it: ask them",
    "JobHeldUser": "It is held: `scontrol release` lets it go",
    "launch": (
        "It could not be launched and is held: look at its node with the administrators, then"
        " `scontrol release`"
    ),
    "PartitionConfig": (
        "Its partition does not take what it asks for. Correct profiles/slurm/partitions.yaml"
    ),
    "PartitionDown": (
        "Its partition is down: wait for the administrators, or give another one in"
        " profiles/slurm/partitions.yaml"
    ),
    "PartitionInactive": (
        "Its partition takes no jobs: give another one in profiles/slurm/partitions.yaml"
    ),
    "PartitionNodeLimit": (
        "Its partition does not take jobs of so many nodes. Correct profiles/slurm/partitions.yaml"
    ),
    "PartitionTimeLimit": (
        "Its partition does not take jobs of that length. Correct profiles/slurm/partitions.yaml"
    ),
    "QOSMax": "Your QOS does not allow it. Give another `qos` in profiles/slurm/config.yaml",
    "AssocMax": (
        "Your account does not allow it. Give another `slurm_account` in profiles/slurm/config.yaml"
    ),
}


@dataclass(frozen=True)
class QueuedJob:
    """A job as squeue shows it."""

    id: str
    state: str
    reason: str
    node: str
    what: str


class NoAnswerError(Exception):
    """Slurm did not answer a question."""


def slurm(*command: str) -> str:
    """What a command of Slurm prints. Errors: NoAnswerError."""
    try:
        done = subprocess.run(
            command, text=True, capture_output=True, check=False, timeout=COMMAND_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswerError(str(error)) from error
    if done.returncode:
        raise NoAnswerError(
            done.stderr.strip() or f"{command[0]} ended with exit code {done.returncode}"
        )
    return done.stdout


def queued_jobs(name: str) -> list[QueuedJob]:
    """The jobs of this job name that Slurm knows of, ended ones included for a while. Errors:
    NoAnswerError.
    """
    lines = slurm(
        "squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i|%T|%r|%N|%k"
    ).splitlines()
    return [QueuedJob(*line.split("|", 4)) for line in lines if line.count("|") >= 4]


# --- Before anything is submitted -----------------------------------------------------------------


def check_needs(jobs: Iterable[Any], settings: Any) -> None:
    """Raises a UserError with every need that no partition meets and every one that sbatch refuses;
    nothing is submitted.

    Args:
        jobs: the jobs that are to run, as Snakemake has them.
        settings: the executor plugin's settings.
    """
    if missing := [
        program for program in ("sbatch", "squeue", "scancel", "srun") if not shutil.which(program)
    ]:
        raise UserError(
            f"there is no Slurm on this machine ({', '.join(missing)} not found). Run this on a"
            " login node of your cluster; on a machine of your own it is `--profile"
            " profiles/local`."
        )
    from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file

    partitions = read_partition_file(settings.partition_config) if settings.partition_config else []
    quiet = logging.Logger("unheard")
    problems: dict[str, list[str]] = {}
    answers: dict[tuple[str, ...], str | None] = {}
    for job in jobs:
        if job.is_local:
            continue
        partition = job.resources.get("slurm_partition") or (
            get_best_partition(partitions, job, quiet) if partitions else None
        )
        needs = _needs(job)
        if partitions and partition is None:
            problem = (
                f"no partition of {settings.partition_config} takes {' '.join(needs)}. It lists"
                f" {', '.join(each.name for each in partitions)}: correct their limits there, or"
                " what the rule asks for (`set-resources` in profiles/slurm/config.yaml)."
            )
        else:
            question = (*_where(job, settings, partition), *needs)
            if question not in answers:
                answers[question] = refusal(question)
            if answers[question] is None:
                continue
            problem = f"{answers[question]} Asked for: {shlex.join(question)}"
        problems.setdefault(problem, []).append(job.rule.name)
    if problems:
        raise UserError(
            "\n".join(
                f"rule {', '.join(sorted(set(rules)))}: {problem}"
                for problem, rules in problems.items()
            )
            + "\nNothing was submitted. docs/cluster.md says what to edit."
        )


def _needs(job: Any) -> tuple[str, ...]:
    """What a job asks for, in sbatch's words."""
    needs = [f"--mem={job.resources.get('mem_mb')}", f"--time={job.resources.get('runtime')}"]
    needs.append(f"--cpus-per-task={job.resources.get('cpus_per_task') or job.threads}")
    gpus, model = job.resources.get("gpu"), job.resources.get("gpu_model")
    if gpus or model:
        needs.append(f"--gpus={f'{model}:' if model else ''}{gpus or 1}")
    return tuple(needs)


def _where(job: Any, settings: Any, partition: str | None) -> tuple[str, ...]:
    """Where and on whose account a job is submitted, in sbatch's words."""
    words = {
        "--partition": partition,
        "--account": job.resources.get("slurm_account"),
        "--qos": settings.qos or job.resources.get("qos"),
        "--constraint": job.resources.get("constraint"),
        "--reservation": settings.reservation,
    }
    return tuple(f"{option}={value}" for option, value in words.items() if value)


def refusal(question: Iterable[str]) -> str | None:
    """Why sbatch would refuse a job, or None; a controller that does not answer just now is no
    refusal.
    """
    try:
        done = subprocess.run(
            ["sbatch", "--test-only", *question, "--wrap=true"],
            text=True,
            capture_output=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return None
    lines = [line for line in done.stderr.splitlines() if "error:" in line or "failure" in line]
    if (
        done.returncode == 0
        or "Unable to contact slurm controller" in done.stderr
        or "Socket timed out" in done.stderr
    ):
        return None
    return (
        "; ".join(line.strip() for line in lines) + "."
        if lines
        else f"sbatch refuses it: {done.stderr.strip()}."
    )


def check_partition_file(path: Path) -> None:
    """Raises a UserError if a partition has a limit that the plugin does not know; the plugin
    itself would end with a traceback.
    """
    if not path.exists():
        return  # another one may be named on the command line
    from snakemake_executor_plugin_slurm.partitions import PartitionLimits

    known = {each.name for each in fields(PartitionLimits)} | {
        "cluster",
        "clusters",
        "slurm_cluster",
    }
    partitions = read_yaml(path).get("partitions")
    if not isinstance(partitions, dict):
        raise UserError(
            f"{path}: has no `partitions:` with a block for each. The file in the repository is an"
            " example."
        )
    for name, limits in partitions.items():
        for key in limits or {}:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = (
                    f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(sorted(known))}."
                )
                raise UserError(f"{path}: partition '{name}' has the unknown limit `{key}`. {hint}")


def settle_status_command(settings: Any) -> None:
    """Makes the plugin ask squeue even while the controller is silent, and refuses a status command
    that can never answer.

    What the controller says at the start of how long it remembers ended jobs holds for the run.
    """
    age = slurm_plugin.keep_min_job_age()
    by_sacct = settings.status_command == "sacct"
    if by_sacct or (age is not None and age < 3 * settings.init_seconds_before_status_checks):
        try:
            slurm("sacct", "--noheader", "--allocations", "--format=JobID")
        except NoAnswerError as error:
            if by_sacct:
                raise UserError(
                    "jobs are asked for with sacct, and this cluster keeps no accounting"
                    f" ({error}): none would ever be seen to end. Set `slurm-status-command:"
                    " squeue`, as profiles/slurm/config.yaml does."
                ) from error
            raise UserError(
                f"this cluster forgets ended jobs after {age} s (MinJobAge) and keeps no accounting"
                f" ({error}): they are lost from sight. Set"
                " `slurm-init-seconds-before-status-checks` in profiles/slurm/config.yaml to"
                f" {max(1, (age or 0) // 3)} or less."
            ) from error


def check_log_folder(folder: Path) -> None:
    """Raises a UserError if Slurm could not write a job's log: such a job dies without a word."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: Slurm writes the jobs' logs there, and it cannot be written"
            f" ({error.strerror}). Make it a folder that you and the compute nodes can write, or"
            " name another one with `slurm-logdir` in profiles/slurm/config.yaml."
        ) from error


# --- The head process -----------------------------------------------------------------------------


@dataclass
class Head:
    """The head process of a run: the one Snakemake that submits its jobs. Its file tells later ones
    what it left behind.
    """

    path: Path
    job_name: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=lambda: _start_of(os.getpid()))

    def write(self) -> None:
        """Writes who this head process is."""
        write_json(
            self.path,
            {
                "job_name": self.job_name,
                "host": self.host,
                "pid": self.pid,
                "started": self.started,
            },
        )

    @classmethod
    def read(cls, path: Path) -> "Head | None":
        """The head process that a file tells of, or None."""
        try:
            return cls(path=path, **json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def is_alive(self) -> bool:
        """Whether it still runs. On another machine that is told by its heartbeat."""
        if self.host != socket.gethostname():
            return time.time() - self.path.stat().st_mtime < HEARTBEAT_LIFETIME
        return _start_of(self.pid) == self.started


def _start_of(pid: int) -> float:
    """When a process of this machine started (seconds since the epoch), or 0 if there is none; so
    that a pid used anew is told apart.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return 0.0


def cancel_orphans(path: Path) -> None:
    """Cancels the jobs that an earlier, dead head process of this run left in the queue, and waits
    until they are gone.

    Errors: UserError if that head process lives, or if its jobs cannot be cancelled.
    """
    before = Head.read(path)
    if before is None or (before.pid == os.getpid() and before.host == socket.gethostname()):
        return
    if before.is_alive():
        raise UserError(
            f"another head process of this run is alive (process {before.pid} on {before.host})."
            " Wait for it to end, or stop it there; if that machine is down, try again in"
            f" {duration(HEARTBEAT_LIFETIME)}."
        )
    try:
        orphans = [job for job in queued_jobs(before.job_name) if job.state in LIVE]
        if not orphans:
            return
        log.warning(
            "Jobs of this run left in the queue by a head process that died, now cancelled: %d",
            len(orphans),
        )
        slurm("scancel", f"--name={before.job_name}")
        deadline = time.monotonic() + SECONDS_TO_CANCEL
        while any(job.state in LIVE for job in queued_jobs(before.job_name)):
            if time.monotonic() > deadline:
                raise NoAnswerError(f"they are still there after {duration(SECONDS_TO_CANCEL)}")
            time.sleep(1)
    except NoAnswerError as error:
        raise UserError(
            f"jobs of this run may be in the queue still (job name {before.job_name}) and could not"
            f" be cancelled: {error}. When Slurm answers again: scancel --name={before.job_name},"
            " and run again."
        ) from error


class Watch(threading.Thread):
    """Looks at the queue while the head process runs; see the module's docstring. Stopped by
    `stop`.
    """

    def __init__(self, head: Head, patience: float) -> None:
        """`patience`: seconds after which a head process that waits for nothing is ended."""
        super().__init__(name="cluster-watch", daemon=True)
        self.head = head
        self.patience = patience
        self._ended = threading.Event()
        self._told: set[tuple[str, str]] = set()

    def stop(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def run(self) -> None:
        """Looks until it is stopped."""
        silent_since = idle_since = time.monotonic()
        told_at = 0.0
        while not self._ended.wait(min(SECONDS_BETWEEN_LOOKS, self.patience / 4)):
            now = time.monotonic()
            with suppress(
                OSError
            ):  # a results folder that cannot be written just now is no reason to stop watching
                self.head.path.touch()  # the heartbeat
            try:
                jobs = queued_jobs(self.head.job_name)
            except NoAnswerError as error:
                idle_since = now
                if (
                    now - silent_since >= min(60.0, self.patience)
                    and now - told_at >= self.patience
                ):
                    log.warning(
                        "Slurm has not answered for %s (%s). Jobs in the queue are not lost by"
                        " that; this run goes on when it answers.",
                        duration(now - silent_since),
                        error,
                    )
                    told_at = now
                continue
            silent_since = now
            self._tell_of_stuck(jobs)
            if any(job.state in LIVE for job in jobs):
                idle_since = now
            elif now - idle_since > self.patience:
                log.error(
                    "No job of this run has been in Slurm's queue for %s, and yet the executor"
                    " waits for one: it has lost sight of it. This run ends here; nothing that is"
                    ' finished is lost. Go on with: make resume RUN="--profile slurm ..."',
                    duration(now - idle_since),
                )
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    def _tell_of_stuck(self, jobs: Iterable[QueuedJob]) -> None:
        for job in jobs:
            mend = next(
                (mend for reason, mend in STUCK.items() if job.reason.startswith(reason)), None
            )
            if job.state == "PENDING" and mend and (job.id, job.reason) not in self._told:
                self._told.add((job.id, job.reason))
                log.warning(
                    "Slurm job %s (%s) cannot start: %s. %s.", job.id, job.what, job.reason, mend
                )


#: What stands in Slurm's log of a job that the rule's own log says nothing of, and what it means.
#: "o space left on" is the system's "No space left on device" and the "no space left on" of
#: lib/files.py.
ENDED_FROM_OUTSIDE = {
    "exceeded memory limit": "over its memory",
    "oom_kill": "over its memory",
    "oom-kill": "over its memory",
    "DUE TO TIME LIMIT": "over its time",
    "DUE TO NODE FAILURE": "its node failed",
    "DUE TO PREEMPTION": "preempted",
    "Read-only file system": (
        "its node cannot write the results (Read-only file system): tell the administrators, or"
        " exclude the node"
    ),
    "o space left on": (
        "its node found no space left on the results' file system: free some room, or exclude the"
        " node"
    ),
    "Stale file handle": (
        "its node lost the shared file system (Stale file handle): tell the administrators, or"
        " exclude the node"
    ),
}


def ended_from_outside(folder: Path, since: float, nodes: dict[str, str]) -> list[str]:
    """One line for each job whose log of Slurm, written at or after `since` (seconds since the
    epoch), says that it could not end well.

    `folder`: the plugin's folder of logs, `<rule>/<wildcards>/<job id>.log`; those of jobs that
    ended well are deleted.
    `nodes`: job id -> where it ran, as far as that is known.
    """
    lines = []
    for path in sorted(folder.glob("*/**/*.log")):
        if path.stat().st_mtime < since:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if reason := next(
            (meaning for mark, meaning in ENDED_FROM_OUTSIDE.items() if mark in text), None
        ):
            where = f" on {nodes[path.stem]}" if nodes.get(path.stem) else ""
            lines.append(
                f"Slurm job {path.stem}{where} ({path.parent.relative_to(folder).as_posix()}):"
                f" {reason}; its log: {path}"
            )
    return lines


_watch: Watch | None = None
_logs: Path | None = None


def begin(workflow: Any, root: Path, patience: float) -> None:
    """Called once a run, before its first job is submitted: checks, cancels orphans, starts the
    watch. Errors: UserError.

    `patience`: minutes, see `Watch`.
    """
    global _watch, _logs  # there is one head process, and Snakemake's hooks share nothing else
    settings = workflow.executor_settings
    check_needs(workflow.dag.needrun_jobs(), settings)
    _logs = Path(settings.logdir or ".snakemake/slurm_logs").resolve()
    check_log_folder(_logs)
    settle_status_command(settings)
    path = root / "work" / "head.json"
    cancel_orphans(path)
    # As Ctrl-C does it, also in a head process started by `nohup` or in the background, where
    # SIGINT is ignored.
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    head = Head(path, slurm_plugin.job_name(snakemake_graph.executor_of(workflow)))
    head.write()
    _watch = Watch(head, 60 * patience)
    _watch.start()


def end() -> None:
    """Called once a run, at its end: ends the watch, and tells of jobs that ended for a reason that
    is not in the rule's own log.
    """
    if _watch and _logs:
        _watch.stop()
        try:
            nodes = {job.id: job.node for job in queued_jobs(_watch.head.job_name)}
        except NoAnswerError:
            nodes = {}
        for line in ended_from_outside(_logs, _watch.head.started, nodes):
            log.warning(line)
