"""What `make demo` costs, of this commit and of others: seconds by the clock, CPU seconds, and how
much of the jobs' time is loading.

    python benchmarks/demo.py [--against REVISION ...] [--repeats N]

Each commit is unpacked into a folder of its own, and the recipe of its own `make demo` is run there
from nothing, with this installation's libraries: the commits in turn, `--repeats` times over. The
fastest of each is kept, since others on a shared machine can only make it slower. What is changed
here and not yet committed is measured, too; new files where `git add` has named them.

CPU seconds (user and system) are of all processes that were waited for. Commits that fork their
jobs and have no `answer_ended` (scripts/lib/jobs/fork_server.py) did not wait for these: what is
measured of them is too little.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from graph import REPOSITORY, unpack
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(REPOSITORY / "scripts"))

from lib.head.summary import Loading, read_records

ENVIRONMENT = Path(sys.prefix)
RUN = Path("results/demo")
#: Of the jobs' time.
LIMIT = 0.25


@dataclass(frozen=True)
class Cost:
    """By the clock, and in CPU seconds (user and system)."""

    seconds: float
    cpu_seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


NOTHING = Cost(0.0, 0.0)


@dataclass(frozen=True)
class Demo:
    """One `make demo`: what building its data cost, what the rest, and the jobs' own records."""

    building: Cost
    running: Cost
    loading: Loading

    @property
    def whole(self) -> Cost:
        """All of it."""
        return self.building + self.running


def recipe(folder: Path) -> list[str]:
    """The commands of `make demo` in a commit's folder, all that comes after the installation."""
    # Of `make bench`, it would take over the options, and say in which folder it is.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    make = subprocess.run(
        ["make", "-n", f"--old-file={ENVIRONMENT}/installed", f"VENV={ENVIRONMENT}", "demo"],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return make.stdout.splitlines()


def run(command: str, folder: Path, log: Path) -> Cost:
    """Runs a command of the recipe; `log` takes what it prints."""
    began = time.monotonic()
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, stdout=stream, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} failed in {folder}:\n{log.read_text(errors='replace')[-3000:]}")
    return Cost(time.monotonic() - began, usage.ru_utime + usage.ru_stime)


def run_demo(revision: str) -> Demo:
    """`make demo` of a commit, from nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "repository"
        unpack(revision, folder, parts=())
        building, running = NOTHING, NOTHING
        for command in recipe(folder):
            cost = run(command, folder, Path(name) / "log")
            if "demo/build_" in command:
                building += cost
            else:
                running += cost
        return Demo(building, running, Loading.of(read_records(folder / RUN)))


def this_commit() -> str:
    """A commit of what is here, changes included."""
    git = ["git", "-C", str(REPOSITORY)]
    changed = subprocess.run([*git, "stash", "create"], check=True, capture_output=True, text=True)
    return changed.stdout.strip() or "HEAD"


def measure(commits: Mapping[str, str], repeats: int) -> dict[str, Demo]:
    """The demo of each commit that took the least of CPU seconds. `commits`: revisions by name."""
    fastest: dict[str, Demo] = {}
    for _ in range(repeats):
        for name, revision in commits.items():
            demo = run_demo(revision)
            print(f"{name}: {demo}", flush=True)
            fastest[name] = min(
                (demo, fastest.get(name, demo)), key=lambda each: each.whole.cpu_seconds
            )
    return fastest


def table_of(demos: Mapping[str, Demo]) -> Table:
    """A row a commit."""
    columns = ("building, s", "CPU s", "the rest, s", "CPU s", "make demo, s", "CPU s")
    table = Table("commit", *columns, "jobs", "loading", title="make demo", title_justify="left")
    for name, demo in demos.items():
        costs = (demo.building, demo.running, demo.whole)
        seconds = [f"{each:.0f}" for cost in costs for each in (cost.seconds, cost.cpu_seconds)]
        table.add_row(name, *seconds, str(demo.loading.jobs), f"{demo.loading.share:.0%}")
    return table


def ratios(demos: Mapping[str, Demo], others: Iterable[str]) -> list[str]:
    """How many times as long each of the others takes as this one."""
    this = demos["this"]
    return [
        f"{name} / this: {demo.whole.cpu_seconds / this.whole.cpu_seconds:.2f} in CPU seconds,"
        f" {demo.whole.seconds / this.whole.seconds:.2f} by the clock; without building"
        f" {demo.running.cpu_seconds / this.running.cpu_seconds:.2f} and"
        f" {demo.running.seconds / this.running.seconds:.2f}"
        for name, demo in ((name, demos[name]) for name in others)
    ]


def main() -> int:
    """Prints the table; returns 1 where more of the jobs' time is loading than we hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", metavar="REVISION", nargs="*", default=[], help="commits to measure beside it"
    )
    parser.add_argument("--repeats", type=int, default=1, help="of each commit's demo")
    arguments = parser.parse_args()
    commits = {"this": this_commit()} | {name: name for name in arguments.against}
    demos = measure(commits, arguments.repeats)
    console = Console(width=120)
    console.print(table_of(demos))
    for line in ratios(demos, arguments.against):
        console.print(line)
    share = demos["this"].loading.share
    console.print(f"Limit: {LIMIT:.0%} of the jobs' time is loading.")
    return 1 if share > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
