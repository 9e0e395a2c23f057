"""The head process of a run, and what an earlier one left in the queue: that is cancelled, and only
that.
"""

import json
import logging
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lib.errors import UserError
from lib.files import write_json
from lib.head.slurm.queue import LIVE, NoAnswerError, query_slurm, queued_jobs
from lib.progress import duration

log = logging.getLogger("snakemake.logging")


#: A head process on another machine that has not touched its file for so long is dead.
HEARTBEAT_LIFETIME = 300.0


SECONDS_TO_CANCEL = 300.0


@dataclass
class HeadProcess:
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
    def read(cls, path: Path) -> "Self | None":
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
    before = HeadProcess.read(path)
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
            "Jobs of this run left in the queue by a head process that died, now cancelled:"
            f" {len(orphans)}"
        )
        query_slurm("scancel", f"--name={before.job_name}")
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
