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

from lib.data.blind_verdicts import BlindVerdict
from lib.data.reviews import Reviews
from lib.errors import UserError
from lib.files import digest, write_text
from lib.jobs.job import REUSE_FROM

#: Environment variable with the file's path; of a module of another workflow, which may make
#: several runs, its name stands behind it.
VARIABLE = "PDS_DPO_RUN_START"
#: The folders of `reuse_from` of the runs that this process makes, by the runs' folders.
_reused: dict[Path, list[Path]] = {}


@dataclass(frozen=True)
class RunStart:
    """What a run read when it began.

    config   as Snakemake merged it from files and command line
    prompts  the texts by topic
    written  the instructions that the user wrote, by prompt id
    left_out the sizes of data sets that it does not make, with the reasons
    pictures the files with a shard's prompts and the user's own pictures of them, by "topic/shard"
    answers  the files with the user's own answers of a policy model's shard, by
             "policy/topic/shard"
    reviews  what people said of pairs, by prompt id
    verdicts what they said in the report's blind mode
    ranked_together  the shards whose pictures one job ranks by several scorers, as "topic/shard"
    """

    config: dict[str, Any]
    prompts: dict[str, list[str]]
    written: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    reviews: Reviews = field(default_factory=dict)
    verdicts: list[BlindVerdict] = field(default_factory=list)
    ranked_together: list[str] = field(default_factory=list)

    @classmethod
    def of_this_job(cls, module: str = "") -> Self:
        """What the run of this job began with; `module`: as `tell_jobs`. Errors: UserError where
        this process is not told.
        """
        variable = _variable(module)
        path = os.environ.get(variable)
        if path is None:
            raise UserError(
                f"this job is not told what its run began with: the environment variable {variable}"
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

    def tell_jobs(self, root: Path, reuse_from: Sequence[Path] = (), module: str = "") -> None:
        """Writes it into the run's folder `root`, and has the jobs that this process starts know
        where. `reuse_from`: the folders of runs whose items they may take over; where a process
        makes several runs, the jobs of each look into all of them. `module`: the name that another
        workflow gives ours; empty where there is no other.
        """
        # In the order in which it was read: that of tables, among others.
        text = json.dumps(asdict(self), ensure_ascii=False)
        path = root.absolute() / "work" / "run_start" / f"{digest(text)[:16]}.json"
        if not path.is_file():
            write_text(path, text)
        os.environ[_variable(module)] = str(path)
        _reused[root] = list(reuse_from)
        folders = dict.fromkeys(str(folder) for each in _reused.values() for folder in each)
        os.environ[REUSE_FROM] = os.pathsep.join(folders)


def _variable(module: str) -> str:
    return f"{VARIABLE}_{module.replace('.', '_')}" if module else VARIABLE
