"""`snakemake --profile slurm` on a real cluster: the bytes of a local run, GPUs held as asked, and
what is left when anything dies.

Every test types what a user types, against the throw-away cluster of cluster.py. The whole run is
the small run of conftest.py: every stage, with tiny random models. A fault's run makes the images
of one topic, in two jobs; it ends with the bytes of an undisturbed local run, and computes at most
the batch in flight of a lost job twice.

Nothing here is timed. A fault comes when there is something to lose: each job of a fault's run
stops at its second prompt and waits there until the test lets it go on. A test waits for what it
needs to have happened, in the scheduler's records, the jobs' journals or what is printed; how long
that takes is the machine's business, up to PATIENCE, which only tells a hung test from a slow one.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
from cluster import Cluster, throw_away_cluster
from safetensors.numpy import load_file, save_file

from conftest import REPOSITORY, Project, lost_batches, make_small
from test_software import run_with_conda

PATIENCE = 1800.0
NOW = "starttime=now"
pytestmark = pytest.mark.timeout(3 * PATIENCE)

#: The random run's models run on the CPU; these rules are told to ask for GPUs all the same, as the
#: paper's run does.
GPU_RULES = (
    "generate_images",
    "rank_images",
    "rank_images_together",
    "write_instructions",
    "generate_responses",
    "rank_responses",
    "answer_benchmark",
    "answer_questions",
)
AS_ON_GPUS = ["--set-resources", *(f"{rule}:gpu=1" for rule in GPU_RULES), "train_dpo:gpu=2"]
QUICK = ["--slurm-init-seconds-before-status-checks", "3", "--max-status-checks-per-second", "1"]
IMAGES = [f"results/random/images/art/{shard}.jsonl" for shard in ("00", "01")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with throw_away_cluster() as running:
        yield running


@pytest.fixture(autouse=True)
def whole_cluster(cluster: Cluster) -> Iterator[None]:
    """Each test finds an idle cluster, whatever the one before did to it, and leaves no head
    process behind.
    """
    yield
    for process in SlurmRun.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    SlurmRun.started.clear()
    for daemon in {"slurmctld", "gpu1", "gpu2", "cpu1"} - set(cluster.daemons):
        cluster.start(daemon)
    cluster.run("scancel", "--full", "--user=root", check=False)
    deadline = time.monotonic() + PATIENCE
    while not cluster.is_idle():
        assert time.monotonic() < deadline, "the cluster is not idle after the test"
        cluster.run("scontrol", "update", "nodename=gpu1,gpu2,cpu1", "state=resume", check=False)
        time.sleep(0.5)


#: What a clone's generate_images does besides: it stops in a batch, before its second prompt, while
#: there is a file `hold`. Asked to stop, it goes on, and so to the end of the batch.
HOLDING = """
def held(draw):
    import signal
    import time

    def draw_when_let_go(*arguments):
        asked, handlers = [], {}
        for number in (signal.SIGTERM, signal.SIGUSR1):
            def remember(number, frame, before=signal.getsignal(number)):
                asked.append(number)
                before(number, frame)
            handlers[number] = signal.signal(number, remember)
        while drawn and Path("hold").exists() and not asked:
            time.sleep(0.05)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        drawn.append(True)
        return draw(*arguments)

    drawn = []
    return draw_when_let_go


ShardImages.draw = held(ShardImages.draw)


"""
START = "def main(snakemake: Any) -> None:"


def put_before_main(project: Project, code: str) -> None:
    """Puts code into a clone's generate_images, before its `main`."""
    script = project.folder / "scripts/generate_images.py"
    text = script.read_text(encoding="utf-8")
    assert text.count(START) == 1
    script.write_text(text.replace(START, code + START), encoding="utf-8")


def hold_jobs(project: Project) -> None:
    """Has each job that makes images stop at its second prompt, until `let_go`."""
    put_before_main(project, HOLDING)
    (project.folder / "hold").touch()


def let_go(project: Project) -> None:
    """Lets the jobs that are held, and those to come, run to their ends."""
    (project.folder / "hold").unlink()


def make_images(project: Project, topics: Sequence[str] = ("art",), prompts: int = 10) -> None:
    """Images of some topics, `prompts` in two jobs each."""

    def change(values: dict[str, Any]) -> None:
        values["topics"] = list(topics)
        values["shards_per_topic"] = 2
        values["images"] |= {"steps": 2, "guidance_scales": [5.0, 9.0]}

    project.edit_config(change)
    for topic in topics:
        lines = (
            (REPOSITORY / f"prompts/{topic}.txt")
            .read_text(encoding="utf-8")
            .splitlines(keepends=True)
        )
        (project.folder / f"demo/random_prompts/{topic}.txt").write_text(
            "".join(lines[:prompts]), encoding="utf-8"
        )


@pytest.fixture(scope="module")
def undisturbed(
    made_once: Callable[[str, Callable[[Project], object]], Project],
) -> dict[str, bytes]:
    """The published files of the faults' run, made once on this machine without Slurm."""

    def make(project: Project) -> None:
        make_images(project)
        project.snakemake("--", *IMAGES)

    return made_once("undisturbed", make).published()


def as_in_a_terminal() -> None:
    """Ctrl-C counts, also where the tests themselves run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class SlurmRun:
    """A clone whose user has typed `snakemake --profile slurm ...`; its output goes to a file as it
    comes.
    """

    started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(
        self,
        project: Project,
        cluster: Cluster,
        *arguments: str,
        targets: list[str] | None = None,
        user: str = "",
        mount: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`user`: who types it, if not the one who runs the tests; `mount`: `open_to_others`."""
        self.project, self.cluster = project, cluster
        snakemake = str(Path(sys.executable).with_name("snakemake"))
        self.arguments = [
            "--profile",
            "slurm",
            "--configfile",
            project.configfile,
            *AS_ON_GPUS,
            *QUICK,
            *arguments,
        ]
        self.targets = ["--", *(IMAGES if targets is None else targets)]
        become = (
            f'{mount} && exec setpriv --reuid={user} --regid=$(id -g {user}) --clear-groups "$@"'
        )
        as_user = ["unshare", "--mount", "sh", "-c", become, "sh"] if user else []
        self.log = project.folder / f"head-{len(list(project.folder.glob('head-*')))}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*as_user, snakemake, *self.arguments, *self.targets],
                cwd=project.folder,
                env={**self.environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=as_in_a_terminal,
            )
        self.started.append(self.process)

    def environment(self) -> dict[str, str]:
        """What a login shell on the cluster has."""
        return self.cluster.environment(self.project.environment())

    def output(self) -> str:
        """What the head process has printed so far."""
        return self.log.read_text(errors="replace")

    def fail(self, what: str) -> NoReturn:
        """Fails the test with all that tells why: the end of the head process's output, the queue,
        and Slurm's logs of failed jobs.
        """
        logs = sorted((self.project.folder / ".snakemake/slurm_logs").rglob("*.log"))
        told = [
            f"--- {path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in logs[:8]
        ]
        pytest.fail(
            "\n".join([what, self.output()[-5000:], self.cluster.run("squeue", check=False), *told])
        )

    def wait(self) -> int:
        """The exit code, once it has ended."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.fail(f"the head process did not end within {PATIENCE} s")

    def succeed(self) -> None:
        """Waits for it, and fails with its output if it did not end well."""
        if self.wait():
            self.fail(f"the head process ended with {self.process.returncode}")

    def jobs(self, states: str = "all") -> list[dict[str, str]]:
        """This clone's jobs as squeue shows them."""
        return [
            job for job in self.cluster.jobs(states) if job["folder"] == str(self.project.folder)
        ]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """What `condition` gives, as soon as that is true; the head process is to live on."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.fail(f"waited for {what}")
            time.sleep(0.2)
        return found

    def held_jobs(self, count: int = 2) -> list[dict[str, str]]:
        """The jobs that run and are held in a batch, with finished items of their shard, once there
        are so many.
        """

        def look() -> list[dict[str, str]] | None:
            held = []
            for job in self.jobs("RUNNING"):
                shard = re.search(r"generate_images_wildcards_(\w+?)_(\d\d)$", job["comment"])
                if shard and items_done(self.project, shard[1], shard[2]):
                    held.append(job)
            return held if len(held) == count else None

        found: list[dict[str, str]] = self.until(look, "running jobs with finished items")
        return found

    def start_pending_jobs_now(self, until: Callable[[], bool] = lambda: False) -> None:
        """Sees to the end of the run, or until something holds, that requeued jobs run: Slurm would
        let them wait for two minutes, and holds one that it tried to launch on a node that was
        dying.
        """
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline and not until():
            for job in self.jobs("PENDING"):
                for change in (("release", job["id"]), ("update", f"jobid={job['id']}", NOW)):
                    self.cluster.run("scontrol", *change, check=False)
            time.sleep(0.5)


def items_done(project: Project, topic: str, shard: str) -> int:
    """Lines of finished items in a shard's journal."""
    path = project.folder / f"results/random/work/generate_images/{topic}/{shard}.journal.jsonl"
    return path.read_bytes().count(b'"status"') if path.exists() else 0


@pytest.fixture
def clone(new_project: Callable[..., Project]) -> Project:
    """A clone set up for the faults' run."""
    project = new_project("slurm")
    make_images(project)
    return project


@pytest.fixture
def held_clone(clone: Project) -> Project:
    """... whose jobs stop at their second prompt."""
    hold_jobs(clone)
    return clone


def assert_undisturbed(project: Project, undisturbed: dict[str, bytes], lost_jobs: int) -> None:
    """The published files are the undisturbed run's, and at most one batch a lost job was lost with
    it.
    """
    found = project.published()
    assert sorted(found) == sorted(undisturbed)
    assert [name for name in undisturbed if found[name] != undisturbed[name]] == []
    assert lost_batches(project).total() <= lost_jobs, "more than the batch in flight was lost"


def job_counts(output: str) -> dict[str, int]:
    """Jobs by rule, from Snakemake's table of them."""
    table = output.partition("Job stats:")[2].partition("\ntotal")[0]
    return {
        rule: int(count)
        for rule, count in re.findall(r"^(\w+) +(\d+)\b", table, flags=re.MULTILINE)
    }


def submitted(run: SlurmRun) -> Counter[str]:
    """Jobs by rule that a head process has submitted; one that was tried again counts once."""
    (log,) = (run.project.folder / ".snakemake/log").glob("*.log")
    logs = set(
        re.findall(
            r"has been submitted with SLURM jobid \d+ \(log:"
            r" .*?/rule_(\w+)((?:/[^/\n]*)*)/\d+\.log\)",
            log.read_text(),
        )
    )
    return Counter(rule for rule, _ in logs)


def most_at_once(jobs: Sequence[dict[str, str]]) -> int:
    """How many GPUs jobs held at the same time, by the times in the scheduler's records."""
    held = [
        (job["start"], job["end"], int(job["gpus"].rpartition(":")[2]))
        for job in jobs
        if "gpu" in job["gpus"]
    ]
    return max(
        sum(gpus for start, end, gpus in held if start <= moment < end) for moment, *_ in held
    )


def test_the_whole_run_through_slurm_gives_the_bytes_of_the_local_run_and_gpu_jobs_hold_gpus(
    cluster, new_project, finished
):
    project = new_project("whole")
    make_small(project)
    planned = SlurmRun(project, cluster, "--dry-run", targets=[])
    planned.succeed()
    run = SlurmRun(project, cluster, "--jobs", "6", "--slurm-keep-successful-logs", targets=[])
    run.succeed()
    found, expected = project.published(), finished.published()
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    counts = job_counts(planned.output())
    # Snakemake's table and its files of logs name rules, ours their scripts.
    sent = Counter(rule.removesuffix("_together") for rule in submitted(run).elements())
    assert sent == {rule: count for rule, count in counts.items() if rule != "all"}
    assert set(counts) == rules_of_the_random_run(cluster, new_project)
    jobs = run.jobs()
    assert 2 <= most_at_once(jobs) <= 4
    rules: dict[str, set[str]] = {}
    for job in jobs:
        rules.setdefault(job["comment"].removeprefix("rule_").split("_wildcards_")[0], set()).add(
            job["gpus"]
        )
    assert {rule for rule, gpus in rules.items() if any("gpu" in each for each in gpus)} == {
        *GPU_RULES,
        "train_dpo",
    } - {"rank_images"}  # one job does what its jobs would
    assert {gpus.rpartition(":")[2] for gpus in rules["train_dpo"]} == {"2"}
    assert all(job["node"].startswith("gpu") == ("gpu" in job["gpus"]) for job in jobs)
    # A user finds topic, shard and model in squeue, and a job's log by its rule's name.
    comments = {job["comment"] for job in jobs}
    assert any(
        re.fullmatch(r"rule_generate_responses_wildcards_llava-v1\.6-mistral_\w+_00", comment)
        for comment in comments
    )
    assert list((project.folder / ".snakemake/slurm_logs/rule_train_dpo").rglob("*.log"))


def rules_of_the_random_run(cluster: Cluster, new_project: Callable[..., Project]) -> set[str]:
    """The rules that demo/random.yaml runs: none of them is left out of the small run."""
    planned = SlurmRun(new_project("random"), cluster, "--dry-run", targets=[])
    planned.succeed()
    return set(job_counts(planned.output()))


def test_a_gpu_job_sees_its_own_gpu_and_no_other(cluster, new_project):
    clone = new_project("gpus")
    make_images(clone, topics=("art", "nature"), prompts=4)
    # All four jobs run at once, each on a GPU: none ends before all have begun.
    look = """
import os, time
Path("seen-" + os.environ["SLURM_JOB_ID"]).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
while len(list(Path().glob("seen-*"))) < 4:
    time.sleep(0.1)


"""
    put_before_main(clone, look)
    run = SlurmRun(
        clone, cluster, targets=[*IMAGES, *(path.replace("/art/", "/nature/") for path in IMAGES)]
    )
    run.succeed()
    jobs = {job["id"]: job for job in run.jobs()}
    seen = {
        path.name.removeprefix("seen-"): path.read_text() for path in clone.folder.glob("seen-*")
    }
    assert set(seen) == set(jobs)
    assert sorted((jobs[number]["node"], gpu) for number, gpu in seen.items()) == [
        ("gpu1", "0"),
        ("gpu1", "1"),
        ("gpu2", "0"),
        ("gpu2", "1"),
    ]


def test_a_cancelled_job_is_tried_again_with_more_memory_and_time_and_goes_on_from_its_journal(
    cluster, held_clone, undisturbed
):
    run = SlurmRun(held_clone, cluster)
    job = run.held_jobs()[0]
    cluster.run("scancel", job["id"])
    run.until(
        lambda: any(
            other["id"] == job["id"] and other["state"] == "CANCELLED" for other in run.jobs()
        ),
        "the job to be cancelled",
    )
    let_go(held_clone)
    run.succeed()
    assert_undisturbed(held_clone, undisturbed, lost_jobs=1)
    again = next(
        other
        for other in run.jobs()
        if other["comment"] == job["comment"] and other["id"] != job["id"]
    )
    assert (job["memory"], again["memory"]) == ("24000M", "36000M")
    assert (job["limit"], again["limit"]) == ("4:00:00", "6:00:00")


def test_a_job_over_its_memory_is_tried_again_with_more(cluster, held_clone, undisturbed):
    run = SlurmRun(
        held_clone,
        cluster,
        "--set-resources",
        *AS_ON_GPUS[1:],
        "generate_images:mem_mb=300 * attempt ** 4",
    )
    # Held, so that Slurm has the time to look at what it takes.
    run.until(lambda: len(run.jobs()) == 4, "both jobs to be tried again")
    let_go(held_clone)
    run.succeed()
    assert "over its memory" in run.output()
    assert_undisturbed(held_clone, undisturbed, lost_jobs=2)


def test_a_job_near_its_time_limit_finishes_its_batch_and_the_next_attempt_goes_on(
    cluster, held_clone, undisturbed
):
    needs = ["gpu=1", "slurm_extra='--signal=TERM@60'"]
    run = SlurmRun(
        held_clone, cluster, "--set-resources", *(f"generate_images:{need}" for need in needs)
    )
    # The limit of the jobs, of hours, comes near once there is a batch to finish.
    for job in (held := run.held_jobs()):
        minutes = (datetime.now() - datetime.fromisoformat(job["start"])).seconds // 60 + 2
        cluster.run("scontrol", "update", f"jobid={job['id']}", f"timelimit={minutes}")
    ids = {job["id"] for job in held}
    run.until(
        lambda: all(job["state"] == "FAILED" for job in run.jobs() if job["id"] in ids),
        "the warned jobs to end, with the exit code that says so",
    )
    let_go(held_clone)
    run.succeed()
    assert len(run.jobs()) == 2 * len(held), "each job was tried once more"
    assert_undisturbed(held_clone, undisturbed, lost_jobs=0)


def test_a_node_that_dies_and_comes_back_costs_the_batches_in_flight(
    cluster, held_clone, undisturbed
):
    run = SlurmRun(held_clone, cluster)
    node = run.held_jobs()[0]["node"]
    lost = {job["id"] for job in run.jobs("RUNNING") if job["node"] == node}
    cluster.kill(node)
    run.until(lambda: node in cluster.nodes_in("down"), f"{node} to be down")
    run.until(
        lambda: lost == {job["id"] for job in run.jobs() if int(job["restarts"])},
        "its jobs to be requeued",
    )
    let_go(held_clone)
    # On another node: a job that Slurm allots to one which is just registering can be lost there,
    # "running" for ever. Jobs that wait for their two minutes do not meet that.
    run.start_pending_jobs_now(until=lambda: lost <= {job["id"] for job in run.jobs("RUNNING")})
    cluster.start(node)
    run.until(lambda: node not in cluster.nodes_in("down"), f"{node} to come back")
    run.start_pending_jobs_now()
    run.succeed()
    assert_undisturbed(held_clone, undisturbed, lost_jobs=len(lost))


def test_preempted_jobs_are_requeued_and_go_on(cluster, held_clone, undisturbed):
    run = SlurmRun(held_clone, cluster)
    before = run.held_jobs()
    urgent = [
        cluster.run(
            "sbatch",
            "--parsable",
            "-p",
            "urgent",
            "--gpus=2",
            "--nodes=1",
            "--mem=100",
            "--output=/dev/null",
            "--wrap=true",
        ).strip()
        for _ in range(2)
    ]
    run.until(
        lambda: (
            {job["id"] for job in run.jobs() if int(job["restarts"])}
            == {job["id"] for job in before}
        ),
        "the jobs to be preempted and requeued",
    )
    run.until(
        lambda: all(job["state"] == "COMPLETED" for job in cluster.jobs() if job["id"] in urgent),
        "the urgent jobs to end",
    )
    let_go(held_clone)
    run.start_pending_jobs_now()
    run.succeed()
    assert_undisturbed(held_clone, undisturbed, lost_jobs=len(before))


def record_failing_questions(project: Project, cluster: Cluster) -> tuple[Path, dict[str, str]]:
    """A squeue that notes each question that has no answer, and has none while there is a file
    `broken`: its folder, and the variables with which a run finds it.
    """
    folder = project.folder / "failing"
    folder.mkdir()
    squeue = folder / "squeue"
    squeue.write_text(
        f"#!/bin/sh\nif [ -e {folder}/broken ]; then echo 'slurm_load_jobs error' >&2; false\n"
        f'else {shutil.which("squeue")} "$@"; fi || {{ echo "$*" >> {folder}/asked; exit 1; }}\n'
    )
    squeue.chmod(0o755)
    environment = cluster.environment(project.environment())
    return folder, {"PATH": f"{folder}:{environment['PATH']}"}


def failing_questions(folder: Path) -> int:
    """How often the executor plugin asked in vain; the watch asks for comments (%k)."""
    asked = folder / "asked"
    return sum("%k" not in line for line in asked.read_text().splitlines()) if asked.exists() else 0


def test_a_controller_that_restarts_in_mid_run_loses_nothing(cluster, held_clone, undisturbed):
    folder, environment = record_failing_questions(held_clone, cluster)
    run = SlurmRun(held_clone, cluster, environment=environment)
    run.held_jobs()
    cluster.kill("slurmctld")
    run.until(lambda: failing_questions(folder) >= 2, "the plugin's questions without an answer")
    cluster.start("slurmctld")
    run.until(lambda: run.jobs("RUNNING"), "the controller to answer")
    let_go(held_clone)
    run.succeed()
    assert_undisturbed(held_clone, undisturbed, lost_jobs=0)


def test_what_is_edited_while_jobs_wait_in_the_queue_is_not_in_their_results(
    clone: Project, cluster: Cluster, undisturbed: dict[str, bytes]
) -> None:
    for _ in range(2):  # others have all GPUs
        cluster.run(
            "sbatch", "--gpus=2", "--partition=gpu", "--output=/dev/null", "--wrap=sleep 9999"
        )
    run = SlurmRun(clone, cluster)
    run.until(lambda: len(run.jobs("PENDING")) == 2, "both jobs to wait in the queue")
    prompts = clone.folder / "demo/random_prompts/art.txt"
    before = {path: path.read_text() for path in (prompts, clone.folder / clone.configfile)}
    clone.edit_config(lambda values: values["images"].update(guidance_scales=[5.0, 7.0]))
    prompts.write_text("One more cat\n" + before[prompts])
    cluster.run("scancel", "--name=wrap")
    run.succeed()
    assert_undisturbed(clone, undisturbed, lost_jobs=0)
    plan = clone.snakemake("-n", "--", *IMAGES).stdout
    assert re.search(r"^generate_images +2 ", plan, flags=re.MULTILINE), plan[-3000:]
    for path, text in before.items():
        path.write_text(text)
    assert "Nothing to be done" in clone.snakemake("-n", "--", *IMAGES).stdout


def test_after_a_killed_head_process_make_resume_cancels_its_own_jobs_only_and_goes_on(
    cluster, held_clone, new_project, undisturbed
):
    other = new_project("other")
    make_images(other)
    hold_jobs(other)
    # One after the other, so that one is still waiting when the other ends.
    in_turn = [
        "--set-resources",
        "generate_images:gpu=2",
        "generate_images:slurm_extra='--nodelist=gpu1'",
    ]
    elsewhere = [
        "--set-resources",
        "generate_images:gpu=1",
        "generate_images:slurm_extra='--nodelist=gpu2'",
    ]
    run, theirs = SlurmRun(held_clone, cluster, *in_turn), SlurmRun(other, cluster, *elsewhere)
    run.held_jobs(1)
    theirs.held_jobs()
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()
    orphans = run.jobs("RUNNING,PENDING")
    assert len(orphans) == 2
    (held_clone.folder / ".venv").symlink_to(
        Path(sys.executable).parent.parent, target_is_directory=True
    )
    with open(run.log, "wb") as log:
        resumed = subprocess.Popen(
            ["make", "resume", f"RUN={shlex.join([*run.arguments, *run.targets])}"],
            cwd=held_clone.folder,
            env=run.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    run.process = resumed
    run.started.append(resumed)
    ids = {job["id"] for job in orphans}
    run.until(
        lambda: not ids & {job["id"] for job in run.jobs("RUNNING,PENDING,COMPLETING")},
        "the orphans to be cancelled",
    )
    let_go(held_clone)
    run.succeed()
    assert "of this run left in the queue by a head process that died" in run.output()
    let_go(other)
    theirs.succeed()
    assert "CANCELLED" not in {job["state"] for job in theirs.jobs()}
    assert_undisturbed(held_clone, undisturbed, lost_jobs=len(orphans))
    assert_undisturbed(other, undisturbed, lost_jobs=0)


def test_a_head_environment_that_cannot_run_the_jobs_is_refused_and_nothing_is_in_the_queue(
    cluster, project, head_environment
):
    make_images(project)
    path = f"{head_environment}{os.pathsep}{os.environ['PATH']}"
    words = ["--profile", "slurm", "--configfile", project.configfile, *AS_ON_GPUS, *QUICK]
    done = subprocess.run(
        [head_environment / "snakemake", *words, "--", *IMAGES],
        cwd=project.folder,
        env=cluster.environment({**os.environ, "PATH": path}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 1
    assert "envs/diffusion.yaml (generate_images): " in done.stdout
    assert "--sdm conda" in done.stdout
    assert not [job for job in cluster.jobs("all") if job["folder"] == str(project.folder)]


def test_ctrl_c_cancels_the_jobs_and_the_same_command_goes_on(cluster, held_clone, undisturbed):
    run = SlurmRun(held_clone, cluster)
    held = run.held_jobs()
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait() != 0
    wait_for_an_empty_queue(run)
    assert {job["state"] for job in run.jobs()} == {"CANCELLED"}
    let_go(held_clone)
    SlurmRun(held_clone, cluster).succeed()
    assert_undisturbed(held_clone, undisturbed, lost_jobs=len(held))


def wait_for_an_empty_queue(run: SlurmRun) -> None:
    """Waits until no job of a run whose head process has ended is left in the queue."""
    deadline = time.monotonic() + PATIENCE
    while run.jobs("RUNNING,PENDING,COMPLETING"):
        assert time.monotonic() < deadline, "jobs were left in the queue"
        time.sleep(0.5)


def test_a_topic_whose_every_job_fails_ends_with_its_reason_and_the_other_topic_goes_on(
    cluster, new_project
):
    project = new_project("topics")
    make_images(project, topics=("art", "nature"), prompts=4)
    shards = [f"{topic}/{shard}" for topic in ("art", "nature") for shard in ("00", "01")]
    project.snakemake("--", *(f"results/random/images/{shard}.jsonl" for shard in shards))
    for path in (project.folder / "results/random/images/art").rglob("*.png"):
        path.write_bytes(b"not an image any more")
    rankings = [f"results/random/image_ranking/clip/{shard}.jsonl" for shard in shards]
    run = SlurmRun(project, cluster, "--retries", "1", targets=rankings)
    assert run.wait() == 1
    assert "has other contents than when it was made" in run.output()
    assert {path: (project.folder / path).exists() for path in rankings} == {
        path: "nature" in path for path in rankings
    }
    assert "Traceback" not in run.output()


def test_a_policy_model_that_cannot_load_ends_with_its_reason_and_the_others_answer(
    cluster, new_project
):
    project = new_project("policy")

    def change(values: dict[str, Any]) -> None:
        values["topics"] = ["art"]
        values["responses"]["policy_models"]["llava-v1.6-mistral"]["model"] = "broken"

    project.edit_config(change)
    shutil.copytree(REPOSITORY / "demo/models/llava-v1.6-mistral", project.folder / "broken")
    # What can be seen before the run is whole; only who loads it misses a tensor.
    file = project.folder / "broken/model.safetensors"
    save_file(dict(list(load_file(file).items())[1:]), file, {"format": "pt"})
    project.snakemake("--", "results/random/instructions/art/00.jsonl")
    policies = ("llava-v1.6-mistral", "llava-v1.6-vicuna-7b")
    answers = [f"results/random/responses/{policy}/art/00.jsonl" for policy in policies]
    run = SlurmRun(project, cluster, "--retries", "1", targets=answers)
    assert run.wait() == 1
    assert "broken" in run.output()
    assert [(project.folder / path).exists() for path in answers] == [False, True]
    assert "Traceback" not in run.output()


#: What goes wrong with the results' file system on one node: how that node comes to see it so, and
#: what the user is told.
BAD_MOUNTS = {
    "read-only": (
        "mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}",
        "Read-only file system",
    ),
    "full": (
        (
            "cd {folder} && for each in random/images random/work/generate_images;"
            " do mkdir -p $each && mount -t tmpfs -o size=60k tmpfs $each || exit 1; done"
        ),
        "found no space left on the results' file system",
    ),
}


@contextmanager
def mounted_on(cluster: Cluster, node: str, mount: str) -> Iterator[None]:
    """That node sees the file systems as the shell command `mount` leaves them; the others see them
    as they are.
    """
    cluster.kill(node, signal.SIGTERM)
    cluster.daemons[node] = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec slurmd -D -N {node}"],
        env=cluster.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        cluster.kill(node, signal.SIGTERM)
        cluster.start(node)


@pytest.mark.parametrize("fault", BAD_MOUNTS)
def test_a_read_only_or_full_results_folder_on_one_node_is_told_and_nothing_is_lost(
    fault, cluster, clone, undisturbed
):
    mount, expected = BAD_MOUNTS[fault]
    results = clone.folder / "results"
    results.mkdir()
    with mounted_on(cluster, "gpu2", mount.format(folder=shlex.quote(str(results)))):
        run = SlurmRun(
            clone, cluster, "--retries", "0", "--default-resources", "slurm_extra='--nodelist=gpu2'"
        )
        assert run.wait() == 1
        assert expected in run.output()
        assert "Traceback" not in run.output()
    SlurmRun(clone, cluster).succeed()
    assert_undisturbed(clone, undisturbed, lost_jobs=0)


def test_a_head_process_that_lost_sight_of_its_jobs_says_so_and_ends(
    cluster, held_clone, undisturbed
):
    folder, environment = record_failing_questions(held_clone, cluster)
    run = SlurmRun(
        held_clone,
        cluster,
        "--slurm-status-attempts",
        "2",
        "--config",
        "scheduler_patience=0.3",
        environment=environment,
    )
    run.held_jobs()
    (folder / "broken").touch()
    run.until(
        lambda: "Slurm has not answered for" in run.output(),
        "the warning that Slurm does not answer",
    )
    # Two failing questions of the plugin itself, and it has lost sight.
    run.until(lambda: failing_questions(folder) >= 2, "the plugin's own questions")
    (folder / "broken").unlink()
    let_go(held_clone)
    assert run.wait() != 0
    assert "it has lost sight of it" in run.output()
    SlurmRun(held_clone, cluster).succeed()
    assert_undisturbed(held_clone, undisturbed, lost_jobs=0)


def test_two_runs_in_two_clones_with_spaces_in_their_paths_do_not_touch_each_other(
    cluster, new_project, tmp_path, undisturbed
):
    clones = []
    for name in ("a clone", "another clone"):
        made = new_project("plain")
        shutil.copytree(made.folder, tmp_path / name, symlinks=True)
        clones.append(Project(tmp_path / name))
        make_images(clones[-1])
        hold_jobs(clones[-1])
    runs = [SlurmRun(project, cluster) for project in clones]
    for run in runs:
        run.held_jobs()
    for run in runs:
        let_go(run.project)
        run.succeed()
        assert_undisturbed(run.project, undisturbed, lost_jobs=0)


def open_to_others(stage: Path) -> str:
    """A shell command for a mount namespace of its own: other users reach what the tests run from,
    also below a folder such as /root.
    """
    needed = {Path(path).resolve() for path in (sys.base_prefix, sys.prefix, REPOSITORY / "demo")}
    closed = {
        path: [above for above in reversed(path.parents) if not above.stat().st_mode & 0o001]
        for path in needed
    }
    behind = {
        path: shlex.quote(str(stage / str(number)))
        for number, path in enumerate(needed)
        if closed[path]
    }
    commands = [
        f"mkdir -p {kept} && mount --bind {shlex.quote(str(path))} {kept}"
        for path, kept in behind.items()
    ]
    commands += [
        f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(folder))}"
        for folder in {closed[path][0] for path in behind}
    ]
    commands += [
        f"mkdir -p {shlex.quote(str(path))} && mount --bind {kept} {shlex.quote(str(path))}"
        for path, kept in behind.items()
    ]
    return " && ".join(commands) or "true"


def test_two_users_in_two_clones_do_not_touch_each_other(
    cluster, held_clone, new_project, undisturbed
):
    user = "nobody"
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        mount = open_to_others(Path(home) / "stage")
        theirs = Project(Path(home) / "clone")
        shutil.copytree(new_project("theirs").folder, theirs.folder, symlinks=True)
        make_images(theirs)
        hold_jobs(theirs)
        subprocess.run(["chown", "-R", user, home], check=True)
        with mounted_on(cluster, "gpu2", mount):
            ours = SlurmRun(
                held_clone, cluster, "--default-resources", "slurm_extra='--nodelist=gpu1'"
            )
            on_gpu2 = ["--default-resources", "slurm_extra='--nodelist=gpu2'"]
            environment = {"HOME": str(home)}
            run = SlurmRun(
                theirs, cluster, *on_gpu2, user=user, mount=mount, environment=environment
            )
            run.held_jobs()
            ours.held_jobs()
            os.killpg(ours.process.pid, signal.SIGINT)
            assert ours.wait() != 0
            wait_for_an_empty_queue(ours)
            let_go(theirs)
            run.succeed()
        assert {job["user"] for job in run.jobs()} == {user}
        assert "CANCELLED" not in {job["state"] for job in run.jobs()}
        assert {path.owner() for path in theirs.folder.rglob("results/random/images/**/*.png")} == {
            user
        }
        assert_undisturbed(theirs, undisturbed, lost_jobs=0)
    let_go(held_clone)
    SlurmRun(held_clone, cluster).succeed()
    assert_undisturbed(held_clone, undisturbed, lost_jobs=2)


@pytest.mark.skipif(
    shutil.which("conda") is None,
    reason="no conda on the PATH; what --sdm conda installs is tested in test_locks.py",
)
def test_a_job_on_the_cluster_runs_in_its_conda_environment_which_holds_the_lock(
    cluster, finished_copy, monkeypatch
):
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    run_with_conda(finished_copy, *QUICK, profile="slurm")


def partitions(text: str) -> Callable[[Project], list[str]]:
    """Gives the clone another partition file."""

    def write(project: Project) -> list[str]:
        (project.folder / "profiles/slurm/partitions.yaml").write_text(text, encoding="utf-8")
        return []

    return write


def no_slurm(project: Project) -> list[str]:
    """Leaves only the shell's own programs on PATH: see the test."""
    return ["no slurm"]


def log_folder_is_a_file(project: Project) -> list[str]:
    (project.folder / ".snakemake").mkdir()
    (project.folder / ".snakemake/slurm_logs").write_text("in the way")
    return []


ONLY_CPU = "partitions:\n  cpu: {max_mem_mb: 200000, max_runtime: 1d}\n"
WITH_MODELS = (
    "partitions:\n  gpu: {max_gpu: 2, available_gpu_models: [a100]}\n  cpu: {max_runtime: 1d}\n"
)
UNLIMITED = "partitions:\n  gpu: {max_gpu: 8}\n  cpu: {max_mem_mb: 1}\n"
BAD_CLUSTERS: dict[str, tuple[Callable[[Project], list[str]], list[str]]] = {
    "partition file missing": (
        lambda project: ["--slurm-partition-config", "nowhere.yaml"],
        ["nowhere.yaml", "not found"],
    ),
    "partition file with an unknown key": (
        partitions("partitions:\n  gpu: {max_gpus: 4}\n"),
        ["profiles/slurm/partitions.yaml", "max_gpus", "max_gpu"],
    ),
    "no partition that fits": (
        partitions(ONLY_CPU),
        ["rule generate_images", "no partition of", "--gpus=1", "cpu"],
    ),
    "GPU model that no partition lists": (
        lambda project: [
            *partitions(WITH_MODELS)(project),
            "--set-resources",
            "generate_images:gpu=1",
            "generate_images:gpu_model=h100",
        ],
        ["rule generate_images", "no partition of", "h100"],
    ),
    "GPU model that no node has": (
        lambda project: [
            *partitions(UNLIMITED)(project),
            "--set-resources",
            "generate_images:gpu=1",
            "generate_images:gpu_model=h100",
        ],
        ["rule generate_images", "Requested node configuration is not available", "h100"],
    ),
    "more memory than any node has": (
        lambda project: [
            *partitions(UNLIMITED)(project),
            "--set-resources",
            "generate_images:gpu=1",
            "generate_images:mem_mb=900000",
        ],
        ["rule generate_images", "Requested node configuration", "--mem=900000"],
    ),
    "longer than the partition allows": (
        lambda project: [
            *partitions(UNLIMITED)(project),
            "--set-resources",
            "generate_images:gpu=1",
            "generate_images:runtime=99d",
        ],
        ["rule generate_images", "time limit", "--partition=gpu"],
    ),
    "account that the partition does not take": (
        lambda project: [
            "--set-resources",
            *(
                f"generate_images:{need}"
                for need in ("gpu=0", "slurm_partition=members", "slurm_account=others")
            ),
        ],
        ["rule generate_images", "account", "--account=others"],
    ),
    "status asked of accounting that is not kept": (
        lambda project: ["--slurm-status-command", "sacct"],
        ["keeps no accounting", "slurm-status-command: squeue"],
    ),
    "no Slurm on this machine": (no_slurm, ["there is no Slurm on this machine", "profiles/local"]),
    "log folder that cannot be written": (log_folder_is_a_file, ["slurm_logs", "logs"]),
}


@pytest.mark.parametrize("mistake", BAD_CLUSTERS)
def test_a_mistake_about_the_cluster_is_one_message_and_nothing_is_submitted(
    mistake, cluster, clone, tmp_path
):
    prepare, expected = BAD_CLUSTERS[mistake]
    arguments = prepare(clone)
    environment: dict[str, str] = {}
    if arguments == ["no slurm"]:
        arguments = []
        for program in ("bash", "sh", "env", "which", "git", "uname"):
            (tmp_path / program).symlink_to(str(shutil.which(program)))
        environment = {"PATH": f"{Path(sys.executable).parent}:{tmp_path}"}
    run = SlurmRun(clone, cluster, *arguments, environment=environment)
    assert run.wait() != 0
    output = run.output()
    assert [text for text in expected if text not in output] == [], output[-4000:]
    assert "Traceback" not in output
    assert run.jobs() == []
    assert not (clone.folder / "results/random/images").exists()


MODULE = """
configfile: "demo/random.yaml"

module pds:
    snakefile: "{snakefile}"
    config: config
    prefix: "sub"

use rule * from pds as pds_*
"""


def test_the_jobs_of_a_module_in_a_users_folder_know_their_run(cluster, clone, tmp_path):
    user = Project(tmp_path / "größe β")
    user.folder.mkdir()
    for name in ("demo", "slurm", "profiles"):
        (user.folder / name).symlink_to(clone.folder / name)
    snakefile = MODULE.format(snakefile=clone.folder / "Snakefile")
    (user.folder / "Snakefile").write_text(snakefile, encoding="utf-8")
    # Of published/ alone, where no judge is configured.
    table = "sub/results/random/tables/image_judge_table.csv"
    run = SlurmRun(user, cluster, targets=[table])
    run.succeed()
    assert submitted(run) == {"pds_image_judge_table": 1}
    assert (user.folder / table).is_file()
    assert not (user.folder / "results").exists()
