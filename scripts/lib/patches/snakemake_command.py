"""Snakemake's command line (9.27): which executor was asked for, and whether a lock is to be
removed. A Snakefile is not told before the jobs are submitted, and in a dry run never.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def partition_file() -> Path | None:
    """The partition file that the command line asks for, where the executor is Slurm.

    None where another executor is asked for, or this process was not started as `snakemake`.
    """
    if Path(sys.argv[0]).name != "snakemake":
        return None
    settings = executor_settings(sys.argv[1:])
    path = settings.get("slurm-partition-config")
    return Path(path) if settings.get("executor") == "slurm" and path else None


def is_to_unlock() -> bool:
    """Whether the command line asks for the removal of another Snakemake's lock."""
    return Path(sys.argv[0]).name == "snakemake" and "--unlock" in sys.argv


def executor_settings(words: Sequence[str]) -> dict[str, Any]:
    """`executor` and `slurm-partition-config` of a command line in any of its spellings: those of
    its profiles, the later ones over the earlier ones, under those that it names itself.

    Snakemake's own parser knows a hundred more options, and takes a tenth of a second.
    """
    from snakemake.cli import get_profile_dir

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--profile", action="append", default=[])
    parser.add_argument("--workflow-profile", default="profiles/default")
    parser.add_argument("--executor", "-e")
    parser.add_argument("--slurm-partition-config")
    typed, _ = parser.parse_known_args(words)
    profiles = typed.profile or [os.environ.get("SNAKEMAKE_PROFILE", "none")]
    settings: dict[str, Any] = {}
    for profile in (*profiles, typed.workflow_profile):
        if profile != "none" and (place := get_profile_dir(profile)):
            settings |= yaml.safe_load(place[1].read_text(encoding="utf-8")) or {}
    named = {"executor": typed.executor, "slurm-partition-config": typed.slurm_partition_config}
    return settings | {name: value for name, value in named.items() if value}
