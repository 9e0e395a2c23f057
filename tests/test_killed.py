"""Killed at any moment, a run goes on where it was: the same bytes, and at most the batch in flight computed twice."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter

import pytest

from conftest import Project, make_small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = 20


def run_and_kill(project: Project, seconds: float) -> bool:
    """Starts the run and kills its whole process group after a while; says whether it had ended by itself."""
    with open(project.folder / "killed.log", "ab") as log:
        process = subprocess.Popen(
            project.command(), cwd=project.folder, env=project.environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
    assert process.returncode == 0, (project.folder / "killed.log").read_text()[-4000:]
    return True


def begun(project: Project) -> Counter[tuple[str, str]]:
    """How often each item was set out to be computed, by journal and key."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in (project.folder / "results/demo/work").rglob("*.journal.jsonl"):
        for line in path.read_bytes().split(b"\n")[1:-1]:
            for key in json.loads(line).get("begin", []):
                counts[str(path), key] += 1
    return counts


def test_twenty_kills_spread_over_a_run_change_no_byte_and_lose_at_most_the_batch_in_flight(new_project, finished):
    project = new_project("killed")
    make_small(project)
    randomness = random.Random(20)
    waits = [4.0]
    kills = 0
    twice_before = 0
    while kills < KILLS:
        # A run has to get further than the one before, or it would never end: what takes long is given longer.
        ended = run_and_kill(project, randomness.uniform(5, 9) + waits[-1] * (kills % 4 == 3))
        if ended:
            break
        kills += 1
        twice = sum(count - 1 for count in begun(project).values())
        jobs_at_once = 2
        assert twice - twice_before <= jobs_at_once, "more than the batch in flight of each job was computed twice"
        twice_before = twice
        project.snakemake("--unlock")
        time.sleep(0.1)
    project.snakemake()
    assert kills == KILLS or kills >= 12, f"the run ended after {kills} kills: it is too short for this test"
    expected, found = finished.published(), project.published()
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
