"""A look before anything is submitted: every kind of job is shown to the partition file and to
`sbatch --test-only`, so that a wrong account or a GPU that nobody has is one message and no job.
"""

import difflib
import logging
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from lib.config.yaml_files import read_yaml
from lib.errors import UserError
from lib.head.slurm.queue import (
    COMMAND_TIMEOUT,
    NoAnswerError,
    query_slurm,
)
from lib.patches import slurm_plugin

log = logging.getLogger("snakemake.logging")


def check_needs(jobs: Iterable[Any], settings: Any) -> None:
    """Raises a UserError with every need that no partition meets and every one that sbatch refuses;
    nothing is submitted.

    Args:
        jobs: the jobs that are to run, as Snakemake has them.
        settings: the executor plugin's settings.
    """
    if missing := [
        program for program in ("sbatch", "squeue", "scancel", "srun") if not shutil.which(program)
    ]:
        raise UserError(
            f"there is no Slurm on this machine ({', '.join(missing)} not found). Run this on a"
            " login node of your cluster; on a machine of your own it is `--profile"
            " profiles/local`."
        )
    from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file

    partitions = read_partition_file(settings.partition_config) if settings.partition_config else []
    quiet = logging.Logger("unheard")
    problems: dict[str, list[str]] = {}
    answers: dict[tuple[str, ...], str | None] = {}
    for job in jobs:
        if job.is_local:
            continue
        partition = job.resources.get("slurm_partition") or (
            get_best_partition(partitions, job, quiet) if partitions else None
        )
        needs = _needs(job)
        if partitions and partition is None:
            problem = (
                f"no partition of {settings.partition_config} takes {' '.join(needs)}. It lists"
                f" {', '.join(each.name for each in partitions)}: correct their limits there, or"
                " what the rule asks for (`set-resources` in profiles/slurm/config.yaml)."
            )
        else:
            question = (*_where(job, settings, partition), *needs)
            if question not in answers:
                answers[question] = refusal(question)
            if answers[question] is None:
                continue
            problem = f"{answers[question]} Asked for: {shlex.join(question)}"
        problems.setdefault(problem, []).append(job.rule.name)
    if problems:
        raise UserError(
            "\n".join(
                f"rule {', '.join(sorted(set(rules)))}: {problem}"
                for problem, rules in problems.items()
            )
            + "\nNothing was submitted. docs/cluster.md says what to edit."
        )


def _needs(job: Any) -> tuple[str, ...]:
    """What a job asks for, in sbatch's words."""
    needs = [f"--mem={job.resources.get('mem_mb')}", f"--time={job.resources.get('runtime')}"]
    needs.append(f"--cpus-per-task={job.resources.get('cpus_per_task') or job.threads}")
    gpus, model = job.resources.get("gpu"), job.resources.get("gpu_model")
    if gpus or model:
        needs.append(f"--gpus={f'{model}:' if model else ''}{gpus or 1}")
    return tuple(needs)


def _where(job: Any, settings: Any, partition: str | None) -> tuple[str, ...]:
    """Where and on whose account a job is submitted, in sbatch's words."""
    words = {
        "--partition": partition,
        "--account": job.resources.get("slurm_account"),
        "--qos": settings.qos or job.resources.get("qos"),
        "--constraint": job.resources.get("constraint"),
        "--reservation": settings.reservation,
    }
    return tuple(f"{option}={value}" for option, value in words.items() if value)


def refusal(question: Iterable[str]) -> str | None:
    """Why sbatch would refuse a job, or None; a controller that does not answer just now is no
    refusal.
    """
    try:
        done = subprocess.run(
            ["sbatch", "--test-only", *question, "--wrap=true"],
            text=True,
            capture_output=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return None
    lines = [line for line in done.stderr.splitlines() if "error:" in line or "failure" in line]
    if (
        done.returncode == 0
        or "Unable to contact slurm controller" in done.stderr
        or "Socket timed out" in done.stderr
    ):
        return None
    return (
        "; ".join(line.strip() for line in lines) + "."
        if lines
        else f"sbatch refuses it: {done.stderr.strip()}."
    )


def check_partition_file(path: Path) -> None:
    """Raises a UserError if a partition has a limit that the plugin does not know; the plugin
    itself would end with a traceback.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: not found. Correct `slurm-partition-config`; the project's is"
            " profiles/slurm/partitions.yaml. With `--directory`, name `--profile` by its whole"
            " path."
        )
    # `slurm` is a link to profiles/slurm.
    path, here = path.resolve(), Path.cwd()
    path = path.relative_to(here) if path.is_relative_to(here) else path
    from snakemake_executor_plugin_slurm.partitions import PartitionLimits

    known = {each.name for each in fields(PartitionLimits)} | {
        "cluster",
        "clusters",
        "slurm_cluster",
    }
    partitions = read_yaml(path).get("partitions")
    if not isinstance(partitions, dict):
        raise UserError(
            f"{path}: has no `partitions:` with a block for each. The file in the repository is an"
            " example."
        )
    for name, limits in partitions.items():
        for key in limits or {}:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = (
                    f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(sorted(known))}."
                )
                raise UserError(f"{path}: partition '{name}' has the unknown limit `{key}`. {hint}")


def settle_status_command(settings: Any) -> None:
    """Makes the plugin ask squeue even while the controller is silent, and refuses a status command
    that can never answer.
    """
    age = slurm_plugin.keep_min_job_age()
    by_sacct = settings.status_command == "sacct"
    if by_sacct or (age is not None and age < 3 * settings.init_seconds_before_status_checks):
        try:
            query_slurm("sacct", "--noheader", "--allocations", "--format=JobID")
        except NoAnswerError as error:
            if by_sacct:
                raise UserError(
                    "jobs are asked for with sacct, and this cluster keeps no accounting"
                    f" ({error}): none would ever be seen to end. Set `slurm-status-command:"
                    " squeue`, as profiles/slurm/config.yaml does."
                ) from error
            raise UserError(
                f"this cluster forgets ended jobs after {age} s (MinJobAge) and keeps no accounting"
                f" ({error}): they are lost from sight. Set"
                " `slurm-init-seconds-before-status-checks` in profiles/slurm/config.yaml to"
                f" {max(1, (age or 0) // 3)} or less."
            ) from error


def check_log_folder(folder: Path) -> None:
    """Raises a UserError if Slurm could not write a job's log: such a job dies without a word."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: Slurm writes the jobs' logs there, and it cannot be written"
            f" ({error.strerror}). Make it a folder that you and the compute nodes can write, or"
            " name another one with `slurm-logdir` in profiles/slurm/config.yaml."
        ) from error
