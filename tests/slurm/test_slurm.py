"""`snakemake --profile slurm` on a real cluster: the bytes of a local run, GPUs held as asked, and
what is left when anything dies.

Every test types what a user types, against the throw-away cluster of cluster.py. The whole run is
the random run (demo/random.yaml): every stage, with tiny random models. A fault's run makes the
images of one topic, in two jobs of some seconds; it ends with the bytes of an undisturbed local
run, and computes at most the batch in flight of a lost job twice.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
from cluster import Cluster, throw_away_cluster

from conftest import REPOSITORY, Project, begun
from test_software import run_with_conda

pytestmark = pytest.mark.timeout(900)

#: The random run's models run on the CPU; these rules are told to ask for GPUs all the same, as the
#: paper's run does.
GPU_RULES = (
    "generate_images",
    "rank_images",
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
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (
        cluster.jobs("PENDING,RUNNING,COMPLETING") or len(cluster.nodes_in("idle")) < 3
    ):
        cluster.run("scontrol", "update", "nodename=gpu1,gpu2,cpu1", "state=resume", check=False)
        time.sleep(0.5)


def make_slow_images(
    project: Project, topics: Sequence[str] = ("art",), prompts: int = 10, steps: int = 120
) -> None:
    """Images of some topics, `prompts` in two jobs each; 120 steps are about two seconds a prompt."""

    def change(values: dict[str, Any]) -> None:
        values["topics"] = list(topics)
        values["shards_per_topic"] = 2
        values["images"] |= {
            "steps": steps,
            "height": 256,
            "width": 256,
            "guidance_scales": [5.0, 9.0],
        }

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
    new_project: Callable[..., Project], made_once: Callable[[str, Callable[[], Path]], Path]
) -> dict[str, bytes]:
    """The published files of the faults' run, made once on this machine without Slurm."""

    def make() -> Path:
        project = new_project("undisturbed")
        make_slow_images(project)
        project.snakemake("--", *IMAGES)
        return project.folder

    return Project(made_once("undisturbed", make)).published()


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
        **environment: str,
    ) -> None:
        """`user`: who types it, if not the one who runs the tests; `mount`: see `open_to_others`."""
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
                env=self.environment() | environment,
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

    def wait(self, timeout: float = 300) -> int:
        """The exit code, once it has ended."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.fail(f"the head process did not end within {timeout} s")

    def succeed(self, timeout: float = 300) -> None:
        """Waits for it, and fails with its output if it did not end well."""
        if self.wait(timeout):
            self.fail(f"the head process ended with {self.process.returncode}")

    def jobs(self, states: str = "all") -> list[dict[str, str]]:
        """This clone's jobs as squeue shows them."""
        return [
            job for job in self.cluster.jobs(states) if job["folder"] == str(self.project.folder)
        ]

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 120) -> Any:
        """What `condition` gives, as soon as that is true."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.fail(f"waited for {what}")
            time.sleep(0.2)
        return found

    def job_with_items(self) -> dict[str, str]:
        """A job that runs and has finished items of its shard, but not all."""

        def look() -> dict[str, str] | None:
            for job in self.jobs("RUNNING"):
                shard = re.search(r"generate_images_wildcards_(\w+?)_(\d\d)$", job["comment"])
                if (
                    shard and 1 <= items_done(self.project, shard[1], shard[2]) < 3
                ):  # every shard here has more
                    return job
            return None

        found: dict[str, str] = self.until(look, "a running job with finished items")
        return found


def items_done(project: Project, topic: str, shard: str) -> int:
    """Lines of finished items in a shard's journal."""
    path = project.folder / f"results/random/work/generate_images/{topic}/{shard}.journal.jsonl"
    return path.read_bytes().count(b'"status"') if path.exists() else 0


@pytest.fixture
def clone(new_project: Callable[..., Project]) -> Project:
    """A clone set up for the faults' run."""
    project = new_project("slurm")
    make_slow_images(project)
    return project


def assert_undisturbed(project: Project, undisturbed: dict[str, bytes], lost_jobs: int) -> None:
    """The published files are the undisturbed run's, and at most one batch a lost job was computed
    twice.
    """
    found = project.published()
    assert sorted(found) == sorted(undisturbed)
    assert [name for name in undisturbed if found[name] != undisturbed[name]] == []
    assert sum(count - 1 for count in begun(project).values()) <= lost_jobs, (
        "more than the batch in flight was computed twice"
    )


def less_the_commit(published: dict[str, bytes]) -> dict[str, bytes]:
    """Published files without the one thing that a clone outside git cannot know: the commit in the
    sidecars.
    """
    return {
        name: re.sub(rb'"commit": ("[^"]*"|null)', b"", data) if name.endswith(".json") else data
        for name, data in published.items()
    }


def job_counts(output: str) -> dict[str, int]:
    """Jobs by rule, from Snakemake's table of them."""
    table = output.partition("Job stats:")[2].partition("\ntotal")[0]
    return {
        rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)
    }


def submitted(run: SlurmRun) -> Counter[str]:
    """Jobs by rule that a head process has submitted; one that was tried again counts once."""
    logs = set(
        re.findall(
            r"has been submitted with SLURM jobid \d+ \(log:"
            r" .*?/rule_(\w+)((?:/[^/\n]*)*)/\d+\.log\)",
            run.output(),
        )
    )
    return Counter(rule for rule, _ in logs)


@pytest.mark.timeout(2400)
def test_the_whole_random_run_through_slurm_gives_the_bytes_of_the_local_run_and_gpu_jobs_hold_gpus(
    cluster, new_project
):
    local = Project(REPOSITORY)
    local.snakemake()  # nothing to do where `make random` has run
    project = new_project("whole")
    seen: dict[str, dict[str, str]] = {}
    planned = SlurmRun(project, cluster, "--dry-run", targets=[])
    planned.succeed()
    run = SlurmRun(project, cluster, "--jobs", "6", "--slurm-keep-successful-logs", targets=[])
    most_gpus = 0
    while run.process.poll() is None:
        # The scheduler's own record of what is allocated, while it is.
        for job in (running := run.jobs("RUNNING")):
            seen[job["id"]] = job
        most_gpus = max(
            most_gpus,
            sum(
                int(job["gpus"].rpartition(":")[2] or 0) for job in running if "gpu" in job["gpus"]
            ),
        )
        time.sleep(0.5)
    run.succeed()
    found, expected = (less_the_commit(run.published()) for run in (project, local))
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert submitted(run) == {
        rule: count for rule, count in job_counts(planned.output()).items() if rule != "all"
    }
    assert 2 <= most_gpus <= 4
    rules: dict[str, set[str]] = {}
    for job in seen.values():
        rules.setdefault(job["comment"].removeprefix("rule_").split("_wildcards_")[0], set()).add(
            job["gpus"]
        )
    assert {rule for rule, gpus in rules.items() if any("gpu" in each for each in gpus)} == {
        *GPU_RULES,
        "train_dpo",
    }
    assert {gpus.rpartition(":")[2] for gpus in rules["train_dpo"]} == {"2"}
    assert all(job["node"].startswith("gpu") == ("gpu" in job["gpus"]) for job in seen.values())
    # A user finds topic, shard and model in squeue, and a job's log by its rule's name.
    comments = {job["comment"] for job in seen.values()}
    assert any(
        re.fullmatch(r"rule_generate_responses_wildcards_llava-v1\.6-mistral_\w+_00", comment)
        for comment in comments
    )
    assert list((project.folder / ".snakemake/slurm_logs/rule_train_dpo").rglob("*.log"))
    shutil.rmtree(project.folder / "results")


def test_a_gpu_job_sees_its_own_gpu_and_no_other(cluster, new_project):
    clone = new_project("gpus")
    make_slow_images(clone, topics=("art", "nature"), prompts=4, steps=2)
    look = """
    import os, time
    Path("seen-" + os.environ["SLURM_JOB_ID"]).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    time.sleep(12)
"""
    script = clone.folder / "scripts" / "generate_images.py"
    start = "def main(snakemake: Any) -> None:"
    script.write_text(script.read_text().replace(start, start + look))
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
    cluster, clone, undisturbed
):
    run = SlurmRun(clone, cluster)
    job = run.job_with_items()
    cluster.run("scancel", job["id"])
    run.succeed()
    assert_undisturbed(clone, undisturbed, lost_jobs=1)
    again = next(
        other
        for other in run.jobs()
        if other["comment"] == job["comment"] and other["id"] != job["id"]
    )
    assert (job["memory"], again["memory"]) == ("24000M", "36000M")
    assert (job["limit"], again["limit"]) == ("4:00:00", "6:00:00")


def test_a_job_over_its_memory_is_tried_again_with_more(cluster, clone, undisturbed):
    run = SlurmRun(
        clone,
        cluster,
        "--set-resources",
        *AS_ON_GPUS[1:],
        "generate_images:mem_mb=450 * attempt ** 3",
    )
    run.succeed()
    assert "over its memory" in run.output()
    assert_undisturbed(clone, undisturbed, lost_jobs=2)


@pytest.mark.timeout(1500)
def test_a_job_near_its_time_limit_finishes_its_batch_and_the_next_attempt_goes_on(
    cluster, new_project
):
    project = new_project("walltime")
    make_slow_images(project, prompts=50, steps=200)
    # Slurm may send the signal up to a minute early: in the first minute of the first attempt's
    # two, which is too short for the shard.
    needs = ["gpu=1", "runtime=1 + attempt", "slurm_extra='--signal=TERM@60'"]
    run = SlurmRun(
        project,
        cluster,
        "--set-resources",
        *(f"generate_images:{need}" for need in needs),
        "--retries",
        "20",
        targets=IMAGES[:1],
    )
    run.succeed(1200)
    assert len(run.jobs()) > 1, "the shard was made within one time limit: it tests nothing"
    assert max(begun(project).values()) == 1, "a batch was lost although the job was warned"


def test_a_node_that_dies_and_comes_back_costs_the_batches_in_flight(cluster, clone, undisturbed):
    run = SlurmRun(clone, cluster)
    node = run.job_with_items()["node"]
    lost = [job for job in run.jobs("RUNNING") if job["node"] == node]
    cluster.kill(node)
    time.sleep(12)
    cluster.start(node)
    run.until(
        lambda: (
            [
                cluster.run(
                    "scontrol", "update", f"jobid={job['id']}", "starttime=now", check=False
                )
                for job in run.jobs("PENDING")
            ]
            if run.jobs("PENDING")
            else True
        ),
        "the requeued jobs",
    )
    run.succeed()
    assert_undisturbed(clone, undisturbed, lost_jobs=len(lost))


def test_preempted_jobs_are_requeued_and_go_on(cluster, clone, undisturbed):
    run = SlurmRun(clone, cluster)
    run.job_with_items()
    before = run.jobs("RUNNING")
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
            "--wrap=sleep 2",
        ).strip()
        for _ in range(2)
    ]
    preempted = run.until(
        lambda: [job for job in run.jobs() if int(job["restarts"])], "a preempted job"
    )
    run.until(
        lambda: not any(job["id"] in urgent for job in cluster.jobs("PENDING,RUNNING,CONFIGURING")),
        "the urgent jobs to end",
    )
    for job in run.jobs("PENDING"):  # Slurm lets a requeued job wait two minutes
        cluster.run("scontrol", "update", f"jobid={job['id']}", "starttime=now", check=False)
    run.succeed()
    assert preempted
    assert_undisturbed(clone, undisturbed, lost_jobs=len(before))


def test_a_controller_that_restarts_in_mid_run_loses_nothing(cluster, clone, undisturbed):
    run = SlurmRun(clone, cluster)
    run.job_with_items()
    cluster.kill("slurmctld")
    time.sleep(10)
    cluster.start("slurmctld")
    run.succeed()
    assert_undisturbed(clone, undisturbed, lost_jobs=0)


def test_after_a_killed_head_process_make_resume_cancels_its_own_jobs_only_and_goes_on(
    cluster, clone, new_project, undisturbed
):
    other = new_project("other")
    make_slow_images(other)
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
    run, theirs = SlurmRun(clone, cluster, *in_turn), SlurmRun(other, cluster, *elsewhere)
    run.job_with_items()
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()
    orphans = run.jobs("RUNNING,PENDING")
    assert orphans, "no job was left in the queue: it tests nothing"
    (clone.folder / ".venv").symlink_to(
        Path(sys.executable).parent.parent, target_is_directory=True
    )
    resumed = subprocess.run(
        ["make", "resume", f"RUN={shlex.join([*run.arguments, *run.targets])}"],
        cwd=clone.folder,
        env=run.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stdout[-5000:]
    assert "of this run left in the queue by a head process that died" in resumed.stdout
    theirs.succeed()
    assert "CANCELLED" not in {job["state"] for job in theirs.jobs()}
    assert_undisturbed(clone, undisturbed, lost_jobs=len(orphans))
    assert_undisturbed(other, undisturbed, lost_jobs=0)


def test_ctrl_c_cancels_the_jobs_and_the_same_command_goes_on(cluster, clone, undisturbed):
    run = SlurmRun(clone, cluster)
    run.job_with_items()
    lost = len(run.jobs("RUNNING"))
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait(60) != 0
    deadline = time.monotonic() + 30
    while run.jobs("RUNNING,PENDING,COMPLETING"):
        assert time.monotonic() < deadline, "jobs were left in the queue"
        time.sleep(0.5)
    SlurmRun(clone, cluster).succeed()
    assert_undisturbed(clone, undisturbed, lost_jobs=lost)


def test_a_topic_whose_every_job_fails_ends_with_its_reason_and_the_other_topic_goes_on(
    cluster, new_project
):
    project = new_project("topics")
    make_slow_images(project, topics=("art", "nature"), prompts=4, steps=2)
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
    (project.folder / "broken/model.safetensors").write_bytes(b"half a download")
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
        "mount -t tmpfs -o size=200k tmpfs {folder}",
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


def test_a_head_process_that_lost_sight_of_its_jobs_says_so_and_ends(cluster, clone, undisturbed):
    commands = clone.folder / "failing"
    commands.mkdir()
    squeue = commands / "squeue"
    asked = commands / "asked"
    squeue.write_text(
        f'#!/bin/sh\n[ -e {commands}/broken ] && {{ echo "$*" >> {asked}; echo "slurm_load_jobs'
        f' error" >&2; exit 1; }}\nexec {shutil.which("squeue")} "$@"\n'
    )
    squeue.chmod(0o755)
    environment = cluster.environment(clone.environment())
    run = SlurmRun(
        clone,
        cluster,
        "--slurm-status-attempts",
        "2",
        "--config",
        "scheduler_patience=0.3",
        PATH=f"{commands}:{environment['PATH']}",
    )
    run.job_with_items()
    (commands / "broken").touch()
    run.until(
        lambda: "Slurm has not answered for" in run.output(),
        "the warning that Slurm does not answer",
    )
    # The watch asks for comments (%k); two failing questions of the plugin itself, and it has lost
    # sight.
    run.until(
        lambda: sum("%k" not in line for line in asked.read_text().splitlines()) >= 2,
        "the plugin's own questions",
    )
    (commands / "broken").unlink()
    assert run.wait(120) != 0
    assert "it has lost sight of it" in run.output()
    SlurmRun(clone, cluster).succeed()
    assert_undisturbed(clone, undisturbed, lost_jobs=0)


def test_two_runs_in_two_clones_with_spaces_in_their_paths_do_not_touch_each_other(
    cluster, new_project, tmp_path, undisturbed
):
    clones = []
    for name in ("a clone", "another clone"):
        made = new_project("plain")
        shutil.copytree(made.folder, tmp_path / name, symlinks=True)
        clones.append(Project(tmp_path / name))
        make_slow_images(clones[-1])
    runs = [SlurmRun(project, cluster) for project in clones]
    for run in runs:
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


def test_two_users_in_two_clones_do_not_touch_each_other(cluster, clone, new_project, undisturbed):
    user = "nobody"
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        mount = open_to_others(Path(home) / "stage")
        theirs = Project(Path(home) / "clone")
        shutil.copytree(new_project("theirs").folder, theirs.folder, symlinks=True)
        make_slow_images(theirs)
        subprocess.run(["chown", "-R", user, home], check=True)
        with mounted_on(cluster, "gpu2", mount):
            ours = SlurmRun(clone, cluster, "--default-resources", "slurm_extra='--nodelist=gpu1'")
            on_gpu2 = ["--default-resources", "slurm_extra='--nodelist=gpu2'"]
            run = SlurmRun(theirs, cluster, *on_gpu2, user=user, mount=mount, HOME=home)
            run.job_with_items()
            ours.job_with_items()
            os.killpg(ours.process.pid, signal.SIGINT)
            assert ours.wait(60) != 0
            run.succeed()
        assert {job["user"] for job in run.jobs()} == {user}
        assert "CANCELLED" not in {job["state"] for job in run.jobs()}
        assert {path.owner() for path in theirs.folder.rglob("results/random/images/**/*.png")} == {
            user
        }
        assert_undisturbed(theirs, undisturbed, lost_jobs=0)
    SlurmRun(clone, cluster).succeed()
    assert_undisturbed(clone, undisturbed, lost_jobs=2)


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
    environment = {}
    if arguments == ["no slurm"]:
        arguments = []
        for program in ("bash", "sh", "env", "which", "git", "uname"):
            (tmp_path / program).symlink_to(str(shutil.which(program)))
        environment = {"PATH": f"{Path(sys.executable).parent}:{tmp_path}"}
    run = SlurmRun(clone, cluster, *arguments, **environment)
    assert run.wait(120) != 0
    output = run.output()
    assert [text for text in expected if text not in output] == [], output[-4000:]
    assert "Traceback" not in output
    assert run.jobs() == []
    assert not (clone.folder / "results/random/images").exists()
