"""A watch over the queue while a run goes on.

The executor plugin loses sight of jobs when Slurm does not answer, or forgets them, and would then
wait for ever. The watch asks Slurm on its own, says when there is no answer, names jobs that cannot
start as they are, and ends a head process that waits for nothing.
"""

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lib.head.slurm.head_process import HeadProcess
from lib.head.slurm.queue import (
    LIVE,
    NoAnswerError,
    QueuedJob,
    queued_jobs,
)
from lib.progress import duration

#: Snakemake's logger prints a message as it is: arguments would not be filled in.
log = logging.getLogger("snakemake.logging")


SECONDS_BETWEEN_LOOKS = 15.0


#: Pending reasons that waiting won't resolve (by the beginning of squeue's reason), and the fix.
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


class Watch(threading.Thread):
    """Looks at the queue while the head process runs; see the module's docstring. Stopped by
    `stop`.
    """

    def __init__(self, head: HeadProcess, patience: float) -> None:
        """`patience`: seconds after which a head process that waits for nothing is ended."""
        super().__init__(name="cluster-watch", daemon=True)
        self.head = head
        self.patience = patience
        self._ended = threading.Event()
        self._warned: set[tuple[str, str]] = set()

    def stop(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def run(self) -> None:
        """Looks until it is stopped."""
        silent_since = idle_since = time.monotonic()
        warned_at = 0.0
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
                    and now - warned_at >= self.patience
                ):
                    log.warning(
                        f"Slurm has not answered for {duration(now - silent_since)} ({error}). Jobs"
                        " in the queue are not lost by that; this run goes on when it answers."
                    )
                    warned_at = now
                continue
            silent_since = now
            self._warn_of_stuck(jobs)
            if any(job.state in LIVE for job in jobs):
                idle_since = now
            elif now - idle_since > self.patience:
                idle = duration(now - idle_since)
                log.error(
                    f"No job of this run has been in Slurm's queue for {idle}, and yet the executor"
                    " waits for one: it has lost sight of it. This run ends here; nothing that is"
                    " finished is lost. Go on with the same command."
                )
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    def _warn_of_stuck(self, jobs: Iterable[QueuedJob]) -> None:
        for job in jobs:
            mend = next(
                (mend for reason, mend in STUCK.items() if job.reason.startswith(reason)), None
            )
            if job.state == "PENDING" and mend and (job.id, job.reason) not in self._warned:
                self._warned.add((job.id, job.reason))
                log.warning(f"Slurm job {job.id} ({job.what}) cannot start: {job.reason}. {mend}.")


#: What stands in Slurm's log of a job, or in its rule's own, where a place ended it, not the work;
#: and what it means.
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


#: Where Slurm's log of a failed job names its rule's own.
_LOG_OF_RULE = re.compile(r"^ *log: (.+?) \(check log file", re.MULTILINE)


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
        text = _with_log_of_rule(path.read_text(encoding="utf-8", errors="replace"))
        if reason := next(
            (meaning for mark, meaning in ENDED_FROM_OUTSIDE.items() if mark in text), None
        ):
            where = f" on {nodes[path.stem]}" if nodes.get(path.stem) else ""
            lines.append(
                f"Slurm job {path.stem}{where} ({path.parent.relative_to(folder).as_posix()}):"
                f" {reason}; its log: {path}"
            )
    return lines


def _with_log_of_rule(text: str) -> str:
    """What Slurm's log of a job says, and what that of its rule does, where there is one."""
    for name in dict.fromkeys(_LOG_OF_RULE.findall(text)):
        with suppress(OSError):
            text += Path(name).read_text(encoding="utf-8", errors="replace")
    return text
