"""Killed at any moment, a run goes on where it was: the same bytes, and at most the batch in flight
computed twice.
"""

import os
import random
import signal
import subprocess
import time

import pytest

from conftest import Project, begun, make_small
from lib.head.summary import read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
KILLS = 20
CORES = 2


def finished_jobs(project: Project) -> int:
    return len(read_records(project.folder / "results/random"))


def run_and_kill(project: Project, jobs: int, seconds: float) -> bool:
    """Starts the run, waits for so many finished jobs and a while longer, and kills its process
    group; False if it ended before that.
    """
    with open(project.folder / "killed.log", "ab") as log:
        command = project.command(cores=CORES)
        process = subprocess.Popen(
            command,
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
            if due is None and finished_jobs(project) >= jobs:
                due = time.monotonic() + seconds
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return True


def test_twenty_kills_spread_over_a_run_change_no_byte_and_lose_at_most_the_batch_in_flight(
    new_project, finished
):
    project = new_project("killed")
    make_small(project)
    randomness = random.Random(20)
    jobs = finished_jobs(finished)
    twice_before = 0
    for kill in range(KILLS):
        # From before the first job has ended to the last benchmark; the tables that follow take a
        # second.
        assert run_and_kill(
            project, kill * (jobs - 9) // (KILLS - 1), randomness.uniform(0.2, 4)
        ), f"the run ended before kill {kill}"
        twice = sum(count - 1 for count in begun(project).values())
        assert twice - twice_before <= CORES, (
            "more than the batch in flight of each job was computed twice"
        )
        twice_before = twice
        project.snakemake("--unlock")
    project.snakemake()
    expected, found = finished.published(), project.published()
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
