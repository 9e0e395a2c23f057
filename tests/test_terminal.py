"""What a person sees of a run: a line for each job that ends, with counts and the time left; what
goes wrong, with the end of its log; and on a terminal, bars.
"""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib.head.job_table import JobToRun, job_table
from lib.head.run_view import RunningJob, RunView
from lib.jobs.script import OUTPUT_TO_LOG

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SNAKEFILE = """
import sys
sys.path.insert(0, {scripts!r})
from lib.head import job_table, terminal
from lib.patches import snakemake_graph, snakemake_log

TERMINALS = snakemake_log.show_with(terminal.Terminal)

def tell():
    jobs = [job_table.JobToRun(*job) for job in snakemake_graph.jobs_to_run(workflow)]
    for line in job_table.job_table(jobs):
        logger.info(line)

snakemake_log.after_dry_run("out", tell)

rule all:
    input: expand("out/{{topic}}/00.txt", topic=["art", "nature"])

rule draw:
    output: "out/{{topic}}/00.txt"
    log: "logs/draw/{{topic}}/00.log"
    shell:
        "echo '12:00:00 draw: 3 of 9 items, 4 s left' > {{log}}; seq 100 >> {{log}}; sleep 1;"
        " test ! -e fail-{{wildcards.topic}}; touch {{output}}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(scripts=str(SCRIPTS)))
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", *arguments]


def printed(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    ).stdout


def test_each_job_that_ends_is_a_line_with_counts_and_snakemakes_own_words_are_in_its_log(
    folder: Path,
) -> None:
    lines = printed(folder).strip().split("\n")
    assert "2 jobs: draw 2" in lines
    jobs = [line for line in lines if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert re.fullmatch(r"\S+ draw (art|nature): 1 of 2 jobs, \d+ s left", jobs[0])
    assert re.fullmatch(r"\S+ draw (art|nature): 2 of 2 jobs", jobs[1])
    assert len(lines) <= 7, lines
    (log,) = (folder / ".snakemake/log").glob("*.log")
    assert {"localrule draw:", "2 of 3 steps (67%) done"} <= set(log.read_text().split("\n"))


def test_a_job_that_fails_is_told_with_its_name_and_the_end_of_its_log(folder: Path) -> None:
    (folder / "fail-nature").touch()
    output = printed(folder)
    assert re.search(r"\S+ Error in rule draw nature\n", output)
    assert "Its log, logs/draw/nature/00.log:" in output
    shown = re.findall(r"^  \| (\d+)$", output, flags=re.MULTILINE)
    assert shown == [str(number) for number in range(61, 101)]
    assert "draw art: " in output
    assert "RuleException" not in output


def test_a_dry_run_says_by_rule_how_many_jobs_there_are_and_why(folder: Path) -> None:
    lines = printed(folder, "-n").split("\n")
    assert "draw      2  not made yet" in lines
    assert "total     3" in lines
    assert not [line for line in lines if "Reason" in line or "wildcards" in line]


def test_on_a_terminal_a_bar_shows_each_stage_at_work_and_what_its_job_says(folder: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command(), cwd=folder, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert re.search(r"draw +━+ 0 of 2 (art|nature) 3 of 9 items, 4 s left", text)
    assert re.search(r"all jobs ━.* 1 of 2 \d+ s left", text)
    assert re.search(r"draw (art|nature): 2 of 2 jobs", text)


def test_with_verbose_all_is_as_snakemake_says_it(folder: Path) -> None:
    assert "rule draw:" in printed(folder, "--verbose")


# --------------------------------------------------------------------------------------------------


def test_the_time_left_goes_by_what_the_jobs_of_a_rule_took_and_how_many_are_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    view = RunView()
    view.begin({"draw": 4, "rank": 2, "all": 1, "total": 7})
    assert (view.counts, view.seconds_left()) == ((0, 6), None)
    for number in (0, 1):
        view.start(number, RunningJob("draw", "art", began=0.0))
    now[0] = 10.0
    view.finish(0)
    view.finish(1)
    # Two at once take 10 s each: 2 of draw are left, and 2 of rank, which nothing is known of yet.
    assert view.seconds_left() == pytest.approx(20)
    view.expect({"draw": 0, "rank": 0})  # as a rates file may have it
    assert view.seconds_left() == pytest.approx(10)
    # By the plan, one of rank takes a fifth of one of draw.
    view.expect({"draw": 1000, "rank": 200})
    assert view.seconds_left() == pytest.approx((2 * 10 + 2 * 2) / 2)
    view.start(2, RunningJob("rank", "art", began=10.0))
    view.start(3, RunningJob("draw", "art", began=10.0))
    now[0] = 13.0
    view.finish(2)
    # Of draw, 3 s are done of one of the two that are left.
    assert view.seconds_left() == pytest.approx((2 * 10 + 3 - 3) / (26 / 13))
    now[0] = 40.0
    assert view.seconds_left() == pytest.approx((10 + 3) / (53 / 40))


def test_a_job_that_failed_or_is_no_job_of_a_rule_counts_for_nothing() -> None:
    view = RunView()
    view.begin({"draw": 1, "all": 1, "total": 2})
    view.start(0, RunningJob("all", ""))
    assert view.finish(0) is None
    view.start(1, RunningJob("draw", "art"))
    assert str(view.fail(1)) == "draw art"
    assert view.counts == (0, 1)


@pytest.mark.parametrize(
    ("log", "progress"),
    [
        (
            "12:00:00 draw art/00: 3 of 9 items, 4 s left\n12:00:01 a note\n",
            "3 of 9 items, 4 s left",
        ),
        ("x" * 9000 + "\n12:00:00 draw: 8 of 9 items, 1 s left\n", "8 of 9 items, 1 s left"),
        ("12:00:00 loading\n", ""),
    ],
)
def test_a_job_at_work_says_what_its_log_says_last(tmp_path: Path, log: str, progress: str) -> None:
    path = tmp_path / "draw.log"
    assert RunningJob("draw", "art", path).progress() == ""
    path.write_text(log)
    assert RunningJob("draw", "art", path).progress() == progress


def test_a_rule_s_reasons_are_counted_where_there_are_several() -> None:
    whys = ("settings or prompts changed", "jobs before it run", "jobs before it run")
    jobs = [JobToRun("rank_images", {}, True, why) for why in whys]
    (line,) = [line for line in job_table(jobs) if line.startswith("rank_images")]
    assert line == "rank_images     3  jobs before it run (2); settings or prompts changed (1)"


PROGRAM = """
import subprocess, sys
from types import SimpleNamespace
sys.path.insert(0, {scripts!r})
from lib.errors import UserError
from lib.jobs.script import run_script

snakemake = SimpleNamespace(rule="draw", log=["logs/draw.log"])

def main(snakemake):
    print("a library")
    subprocess.run(["echo", "a process"], check=True)
    raise UserError("no model. Fetch it")

run_script(main)
"""


@pytest.mark.parametrize("to_log", [True, False])
def test_what_a_job_prints_is_in_its_log_and_not_between_the_lines_of_a_run_that_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_log: bool
) -> None:
    if to_log:
        monkeypatch.setenv(OUTPUT_TO_LOG, "1")
    program = PROGRAM.format(scripts=str(SCRIPTS))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    log = (tmp_path / "logs/draw.log").read_text()
    assert "Error in draw: no model. Fetch it" in log
    printed = ("a library", "a process")
    if to_log:
        assert done.stdout + done.stderr == ""
        assert all(text in log for text in printed)
    else:
        assert all(text in done.stdout for text in printed)
        assert "no model. Fetch it" in done.stderr
