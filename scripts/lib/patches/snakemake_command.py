"""Snakemake's command line (9.27): which executor was asked for, which rules and files are named,
and whether a lock is to be removed. A Snakefile is not told before the jobs are submitted, and in a
dry run never.
"""

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml


def partition_file() -> Path | None:
    """The partition file that the command line asks for, where the executor is Slurm, as the
    executor will look for it.

    None where another executor is asked for, or this process was not started as `snakemake`.
    """
    if Path(sys.argv[0]).name != "snakemake":
        return None
    # Where the command was typed, as shells tell: --directory has been followed by now.
    settings = executor_settings(sys.argv[1:], os.environ.get("PWD", ""))
    path = settings.get("slurm-partition-config")
    return Path(path) if settings.get("executor") == "slurm" and path else None


def is_to_unlock() -> bool:
    """Whether the command line asks for the removal of another Snakemake's lock."""
    return Path(sys.argv[0]).name == "snakemake" and "--unlock" in sys.argv


def names_any(rules: Collection[str], folder: str) -> bool:
    """Whether the command line names one of these rules, or a file in `folder`: as a target, or in
    an option (`--until`). What is the value of another option counts, too.
    """
    if Path(sys.argv[0]).name != "snakemake":
        return False
    words = [part for word in sys.argv[1:] for part in word.split("=")]
    return any(word in rules or f"{folder}/" in word for word in words)


def executor_settings(words: Sequence[str], started_in: str = "") -> dict[str, Any]:
    """`executor` and `slurm-partition-config` of a command line in any of its spellings: those of
    its profiles, the later ones over the earlier ones, under those that it names itself.
    `started_in`: the folder in which it was typed, from which profiles are named.

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
        if profile == "none":
            continue
        if place := get_profile_dir(profile):
            settings |= _read_profile(place, place[0])
        # With --directory this is another folder. Snakemake leaves relative paths as they are.
        elif place := get_profile_dir(str(Path(started_in, profile))):
            settings |= _read_profile(place, place[0].relative_to(started_in))
    named = {"executor": typed.executor, "slurm-partition-config": typed.slurm_partition_config}
    return settings | {name: value for name, value in named.items() if value}


def _read_profile(place: tuple[Path, Path], called: Path) -> dict[str, Any]:
    """A profile's settings, from its folder and file; where it names a file that lies beside it,
    that one is meant, in the folder as it is `called`.
    """
    folder, file = place
    settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    if (name := settings.get("slurm-partition-config")) and (folder / str(name)).exists():
        settings["slurm-partition-config"] = str(called / str(name))
    return dict(settings)
