"""What a person sees of a run, in place of Snakemake's own lines, which stand in its log file.

A line for each job that ends, with counts and the time left; on a terminal, below these, a bar for
each stage at work with what its jobs say of their progress. Errors, warnings and what nothing is
known of are passed on.
"""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lib.head.run_view import RunningJob, RunView
from lib.jobs.script import OUTPUT_TO_LOG
from lib.progress import clock, duration

#: Lines of a failed job's log that are shown.
LINES_OF_LOG = 40
#: Jobs at work that are shown, at most.
JOBS_SHOWN = 8
#: How lines begin that tell a person nothing.
NOT_FOR_PEOPLE = (
    "Building DAG of jobs",
    "Using shell:",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Select jobs to execute",
    "SLURM run ID:",
    "Reasons:",
    "Some jobs were triggered by provenance",
    "Trying to restart job",
    "Cleaning up SLURM log files",
    # What follows says it better.
    "RuleException:\nCalledProcessError",
)
SUBMITTED = "has been submitted with SLURM jobid"


class Terminal(logging.Handler):
    """Snakemake's handler of what it logs, for people."""

    def __init__(self, stream: TextIO, is_dry_run: bool) -> None:
        super().__init__()
        self.view = RunView()
        self.is_dry_run = is_dry_run
        self._stream = stream
        console = Console(file=stream, markup=False, emoji=False, highlight=False)
        self._live = Live(console=console, get_renderable=self._bars, transient=True)
        self._events: dict[str, Callable[[Any], None]] = {
            "run_info": self._begin,
            "job_info": self._start,
            "job_finished": self._finish,
            "job_error": self._fail,
            "group_error": self._say_as_it_is,
            "error": self._say_as_it_is,
        }
        if not is_dry_run:
            os.environ[OUTPUT_TO_LOG] = "1"

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record, or what follows from it."""
        try:
            event = getattr(record, "event", None)
            if event is not None:
                self._events.get(str(event), self._say_nothing)(record)
            else:
                self._say_as_it_is(record)
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    def say(self, text: str) -> None:
        """Prints lines; above the bars, where there are some."""
        if self._live.is_started:
            self._live.console.print(Text(text))
        else:
            print(text, file=self._stream, flush=True)

    def end(self) -> None:
        """Takes the bars away."""
        self._live.stop()

    def close(self) -> None:
        """Called when logging ends, however that comes."""
        with suppress(Exception):
            self.end()
        super().close()

    def _say_nothing(self, record: Any) -> None:
        pass

    def _say_as_it_is(self, record: logging.LogRecord) -> None:
        text = self.format(record) if record.msg else ""
        if text and not text.startswith(NOT_FOR_PEOPLE) and SUBMITTED not in text:
            self.say(text)

    def _begin(self, record: Any) -> None:
        if self.is_dry_run:
            return
        self.view.begin(record.stats)
        rules = ", ".join(f"{rule} {count}" for rule, count in self.view.total.items())
        self.say(f"{self.view.counts[1]} jobs: {rules}")
        if self._stream.isatty():
            self._live.start()

    def _start(self, record: Any) -> None:
        log = Path(record.log[0]) if record.log else None
        name = "/".join(map(str, dict(record.wildcards).values()))
        self.view.start(record.jobid, RunningJob(record.rule_name, name, log))

    def _finish(self, record: Any) -> None:
        if job := self.view.finish(record.job_id):
            done, jobs = self.view.counts
            left = self.view.seconds_left()
            time_left = f", {duration(left)} left" if left is not None and done < jobs else ""
            self.say(f"{clock()} {job}: {done} of {jobs} jobs{time_left}")

    def _fail(self, record: Any) -> None:
        job = self.view.fail(record.jobid)
        name = str(job) if job else str(record.rule_name)
        self.say("\n".join([f"{clock()} Error in rule {name}", *_what_went_wrong(vars(record))]))

    def _bars(self) -> Table:
        table = Table.grid(padding=(0, 1))
        by_rule: dict[str, list[RunningJob]] = {}
        for job in list(self.view.running.values()):
            by_rule.setdefault(job.rule, []).append(job)
        for rule, jobs in list(by_rule.items())[:JOBS_SHOWN]:
            done, all_jobs = self.view.done[rule], self.view.total[rule]
            progress = next(filter(None, (job.progress() for job in jobs)), "")
            at_work = jobs[0].name if len(jobs) == 1 else f"{len(jobs)} at work"
            table.add_row(
                rule,
                ProgressBar(all_jobs, done, width=20),
                f"{done} of {all_jobs}",
                f"{at_work} {progress}".strip(),
            )
        done, all_jobs = self.view.counts
        left = self.view.seconds_left()
        time_left = f"{duration(left)} left" if left is not None else ""
        bar = ProgressBar(all_jobs or 1, done, width=20)
        table.add_row("all jobs", bar, f"{done} of {all_jobs}", time_left)
        return table


def _what_went_wrong(error: Mapping[str, Any]) -> list[str]:
    """What the executor says of a failed job, and the ends of its logs."""
    lines = [f"  {error['rule_msg']}"] if error.get("rule_msg") else []
    lines += [f"  {name}: {value}" for name, value in (error.get("aux") or {}).items()]
    for log in error.get("log") or []:
        with suppress(OSError):
            text = Path(log).read_text(encoding="utf-8", errors="replace").rstrip("\n")
            end = text.split("\n")[-LINES_OF_LOG:] if text else []
            lines += [f"  Its log, {log}:", *(f"  | {line}" for line in end)]
    return lines
