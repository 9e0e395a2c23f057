"""What training costs, and what a reference that is asked once about a pair saves.

    PYTHONPATH=scripts python benchmarks/training.py [--pairs N] [--epochs N] [--repeats N]

`make bench` runs it. The small world's base model is trained on made-up pairs, one pair a batch as
the paper does, with three losses:

- each by itself, the reference asked in every step, with activations recomputed (how it was done
  until there was this benchmark) and without;
- one after the other, with what the reference says kept in one folder; and once more in one epoch.

A training with two epochs asks about each pair in the first of them, so that it saves already what
a second one saves once more. What is saved where storing and finding cost nothing follows
from the share of the reference in a step, and stands beside what was measured (`by_arithmetic`).

Seconds are the CPU's, from the first update to the last, without loading, which is the same for
all; of `--repeats` rounds the fastest of each is shown.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from statistics import mean

import data_sets
from rich.console import Console
from rich.table import Table

from lib.patches.imports import quick_imports
from lib.training.base import TrainingJob
from lib.training.dpo import build_trainer, keeping_reference, set_up_libraries
from lib.training.reference import FOLDER, ReferencePlace
from lib.training.settings import TrainingSettings

REPOSITORY = Path(__file__).resolve().parent.parent
BASE = REPOSITORY / "demo/world/models/llava-1.5"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
LOSSES = ("sigmoid", "ipo", "apo_zero")
RECOMPUTED, PLAIN = "asked in every step, recomputed", "asked in every step"
ONCE, ONE_EPOCH = "asked once a pair", "asked once a pair, one epoch"
#: What is saved at least: by each further experiment, and by three.
LIMITS = {
    "further experiments, less than by themselves": 0.20,
    "further experiments, less than the first, one epoch": 0.20,
    "three losses, less than each by itself and recomputed": 0.30,
}


class Bench:
    """Trainings on one data set; `epochs`: passes over it."""

    def __init__(self, folder: Path, pairs: int, epochs: float) -> None:
        self.folder = folder
        self.epochs = epochs
        self.number = 0
        data_sets.make_run(folder, pairs)
        data_sets.build(folder)

    def job(self, loss: str, recomputes: bool, epochs: float) -> TrainingJob:
        """A training, in a folder of its own."""
        self.number += 1
        return TrainingJob(
            trainer="dpo",
            base=BASE,
            dtype="float32",
            device="cpu",
            prompt_template="USER: <image>\n{instruction} ASSISTANT:",
            settings=TrainingSettings(
                losses={loss: 1.0},
                epochs=epochs,
                processes=1,
                zero_stage=0,
                lora_rank=32,
                lora_alpha=64,
                save_steps=100_000,
            ),
            data=sorted((self.folder / "dataset/all/data").glob("train-*")),
            folder=self.folder / "trainings" / str(self.number),
            recomputes=recomputes,
        )

    def seconds(
        self,
        loss: str,
        recomputes: bool = False,
        kept: Path | None = None,
        epochs: float | None = None,
    ) -> float:
        """CPU seconds of a training. `kept`: where what the reference says is kept."""
        job = self.job(loss, recomputes, epochs or self.epochs)
        if kept:
            own = kept / loss / FOLDER
            place = ReferencePlace(key="0" * 64, own=own, elsewhere=[kept])
            job = job.model_copy(update={"reference": place})
        set_up_libraries(job)
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            trainer = build_trainer(job)
            with keeping_reference(job, trainer):
                started = time.process_time()
                trainer.train()
                return time.process_time() - started

    def round(self, number: int) -> Iterator[tuple[str, str, float]]:
        """Each kind of training with each loss: how, which, and its seconds."""
        kept, once_more = self.folder / f"kept-{number}", self.folder / f"one-epoch-{number}"
        for loss in LOSSES:
            yield RECOMPUTED, loss, self.seconds(loss, recomputes=True)
            yield PLAIN, loss, self.seconds(loss)
            yield ONCE, loss, self.seconds(loss, kept=kept)
            yield ONE_EPOCH, loss, self.seconds(loss, kept=once_more, epochs=1.0)


def table_of(fastest: dict[tuple[str, str], float]) -> Table:
    """The seconds, one row a way of training."""
    table = Table("the reference is", *LOSSES, "all three", box=None)
    for how in dict.fromkeys(how for how, _ in fastest):
        seconds = [fastest[how, loss] for loss in LOSSES]
        table.add_row(how, *(f"{each:.2f}" for each in (*seconds, sum(seconds))))
    return table


def savings(fastest: dict[tuple[str, str], float]) -> dict[str, float]:
    """What is saved, as shares."""
    before, plain, once, single = (
        [fastest[how, loss] for loss in LOSSES] for how in (RECOMPUTED, PLAIN, ONCE, ONE_EPOCH)
    )
    return {
        "further experiments, less than by themselves": 1 - sum(once[1:]) / sum(plain[1:]),
        "further experiments, less than the first, one epoch": 1 - mean(single[1:]) / single[0],
        "further experiments, less than the first": 1 - mean(once[1:]) / once[0],
        "three losses, less than each by itself": 1 - sum(once) / sum(plain),
        "three losses, less than each by itself and recomputed": 1 - sum(once) / sum(before),
    }


def by_arithmetic(share: float, epochs: float) -> dict[str, float]:
    """What is saved of trainings whose steps are the reference's pass for a `share`, where it
    costs nothing to keep what that says: a training is `epochs` by itself, the first of several
    saves the reference's passes of all epochs but one, each further one all of them.
    """
    further = epochs * (1 - share)
    first = further + share
    return {
        "further experiments, less than the first, one epoch": share,
        "further experiments, less than the first": 1 - further / first,
        "three losses, less than each by itself": 1 - (first + 2 * further) / (3 * epochs),
    }


def main() -> int:
    """Prints the table; returns 1 where less is saved than we hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with quick_imports():  # as in a job, where the trainer's collection of garbage is quick, too
        import_module("trl.trainer.dpo_trainer")
    fastest: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.pairs, arguments.epochs)
        for number in range(arguments.repeats):
            for how, loss, seconds in bench.round(number):
                fastest[how, loss] = min(seconds, fastest.get((how, loss), seconds))
    console = Console()
    console.print(f"{arguments.pairs} pairs, {arguments.epochs:g} epochs, CPU seconds")
    console.print(table_of(fastest))
    saved = savings(fastest)
    share = saved["further experiments, less than by themselves"]
    expected = by_arithmetic(share, arguments.epochs)
    for what, saving in saved.items():
        told = f" (by the arithmetic {expected[what]:.0%})" if what in expected else ""
        console.print(f"{what}: {saving:.0%}{told}")
    return 0 if all(saved[what] >= limit for what, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
