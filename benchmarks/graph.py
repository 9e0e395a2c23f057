"""The graph of the paper's run: jobs, CPU seconds and memory of a dry run and of a run with nothing
to do, and how they grow.

    python benchmarks/graph.py [--prompts N ...] [--against REVISION]

`make bench` runs it, and `make plan` of a million prompts, also with 10,000 jobs of images. The
configuration is config.yaml; the prompts are made up here, 900 for each of the ten topics, and 100
to 10,000 for the growth. To measure a run with nothing to do without doing the work, every output
is created empty and entered as done with Snakemake's own `--touch`.

`--against` measures another commit too, with this one's libraries: each command in turn on both,
`--repeats` times over, and the fastest of each is kept, since others on a shared machine can only
make it slower.
"""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ("Snakefile", "config.yaml", "rules", "scripts", "envs", "profiles", "published")
PAPER = 9000
SHARD_RULES = (
    "generate_images",
    "gather_images",
    "rank_images",
    "write_instructions",
    "generate_responses",
    "rank_responses",
    "build_pairs",
)
FILES_WITHOUT_SUFFIX = {"README", "SHA256SUMS"}
LIMITS = {"jobs": 400, "dry run": 3.0, "no-op run": 5.0}
MANY = 1_000_000
#: ... with as many jobs of images as take an hour each, and a hundred of each model after them.
MANY_JOBS: dict[str, object] = {
    "shards_per_topic": 1000,
    "shards": {"rank_images": 100, "generate_responses": 100},
}
#: Of the plan of so many prompts.
LIMITS_OF_MANY = {"CPU s": 60.0, "MB": 500.0}


#: Leaves the record of each job, without which it would run again.
RECORDS = """
import json
from pathlib import Path
from lib.planning.graph import plan_jobs, read_configuration

values, config = read_configuration([Path("config.yaml")])
jobs = plan_jobs(values, config, None)[0]
for job in [part for job in jobs for part in getattr(job, "parts", [job])]:
    name = "/".join(job.wildcards.values()) or job.rule
    path = config.root / "work" / job.rule / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rule": job.rule, "job": name, "computed": 0, "finished": ""}))
"""


@dataclass(frozen=True)
class Measured:
    """What one command cost."""

    cpu_seconds: float
    megabytes: float
    output: str


def measure(folder: Path, *arguments: str) -> Measured:
    """Runs snakemake on the paper's configuration; CPU seconds (user and system) and peak resident
    memory of the process.
    """
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    command = [snakemake, "--profile", "profiles/local", "--cores", "2", *arguments]
    return measure_command(folder, *command)


def measure_command(folder: Path, *command: str) -> Measured:
    """Runs a command in a folder."""
    with tempfile.TemporaryFile() as stream:
        # Keys and models need not be there; that they are looked for is part of the cost.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        stream.seek(0)
        output = stream.read().decode()
    if os.waitstatus_to_exitcode(status) and "would stop at its start" not in output:
        sys.exit(f"{' '.join(command)} failed:\n{output[-3000:]}")
    return Measured(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def make_project(source: Path, folder: Path, prompts: int) -> None:
    """A clone of `source` with `prompts` prompts over the ten topics."""
    folder.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (source / part).is_dir() else shutil.copy2
        copy(source / part, folder / part)
    topics = yaml.safe_load((folder / "config.yaml").read_text())["topics"]
    (folder / "prompts").mkdir()
    for topic in topics:
        lines = [
            f"scene {number} of {topic}: {number % 7 + 2} cats beside a boat\n"
            for number in range(prompts // len(topics))
        ]
        (folder / "prompts" / f"{topic}.txt").write_text("".join(lines))
    if prompts < PAPER:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["pairs"]["sizes"] = [prompts]
        config["training"]["experiments"] = {
            name: {"size": prompts} for name in config["training"]["experiments"]
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))


def measure_plan(prompts: int, values: Mapping[str, object]) -> Measured:
    """`make plan` of so many prompts over the ten topics. `values`: what the configuration has
    besides config.yaml.
    """
    with tempfile.TemporaryDirectory() as name:
        more = Path(name, "more.yaml")
        more.write_text(yaml.safe_dump({"run": "paper", **values}))
        words = ("scripts/plan.py", "--configfile", "config.yaml", str(more))
        count = ("--prompts-per-topic", str(prompts // 10))
        return measure_command(REPOSITORY, sys.executable, *words, *count)


def over_limits_of_many(plan: Measured) -> list[str]:
    """In what the plan of many prompts exceeds the limits."""
    measured = {"CPU s": plan.cpu_seconds, "MB": plan.megabytes}
    return [
        f"{value:.0f} {unit} for the plan of {MANY:,} prompts"
        for unit, value in measured.items()
        if value > LIMITS_OF_MANY[unit]
    ]


def jobs_of(output: str) -> Counter[str]:
    """Jobs by rule, from a dry run's table."""
    table = output.split("Job stats:", 1)[1].split("total", 1)[0] if "Job stats:" in output else ""
    return Counter(
        {
            rule: int(count)
            for rule, count in re.findall(r"^(\w+)\s+(\d+)\b", table, flags=re.MULTILINE)
        }
    )


def finish_without_work(folder: Path) -> None:
    """Creates every output empty and enters it as done."""
    summary = subprocess.run(
        [
            str(Path(sys.executable).with_name("snakemake")),
            "--profile",
            "profiles/local",
            "--summary",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    for line in summary.stdout.splitlines()[1:]:
        path = folder / line.split("\t")[0]
        if path.suffix or path.name in FILES_WITHOUT_SUFFIX:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
    measure(folder, "--touch", "--forceall", "--no-hooks")
    plan = folder / "scripts/lib/head/plan.py"
    if plan.exists() and "why_again" in plan.read_text():
        subprocess.run(
            [sys.executable, "-c", RECORDS],
            cwd=folder,
            check=True,
            env={**os.environ, "PYTHONPATH": str(folder / "scripts")},
        )


@dataclass
class Graph:
    """What one commit's graph cost: its jobs, and the fastest of each command."""

    jobs: int
    dry: Measured
    idle: Measured
    edited: Counter[str]

    @property
    def after_an_edit(self) -> str:
        """The jobs of shards that follow from editing one prompt."""
        return ", ".join(f"{rule} {self.edited[rule]}" for rule in SHARD_RULES if self.edited[rule])


def measure_graphs(commits: Mapping[str, Path], prompts: int, repeats: int) -> dict[str, Graph]:
    """The graph of each commit, whose files lie in the folder beside its name."""
    with tempfile.TemporaryDirectory() as name:
        folders = {}
        for number, (commit, source) in enumerate(commits.items()):
            folders[commit] = Path(name) / str(number)
            make_project(source, folders[commit], prompts)
        dry = fastest(folders, repeats, "-n", "--quiet", "rules")
        for folder in folders.values():
            finish_without_work(folder)
        idle = fastest(folders, repeats)
        graphs = {}
        for commit, folder in folders.items():
            if "Nothing to be done" not in idle[commit].output:
                sys.exit(f"a run with nothing to do did:\n{idle[commit].output[-3000:]}")
            first = min((folder / "prompts").glob("*.txt"))
            first.write_text(first.read_text().replace("scene 17 of", "the edited scene 17 of"))
            edited = jobs_of(measure(folder, "-n", "--quiet", "rules").output)
            jobs = jobs_of(dry[commit].output).total()
            graphs[commit] = Graph(jobs, dry[commit], idle[commit], edited)
    return graphs


def fastest(folders: Mapping[str, Path], repeats: int, *arguments: str) -> dict[str, Measured]:
    """The fastest of `repeats` runs in each folder, one folder after the other."""
    runs = [
        {commit: measure(folder, *arguments) for commit, folder in folders.items()}
        for _ in range(repeats)
    ]
    return {
        commit: min((run[commit] for run in runs), key=lambda run: run.cpu_seconds)
        for commit in folders
    }


def unpack(revision: str, folder: Path, parts: Sequence[str] = PARTS) -> None:
    """Writes a commit's files into a folder."""
    archive = subprocess.run(
        ["git", "archive", revision, "--", *parts], cwd=REPOSITORY, check=True, capture_output=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def exceeded_limits(graph: Graph) -> list[str]:
    """The limits that the graph of the paper's run is over."""
    costs = {
        "jobs": graph.jobs,
        "dry run": graph.dry.cpu_seconds,
        "no-op run": graph.idle.cpu_seconds,
    }
    return [
        f"{name}: {cost} over {LIMITS[name]}" for name, cost in costs.items() if cost > LIMITS[name]
    ]


def main() -> None:
    """Prints the tables; exits with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, nargs="*", default=[1000, PAPER, 100_000])
    parser.add_argument("--against", metavar="REVISION", help="a commit to measure beside this one")
    parser.add_argument("--repeats", type=int, help="of each command (1; with --against: 5)")
    arguments = parser.parse_args()
    repeats = arguments.repeats or (5 if arguments.against else 1)
    console = Console(width=120)
    table = Table(title="Graph of config.yaml", title_justify="left")
    for column in ("prompts", "commit", "jobs", "dry run, CPU s", "MB", "no-op run, CPU s", "MB"):
        table.add_column(column, justify="left" if column == "commit" else "right")
    table.add_column("after editing one prompt", justify="right")
    exceeded = []
    with tempfile.TemporaryDirectory() as name:
        commits = {"this": REPOSITORY}
        if arguments.against:
            unpack(arguments.against, Path(name))
            commits[arguments.against] = Path(name)
        for prompts in arguments.prompts:
            graphs = measure_graphs(commits, prompts, repeats)
            for commit, graph in graphs.items():
                table.add_row(
                    f"{prompts:,}",
                    commit,
                    str(graph.jobs),
                    f"{graph.dry.cpu_seconds:.2f}",
                    f"{graph.dry.megabytes:.0f}",
                    f"{graph.idle.cpu_seconds:.2f}",
                    f"{graph.idle.megabytes:.0f}",
                    graph.after_an_edit,
                )
            if prompts == PAPER:
                exceeded = exceeded_limits(graphs["this"])
    console.print(table)
    console.print(
        f"Limits at {PAPER:,} prompts: {LIMITS['jobs']} jobs, dry run {LIMITS['dry run']} s, no-op"
        f" run {LIMITS['no-op run']} s of CPU."
    )
    limits = LIMITS_OF_MANY
    cases: list[tuple[int, dict[str, object]]] = [(20, {}), (10_000, MANY_JOBS)]
    for jobs, values in cases:
        plan = measure_plan(MANY, values)
        console.print(
            f"make plan of {MANY:,} prompts, {jobs:,} jobs of images: {plan.cpu_seconds:.1f} s of"
            f" CPU, {plan.megabytes:.0f} MB (limits {limits['CPU s']:.0f} s,"
            f" {limits['MB']:.0f} MB)."
        )
        exceeded += over_limits_of_many(plan)
    sys.exit("over the limit: " + "; ".join(exceeded) if exceeded else 0)


if __name__ == "__main__":
    main()
