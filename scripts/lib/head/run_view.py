"""How far a run is: its jobs by rule, those that are at work, and the time that is left."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Rules without a job of their own.
TARGETS = (
    "all",
    "images",
    "rankings",
    "responses",
    "pairs",
    "tables",
    "verify",
    "publish",
    "total",
)
#: Of the end of a job's log, for its last line of progress.
BYTES_OF_LOG = 4096


@dataclass(frozen=True)
class RunningJob:
    """A job at work: its rule, its wildcards in one, its log, and when it began (monotonic)."""

    rule: str
    name: str
    log: Path | None = None
    began: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.rule} {self.name}".strip()

    def progress(self) -> str:
        """What its log says last of its progress ("12 of 90 items, 3 min left"), or nothing."""
        try:
            with open(self.log or "", "rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - BYTES_OF_LOG))
                lines = stream.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        told = [line.rpartition(": ")[2] for line in lines if line.endswith(" left")]
        return told[-1] if told else ""


class RunView:
    """The jobs of a run by rule."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        self.done: Counter[str] = Counter()
        self.running: dict[int, RunningJob] = {}
        self._began = time.monotonic()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._planned: Mapping[str, float] = {}

    def expect(self, planned: Mapping[str, float]) -> None:
        """Takes how long a job of each rule is planned to take, in any unit: where none of a rule
        is done, its jobs are held to be longer or shorter than others by as much.
        """
        self._planned = planned

    def begin(self, jobs: Mapping[str, int]) -> None:
        """Takes how many jobs there are of each rule."""
        self._began = time.monotonic()
        self.total = {rule: count for rule, count in jobs.items() if rule not in TARGETS}

    def start(self, number: int, job: RunningJob) -> None:
        """A job begins, or is begun again."""
        if job.rule in self.total:
            self.running[number] = job

    def finish(self, number: int) -> RunningJob | None:
        """A job has ended well; None for one that counts for nothing."""
        job = self.running.pop(number, None)
        if job:
            self.done[job.rule] += 1
            self._seconds[job.rule] += time.monotonic() - job.began
        return job

    def fail(self, number: int) -> RunningJob | None:
        """A job has failed; it may begin again."""
        return self.running.pop(number, None)

    @property
    def counts(self) -> tuple[int, int]:
        """Jobs that are done, and all."""
        return self.done.total(), sum(self.total.values())

    def seconds_left(self) -> float | None:
        """The time that the jobs will take that are left, going by those that are done and at work;
        None before the first is done.
        """
        if not self.done.total():
            return None
        now, running = time.monotonic(), list(self.running.values())
        passed, worked = now - self._began, sum(self._seconds.values())
        at_work = sum(now - job.began for job in running)
        at_once = max(1.0, (worked + at_work) / passed) if passed else 1.0
        left = sum(self._mean(rule) * (jobs - self.done[rule]) for rule, jobs in self.total.items())
        left -= sum(min(now - job.began, self._mean(job.rule)) for job in running)
        return max(0.0, left) / at_once

    def _mean(self, rule: str) -> float:
        """The seconds that a job of a rule takes."""
        if of_rule := self.done[rule]:
            return self._seconds[rule] / of_rule
        planned = sum(self._planned.get(each, 1.0) * jobs for each, jobs in self.done.items())
        worked = sum(self._seconds.values())
        return self._planned.get(rule, 1.0) * worked / planned if planned else 0.0
