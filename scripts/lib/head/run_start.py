"""What a run read when it began, for all of its jobs.

A job's own Snakemake reads the Snakefile anew, on a cluster perhaps hours later, when configuration
and prompts may have been edited. What it makes then would pass for what the run was asked. So the
head process writes down what it read, and tells its jobs by an environment variable where that is.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from lib.errors import UserError
from lib.files import digest, write_text
from lib.jobs.job import REUSE_FROM

VARIABLE = "PDS_DPO_RUN_START"


@dataclass(frozen=True)
class RunStart:
    """What a run read when it began.

    config   as Snakemake merged it from files and command line
    prompts  the texts by topic
    written  the instructions that the user wrote, by prompt id
    left_out the sizes of data sets that it does not make, with the reasons
    """

    config: dict[str, Any]
    prompts: dict[str, list[str]]
    written: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_this_job(cls) -> Self:
        """What the run of this job began with. Errors: UserError where this process is not told."""
        path = os.environ.get(VARIABLE)
        if path is None:
            raise UserError(
                f"this job is not told what its run began with: the environment variable {VARIABLE}"
                " is missing. Jobs have to get the environment of the process that submits them"
                " (on Slurm `--export=ALL`, which is the default)."
            )
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}). It holds what this run began with, and has to"
                " be on a file system that all nodes share. Run again."
            ) from error

    def tell_jobs(self, root: Path, reuse_from: Sequence[Path] = ()) -> None:
        """Writes it into the run's folder `root`, and has the jobs that this process starts know
        where. `reuse_from`: the folders of runs whose items they may take over.
        """
        # In the order in which it was read: that of tables, among others.
        text = json.dumps(asdict(self), ensure_ascii=False)
        path = root.absolute() / "work" / "run_start" / f"{digest(text)[:16]}.json"
        if not path.is_file():
            write_text(path, text)
        os.environ[VARIABLE] = str(path)
        os.environ[REUSE_FROM] = os.pathsep.join(map(str, reuse_from))
