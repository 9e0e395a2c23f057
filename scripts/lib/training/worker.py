"""The program of each training process, started by rule train_dpo through torchrun.

    python -m torch.distributed.run --nproc-per-node=N --module lib.training.worker JOB.json

Where there is one process, and a copy of the rule's will do, it is started without.

What stops it is left in a file for the rule's process.
"""

import os
import sys
from pathlib import Path

from lib.jobs.processes import die_with_parent
from lib.patches.file_locks import allow_no_locks
from lib.training.base import TrainingJob
from lib.training.launch import at_work
from lib.training.messages import leaving_errors
from lib.training.registry import TRAINERS


def main(path: Path) -> None:
    """One process of the training that a file describes."""
    die_with_parent()
    if os.getppid() == 1:  # it died before that
        return
    job = TrainingJob.model_validate_json(path.read_text(encoding="utf-8"))
    allow_no_locks()
    rank = int(os.environ["RANK"])
    with at_work(job.folder, rank), leaving_errors(job.folder, rank):
        TRAINERS.load(job.trainer).train(job)
    # All is on the disk. Taking torch's threads and its process group down takes time, and a crash
    # in it would fail a training that is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
