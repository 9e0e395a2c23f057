"""How long a run takes on some number of GPUs: its jobs in the order of the graph, those first on
which most depends, as Slurm would run them if nobody else were there.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from lib.planning.graph import PlannedJob


@dataclass(frozen=True)
class Schedule:
    """How many seconds a run takes, and the most GPUs that its jobs hold at once."""

    seconds: float
    gpus: int


def schedule(jobs: Sequence[PlannedJob], seconds: Sequence[float], gpus: int | None) -> Schedule:
    """The jobs on `gpus` GPUs (None: as many as they can use), each as long as `seconds` says.

    A job that waits for GPUs lets smaller ones go first. CPUs are not counted. Every job has to fit
    by itself (`most_gpus_of_a_job`).
    """
    before = _jobs_before(jobs)
    after: list[list[int]] = [[] for _ in jobs]
    for job, needed in enumerate(before):
        for each in needed:
            after[each].append(job)
    urgency = _seconds_to_the_end(before, after, seconds)
    waits_for = [len(needed) for needed in before]
    ready = _Ready(jobs, urgency)
    for job, others in enumerate(waits_for):
        if not others:
            ready.add(job)
    free = sum(job.gpus for job in jobs) if gpus is None else gpus
    running: list[tuple[float, int]] = []
    now, held, most = 0.0, 0, 0
    while ready or running:
        while (next_job := ready.take(free)) is not None:
            free -= jobs[next_job].gpus
            held += jobs[next_job].gpus
            heapq.heappush(running, (now + seconds[next_job], next_job))
        most = max(most, held)
        now, done = heapq.heappop(running)
        free += jobs[done].gpus
        held -= jobs[done].gpus
        for job in after[done]:
            waits_for[job] -= 1
            if not waits_for[job]:
                ready.add(job)
    return Schedule(now, most)


class _Ready:
    """The jobs that wait for nothing but GPUs: those first on which most depends, of equals that
    first which was ready first.
    """

    def __init__(self, jobs: Sequence[PlannedJob], urgency: Sequence[float]) -> None:
        self.jobs, self.urgency = jobs, urgency
        self._by_gpus: dict[int, list[tuple[float, int, int]]] = {}
        self._added = count()

    def add(self, job: int) -> None:
        """Takes a job in."""
        waiting = self._by_gpus.setdefault(self.jobs[job].gpus, [])
        heapq.heappush(waiting, (-self.urgency[job], next(self._added), job))

    def take(self, free: int) -> int | None:
        """The next job that holds at most so many GPUs; None where there is none."""
        fitting = [waiting for gpus, waiting in self._by_gpus.items() if waiting and gpus <= free]
        return heapq.heappop(min(fitting))[2] if fitting else None

    def __bool__(self) -> bool:
        return any(self._by_gpus.values())


def most_gpus_of_a_job(jobs: Sequence[PlannedJob]) -> int:
    """The GPUs that the largest job holds."""
    return max((job.gpus for job in jobs), default=0)


def _jobs_before(jobs: Sequence[PlannedJob]) -> list[list[int]]:
    """Of each job the places of those that it waits for; one that is not planned is not waited
    for.
    """
    places = {job.name: place for place, job in enumerate(jobs)}
    return [[places[name] for name in job.needs if name in places] for job in jobs]


def _seconds_to_the_end(
    before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], seconds: Sequence[float]
) -> list[float]:
    """Of each job the seconds of the longest chain of jobs that begins with it."""
    longest = list(seconds)
    waits_for = [len(jobs) for jobs in after]
    ends = [job for job, count in enumerate(waits_for) if not count]
    while ends:
        job = ends.pop()
        for earlier in before[job]:
            longest[earlier] = max(longest[earlier], seconds[earlier] + longest[job])
            waits_for[earlier] -= 1
            if not waits_for[earlier]:
                ends.append(earlier)
    return longest
