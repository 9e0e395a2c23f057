"""Prints what a run needs before it is launched: jobs, hours, GPU-hours, storage and files by
stage; how long it takes on how many GPUs; what endpoints are asked and cost; what is downloaded;
and what models and endpoints may be used for. `make plan` runs it.

The jobs and their GPUs are Snakemake's own plan of the run from its beginning; what an item costs
stands in profiles/slurm/rates.yaml, which is yours to edit. Once the run has records, what it used
stands beside the plan. docs/planning.md tells how to measure your own rates.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from lib.config.licences import read_licences
from lib.config.run import Config
from lib.data.layouts import PromptCounts
from lib.errors import UserError
from lib.head import project
from lib.head.downloads import downloads
from lib.head.left_out import NO_PAIRS
from lib.planning import graph, hub
from lib.planning.costs import Cost, CostPlan, in_order, plan_costs
from lib.planning.graph import PlannedJob
from lib.planning.rates import Rates, read_rates
from lib.planning.requests import cost_of, endpoints_asked, say_requests
from lib.planning.schedule import most_gpus_of_a_job, schedule
from lib.planning.usage import measured_rates, read_usage

#: The numbers of GPUs that the hours are told for.
GPUS = (1, 2, 4, 8, 16, 32)
RATES = Path(project.path("profiles/slurm/rates.yaml"))
HEADER = """\
# Rates of `make plan`, measured by a run of yours (`scripts/plan.py --rates-from {run}`). \
profiles/slurm/rates.yaml says what each means.
# What that run did not do has the rate that it had before.
"""


@dataclass(frozen=True)
class Planned:
    """A run's jobs, and how many prompts it has."""

    jobs: Sequence[PlannedJob]
    prompts: PromptCounts


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--configfile",
        nargs="+",
        type=Path,
        default=[Path(project.default_config_file())],
        metavar="FILE",
        help="the run's configuration",
    )
    arguments.add_argument(
        "--rates",
        type=Path,
        default=RATES,
        metavar="FILE",
        help="what an item costs (profiles/slurm/rates.yaml)",
    )
    arguments.add_argument(
        "--prompts-per-topic",
        type=_count,
        metavar="N",
        help="plan for so many prompts a topic, whether or not they are written",
    )
    arguments.add_argument(
        "--gpus",
        type=_count,
        metavar="N",
        help="say how long the run takes on N GPUs",
    )
    arguments.add_argument(
        "--run",
        type=Path,
        metavar="FOLDER",
        help="whose use to show (the configured run's, results/<run>)",
    )
    arguments.add_argument(
        "--rates-from",
        type=Path,
        metavar="FOLDER",
        help="print a rates file measured by this finished run of the configuration, and no plan",
    )
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def show(plan: CostPlan, used: dict[str, Cost], title: str, console: Console) -> None:
    """Prints the table; columns of what was used where a run has records."""
    table = Table(title=title, title_justify="left", show_footer=True)
    total, total_used = Cost(), Cost()
    rules = in_order(plan.costs.keys() | used.keys())
    for rule in rules:
        total.add(plan.costs.get(rule, Cost()))
        total_used.add(used.get(rule, Cost()))
    columns: list[tuple[str, Callable[[Cost], str]]] = [
        ("jobs", lambda cost: f"{cost.jobs:,}"),
        ("items", lambda cost: f"{cost.items:,.0f}"),
        ("hours", lambda cost: _amount(cost.seconds / 3600)),
        ("GPU-hours", lambda cost: _amount(cost.gpu_seconds / 3600)),
        ("GB", lambda cost: _amount(cost.bytes / 1e9)),
        ("files", lambda cost: f"{cost.files:,.0f}"),
    ]
    compared = {"jobs", "hours", "GPU-hours", "GB", "files"} if used else set()
    table.add_column("stage", footer="all", no_wrap=True)
    for name, text in columns:
        # Items of different stages do not add up.
        table.add_column(
            name, justify="right", footer="" if name == "items" else text(total), no_wrap=True
        )
        if name in compared:
            table.add_column(
                "used", justify="right", footer=text(total_used), style="cyan", no_wrap=True
            )
        if name == "hours":
            table.add_column(
                "longest job", justify="right", footer=_amount(total.longest / 3600), no_wrap=True
            )
    table.add_column("rate")
    for rule in rules:
        planned, actual = plan.costs.get(rule, Cost()), used.get(rule, Cost())
        cells = [rule]
        for name, text in columns:
            cells.append(text(planned))
            if name in compared:
                cells.append(text(actual) if rule in used else "-")
            if name == "hours":
                cells.append(_amount(planned.longest / 3600))
        table.add_row(*cells, ", ".join(sorted(plan.bases.get(rule, ()))))
    console.print(table)


def _amount(value: float) -> str:
    return (
        "0"
        if value == 0
        else (
            "<0.001"
            if value < 0.0005
            else (
                f"{value:.3f}"
                if value < 0.1
                else f"{value:,.2f}"
                if value < 10
                else f"{value:,.0f}"
            )
        )
    )


def say_prompts(config: Config, prompts: int, per_topic: int | None) -> list[str]:
    """For how many prompts the plan is, and what that means for the data sets."""
    if per_topic is not None:
        sentence = (
            f"Planned as if {per_topic} prompts were written for each of the {len(config.topics)}"
            f" topics: {prompts} prompts."
        )
        return [sentence]
    if not config.training.needs_pairs_of_run:
        return [NO_PAIRS]
    largest = max((size for size in config.pairs.sizes if isinstance(size, int)), default=0)
    if prompts >= largest:
        return []
    sentence = (
        f"'{config.prompts}' has {prompts} prompts, fewer than the largest data set ({largest}"
        " pairs) needs. Larger data sets are left out, with the experiments on them, as the run"
        " would leave them out. --prompts-per-topic"
        f" {-(-largest // len(config.topics))} plans for prompts that are still to be written."
    )
    return [sentence]


def say_hours(jobs: Sequence[PlannedJob], seconds: Sequence[float], gpus: int | None) -> list[str]:
    """How long the run takes on `gpus` GPUs, or on some numbers of them. Errors: UserError if a job
    holds more.
    """
    least = most_gpus_of_a_job(jobs)
    if not least:
        return []
    if gpus and gpus < least:
        name = max(jobs, key=lambda job: job.gpus).name
        raise UserError(
            f"--gpus {gpus}: {name} holds {least} GPUs at once. Give {least} or more, or lower"
            " `training.settings.processes`"
        )
    endless = schedule(jobs, seconds, None)
    counts = [gpus] if gpus else [count for count in GPUS if least <= count < endless.gpus]
    parts = [
        f"{_amount(schedule(jobs, seconds, count).seconds / 3600)} hours on {count}"
        f" {'GPU' if count == 1 else 'GPUs'}"
        for count in counts
    ]
    parts.append(
        f"never under {_amount(endless.seconds / 3600)}, which {endless.gpus} at once allow"
    )
    return [f"From the first job to the last, without time in the queue: {', '.join(parts)}."]


def say_costs_and_terms(
    config: Config, planned: Planned, rates: Rates, file: Path
) -> Iterator[str]:
    """What endpoints are asked, what is needed from the hub, and the terms of all of it."""
    asked = list(endpoints_asked(config, planned.jobs, planned.prompts, rates.questions))
    yield from say_requests([cost_of(each, rates) for each in asked], rates, file)
    wanted, unknown = downloads(config)
    yield from unknown
    yield from hub.say_hub(wanted, rates, file)
    yield from hub.say_licences(wanted, [each.endpoint.base_url for each in asked], read_licences())


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Errors: UserError."""
    if arguments.run and not (arguments.run / "work").is_dir():
        raise UserError(
            f"--run {arguments.run}: holds no records of jobs (work/). Name the folder of a run,"
            " e.g. results/demo"
        )
    values, config = graph.read_configuration(arguments.configfile)
    jobs, prompts, rules = graph.plan_jobs(values, config, arguments.prompts_per_topic)
    rates = read_rates(arguments.rates, rules)
    if arguments.rates_from:
        content = measured_rates(arguments.rates_from, jobs, config, prompts, rates)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=140)
        print(HEADER.format(run=arguments.rates_from) + text, end="")
        return
    plan = plan_costs(jobs, config, prompts, rates)
    hours = say_hours(jobs, plan.seconds, arguments.gpus)
    root = arguments.run or config.root
    used = read_usage(root, jobs) if (root / "work").is_dir() else {}
    console = Console(
        width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False
    )
    show(
        plan, used, f"{config.run}: {len(jobs)} jobs" + (f"; used: {root}" if used else ""), console
    )
    for note in [
        *hours,
        *say_prompts(config, prompts.total, arguments.prompts_per_topic),
        *plan.notes,
        *say_costs_and_terms(config, Planned(jobs, prompts), rates, arguments.rates),
    ]:
        console.print(note)
    if any("assumed" in bases for bases in plan.bases.values()):
        console.print(
            f"Rates marked `assumed` were measured by nobody; {arguments.rates} gives their"
            " reasoning. Run a small pilot and plan with its own: --rates-from results/<pilot>"
            " (docs/planning.md)."
        )


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    try:
        run(parser().parse_args(words))
    except UserError as error:
        print(f"plan.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
