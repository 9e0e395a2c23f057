"""What Slurm says of the jobs in its queue."""

import subprocess
from dataclasses import dataclass

#: Slurm's own commands give up after some 10 to 30 s where the controller does not answer.
COMMAND_TIMEOUT = 60.0


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


def query_slurm(*command: str) -> str:
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
    lines = query_slurm(
        "squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i|%T|%r|%N|%k"
    ).splitlines()
    return [QueuedJob(*line.split("|", 4)) for line in lines if line.count("|") >= 4]
