"""The graph of the paper's run: jobs, CPU seconds and memory of a dry run and of a run with nothing
to do, and how they grow.

`make bench` runs it. The configuration is config.yaml; the prompts are made up here, 900 for each
of the ten topics, and 100 to 10,000 for the growth. To measure a run with nothing to do without
doing the work, every output is created empty and entered as done with Snakemake's own `--touch`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ("Snakefile", "config.yaml", "rules", "scripts", "envs", "profiles", "published")
PAPER = 9000
LIMITS = {"jobs": 400, "dry run": 3.0, "no-op run": 5.0}


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
    with tempfile.TemporaryFile() as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        stream.seek(0)
        output = stream.read().decode()
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} failed:\n{output[-3000:]}")
    return Measured(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def make_project(folder: Path, prompts: int) -> None:
    """A clone with `prompts` prompts over the ten topics."""
    for part in PARTS:
        source = REPOSITORY / part
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / part)
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


def jobs_of(output: str) -> Counter[str]:
    """Jobs by rule, from a dry run's table."""
    table = output.split("Job stats:", 1)[1].split("total", 1)[0] if "Job stats:" in output else ""
    return Counter(
        {
            rule: int(count)
            for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, flags=re.MULTILINE)
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
        if path.suffix or path.name == "README":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
    measure(folder, "--touch", "--forceall", "--no-hooks")


def main() -> None:
    """Prints the tables; exits with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, nargs="*", default=[1000, PAPER, 100_000])
    arguments = parser.parse_args()
    console = Console(width=120)
    table = Table(title="Graph of config.yaml", title_justify="left")
    for column in (
        "prompts",
        "jobs",
        "dry run, CPU s",
        "MB",
        "no-op run, CPU s",
        "MB",
        "after editing one prompt",
    ):
        table.add_column(column, justify="right")
    exceeded = []
    for prompts in arguments.prompts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_project(folder, prompts)
            dry = measure(folder, "-n", "--quiet", "rules")
            jobs = jobs_of(dry.output)
            finish_without_work(folder)
            idle = measure(folder)
            if "Nothing to be done" not in idle.output:
                sys.exit(f"the run with nothing to do did something:\n{idle.output[-3000:]}")
            first = next(iter(sorted((folder / "prompts").glob("*.txt"))))
            first.write_text(first.read_text().replace("scene 17 of", "the edited scene 17 of"))
            edited = jobs_of(measure(folder, "-n", "--quiet", "rules").output)
        shards = {rule: count for rule, count in edited.items() if rule in SHARD_RULES}
        table.add_row(
            f"{prompts:,}",
            str(jobs.total()),
            f"{dry.cpu_seconds:.2f}",
            f"{dry.megabytes:.0f}",
            f"{idle.cpu_seconds:.2f}",
            f"{idle.megabytes:.0f}",
            ", ".join(f"{rule} {count}" for rule, count in shards.items()),
        )
        if prompts == PAPER:
            found = {
                "jobs": jobs.total(),
                "dry run": dry.cpu_seconds,
                "no-op run": idle.cpu_seconds,
            }
            exceeded = [
                f"{name}: {value} over {LIMITS[name]}"
                for name, value in found.items()
                if value > LIMITS[name]
            ]
    console.print(table)
    console.print(
        f"Limits at {PAPER:,} prompts: {LIMITS['jobs']} jobs, dry run {LIMITS['dry run']} s, no-op"
        f" run {LIMITS['no-op run']} s of CPU."
    )
    sys.exit("over the limit: " + "; ".join(exceeded) if exceeded else 0)


SHARD_RULES = (
    "generate_images",
    "rank_images",
    "write_instructions",
    "generate_responses",
    "rank_responses",
    "build_pairs",
)

if __name__ == "__main__":
    main()
