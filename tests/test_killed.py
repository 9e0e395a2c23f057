"""Killed at any moment, a run goes on where it was by the same command: the same bytes, and at most
the batch in flight computed twice.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from conftest import Project, lost_batches, make_small
from lib.head.summary import read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
#: Kills that are spread over the run, and further ones at moments that nobody chose.
SPREAD, BY_CHANCE = 20, 6
CORES = 2


def finished_jobs(project: Project) -> int:
    return len(read_records(project.folder / "results/random"))


def run_and_kill(project: Project, cores: int, jobs: int, last: int, seconds: float) -> bool:
    """Starts the run, waits for so many finished jobs and a while longer, at most for `last` of
    them, and kills its process group; False if it ended before that.
    """
    with open(project.folder / "killed.log", "ab") as log:
        process = subprocess.Popen(
            project.command(cores=cores),
            cwd=project.folder,
            env=project.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        due = None
        while due is None or time.monotonic() < due:
            if process.poll() is not None:
                assert process.returncode == 0, (project.folder / "killed.log").read_text()[-4000:]
                return False
            done = finished_jobs(project)
            if due is None and done >= jobs:
                due = time.monotonic() + seconds
            elif jobs < last <= done:
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return True


def moments(last: int) -> Iterator[tuple[int, float]]:
    """When to kill: after how many finished jobs of `last`, and how many seconds.

    The spread ones are from before the first job has ended on. The others come some time after
    their command, whatever it does then: at other times in each run of the tests.
    """
    seed = random.SystemRandom().randrange(10**6)
    print(f"random.Random({seed})")
    chance = random.Random(seed)
    before = chance.sample(range(SPREAD), BY_CHANCE)
    for kill in range(SPREAD):
        if kill in before:
            yield 0, chance.uniform(0.1, 8)
        yield kill * last // (SPREAD - 1), chance.uniform(0.2, 3)


def test_kills_spread_over_a_run_and_by_chance_change_no_byte_and_lose_at_most_the_batch_in_flight(
    new_project: Callable[..., Project], finished: Project
) -> None:
    """Nor do the number of cores and the order of topics, which are others here."""
    project = new_project("killed")
    make_small(project)
    project.edit_config(lambda values: values.update(topics=["nature", "art"]))
    # Up to the last benchmark; the tables that follow take a second.
    last = finished_jobs(finished) - 9
    lost_before, kills = lost_batches(project), 0
    for jobs, seconds in moments(last):
        assert run_and_kill(project, 1 + kills % CORES, jobs, last, seconds), (
            f"the run ended before kill {kills}"
        )
        lost = lost_batches(project)
        of_this_kill = lost - lost_before
        assert len(of_this_kill) <= CORES
        for journal, batches in of_this_kill.items():
            # A job that draws images has a second batch in flight, whose files are being written.
            in_flight = 2 if "generate_images" in journal.parts else 1
            assert batches <= in_flight, f"{journal}: more than the batch in flight was lost"
        lost_before = lost
        kills += 1
    assert kills == SPREAD + BY_CHANCE
    project.snakemake()
    assert lost_batches(project) == lost_before
    expected, found = finished.published(), project.published()
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
