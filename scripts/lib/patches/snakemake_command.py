"""Snakemake's command line (9.27): what was typed, with the profiles applied. A Snakefile is not
told the executor before the jobs are submitted, and in a dry run never.
"""

import contextlib
import io
import sys
from pathlib import Path


def partition_file() -> Path | None:
    """The partition file that the command line asks for, where the executor is Slurm.

    None where another executor is asked for, or this process was not started as `snakemake`.
    """
    if Path(sys.argv[0]).name != "snakemake":
        return None
    from snakemake.cli import parse_args

    with contextlib.redirect_stderr(io.StringIO()):  # it says which profile it uses, once more
        _, arguments = parse_args(sys.argv[1:])
    path = getattr(arguments, "slurm_partition_config", None)
    return Path(path) if arguments.executor == "slurm" and path else None
