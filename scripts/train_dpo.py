"""Rule train_dpo: direct preference optimization of the base model on one data set (paper 3.4,
4.1).

This script digests all that determines the training, looks what of it is done, and starts
lib/training/worker.py through torchrun, one process a GPU. A killed training goes on from its last
complete checkpoint and ends with the same bytes. A finished adapter stays under work/ by its key,
so that no training is done twice.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib import weights
from lib.blocks import deciding
from lib.chat_template import FILES, asked_as, is_another_form, with_own_mark
from lib.config.training import TrainDpoJob
from lib.data.controls import TRAINING_CONTROLS
from lib.errors import UserError
from lib.files import mendable_storage_errors, read_jsonl, write_jsonl
from lib.jobs.job import Job
from lib.jobs.kept import copy_folder
from lib.jobs.published import refuse_changed_file
from lib.jobs.script import run_script
from lib.jobs.versions import versions
from lib.registry import version_in_key
from lib.report.training_figure import draw_training
from lib.training.base import TrainingJob
from lib.training.checkpoints import (
    ADAPTER_FILES,
    METRICS_FILE,
    is_finished,
    keep_results,
    last_checkpoint,
    state_at,
)
from lib.training.launch import Progress, launch, wait_for_other_workers
from lib.training.pairs_digest import PairsDigest, digest_pairs
from lib.training.reference import FOLDER, ReferencePlace
from lib.training.registry import TRAINERS

VERSION = 1
#: The packages that decide an adapter.
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "pillow",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "bitsandbytes",
)


def prompt_template_of(settings: TrainDpoJob) -> str:
    """How the base model is asked, its system prompt included."""
    return asked_as(settings.base_model, settings.prompt_template, settings.system_prompt)


def tell_another_form(job: Job[TrainDpoJob]) -> None:
    """Notes where training asks in another form than evaluation will."""
    base = job.settings.base_model
    folder = weights.fetch(base.model, base.revision, only=FILES)
    if is_another_form(job.settings.prompt_template, folder):
        job.note(
            "`training.prompt_template` is not the form of the base model's chat template, in which"
            " evaluation asks; take it out to train in that"
        )


def key_of(job: Job[TrainDpoJob], pairs: PairsDigest, held_out: PairsDigest | None) -> str:
    """The key of a training: of the texts and pictures that it is trained on, in whatever form they
    are stored. A control's stands in the digest of its pairs; held-out pairs are in it since what
    is published tells of them.
    """
    settings = job.settings
    return job.key(
        pairs=pairs.digest,
        model=job.identify(settings.base_model),
        dtype=settings.base_model.dtype,
        prompt_template=prompt_template_of(settings),
        training=deciding(settings.training),
        **({"held_out": held_out.digest} if held_out else {}),
        **version_in_key(TRAINERS.class_of(settings)),
    )


class TrainingFolder:
    """The folder of a job's training under work/, and what is done in it."""

    def __init__(
        self, job: Job[TrainDpoJob], data: list[Path], held_out: list[Path], key: str
    ) -> None:
        """`data`, `held_out`: the data set's parquet files."""
        self.job = job
        self.data = data
        self.held_out = held_out
        self.folder = job.work / job.name / key[:16]
        self.checkpoints = self.folder / "checkpoints"
        self.finished = self.folder / "finished"
        self.versions = self.folder / "versions.jsonl"

    def look(self) -> Path | None:
        """The last checkpoint, when no process of an earlier run is at work any more; damaged
        results are deleted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wait_for_other_workers(self.folder)
        if self.finished.exists() and not is_finished(self.finished):
            self.job.note(f"{self.finished}: is damaged; the adapter is trained again")
            shutil.rmtree(self.finished)
        return last_checkpoint(self.checkpoints)

    def finish(self) -> list[dict[str, Any]]:
        """Does what is left of the training; returns its metrics, one row an update."""
        with mendable_storage_errors(self.folder):
            checkpoint = self.look()
            if not self.finished.exists():
                self.take_over()
            if not self.finished.exists():
                checkpoint = self.train_from(checkpoint)
                settings = self.job.settings
                trainer = TRAINERS.class_of(settings)
                keep_results(checkpoint, self.finished, settings.base_model, trainer)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
            self.say_versions()
        metrics = read_jsonl(self.finished / METRICS_FILE)
        record = self.job.record
        record.items, record.reused = len(metrics), len(metrics) - record.computed
        return metrics

    def take_over(self) -> None:
        """Copies what another job finished, of this run or another, where there is such."""
        kept = self.job.kept_elsewhere(f"*/{self.folder.name}/{self.finished.name}")
        if kept:
            run, finished = kept
            if (finished.parent / self.versions.name).exists():
                shutil.copyfile(finished.parent / self.versions.name, self.versions)
            copy_folder(finished, self.finished)
            self.job.took_over(run, len(read_jsonl(self.finished / METRICS_FILE)))

    def say_versions(self) -> None:
        """Puts on record which versions of libraries trained: several, where it went on under
        others.
        """
        self.job.computed_under({})
        for session in self.sessions():
            self.job.computed_under(session)

    def sessions(self) -> list[dict[str, str]]:
        """The versions of libraries that trained, of each session."""
        return read_jsonl(self.versions) if self.versions.exists() else []

    def train_from(self, checkpoint: Path | None) -> Path:
        """Trains from a checkpoint to the end; returns the last one."""
        before = state_at(checkpoint)
        if checkpoint is None or not before.is_at_the_end:
            # What a killed training left there may lack files.
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
            before_now = self.sessions() if checkpoint else []
            write_jsonl(self.versions, [*before_now, versions(PACKAGES)])
            log = self.job.root / "logs" / self.job.rule / f"{self.job.name}.workers.log"
            train_in_processes(self.job, self.for_processes(checkpoint), log)
            checkpoint = last_checkpoint(self.checkpoints)
            self.job.record.computed = state_at(checkpoint).step - before.step
        if checkpoint is None or not state_at(checkpoint).is_at_the_end:
            raise UserError(
                f"{self.folder}: the training ended without a last checkpoint. Run again."
            )
        return checkpoint

    def for_processes(self, checkpoint: Path | None) -> TrainingJob:
        """What the training's processes work on."""
        settings = self.job.settings
        base = weights.fetch(settings.base_model.model, settings.base_model.revision)
        return TrainingJob(
            trainer=settings.trainer,
            base=base,
            dtype=settings.base_model.dtype,
            device=self.job.device,
            prompt_template=with_own_mark(prompt_template_of(settings), base),
            settings=settings.training,
            data=self.data,
            held_out=self.held_out,
            folder=self.folder,
            resume=checkpoint,
            control=settings.control,
            reference=self.reference(),
        )

    def reference(self) -> ReferencePlace | None:
        """Where the reference's log-probabilities are kept: by all that determines them but what
        the model is shown, the versions of libraries too, so that those found are to the bit those
        that would be computed. None with a dropout, with which they are not.
        """
        job, training = self.job, self.job.settings.training
        if training.lora_dropout:
            return None
        key = job.key(
            what="reference",
            model=job.identify(job.settings.base_model),
            dtype=job.settings.base_model.dtype,
            tuning=training.tuning,
            deepspeed=training.zero_stage > 0,
            projector=training.projector_learning_rate is not None,
            versions=versions(PACKAGES),
            **version_in_key(TRAINERS.class_of(job.settings)),
        )
        own = (job.work / job.name / FOLDER).absolute()
        return ReferencePlace(key=key, own=own, elsewhere=job.folders_of_runs())


def train_in_processes(job: Job[TrainDpoJob], training: TrainingJob, output: Path) -> None:
    """Trains, and puts on record how long loading and training took."""
    progress = Progress(job.note)
    try:
        launch(training, progress, output)
    finally:
        job.record.load_seconds, job.record.compute_seconds = progress.seconds()


def say_losses(losses: Mapping[str, float]) -> str:
    """The losses of a training, in words."""
    if losses == {"sigmoid": 1.0}:
        return "DPO"
    return " + ".join(f"{weight:g} {name}" for name, weight in losses.items())


def title_of(job: Job[TrainDpoJob], pairs: PairsDigest) -> str:
    """The title of a training's figure."""
    training, control = job.settings.training, job.settings.control
    trained = "all weights" if training.tuning == "full" else f"LoRA rank {training.lora_rank}"
    title = (
        f"{job.name}: {say_losses(training.losses)} on {pairs.pairs} pairs,"
        f" β = {training.beta:g}, {trained}"
    )
    if control is None:
        return title
    return f"{title}; control: {TRAINING_CONTROLS[control]} ({pairs.exchanged} exchanged)"


def main(snakemake: Any) -> None:
    with Job(snakemake, TrainDpoJob, VERSION) as job:
        control, output = job.settings.control, snakemake.output
        data_set = Path(snakemake.input.dataset).parent
        refuse_changed_file(job.root, data_set / "data", output=data_set / "dataset.json")
        data = sorted(data_set.glob("data/train-*.parquet"))
        held_out = sorted(data_set.glob("data/validation-*.parquet"))
        seed = job.settings.training.seed
        pairs = digest_pairs(data, control, seed)
        if control:
            job.note(
                f"control '{control}': chosen and rejected are exchanged in {pairs.exchanged} of"
                f" {pairs.pairs} pairs"
            )
        tell_another_form(job)
        of_held_out = digest_pairs(held_out) if held_out else None
        training = TrainingFolder(job, data, held_out, key_of(job, pairs, of_held_out))
        metrics = training.finish()
        adapter = Path(output.adapter).parent
        with mendable_storage_errors(adapter):
            for name in ADAPTER_FILES:
                shutil.copyfile(training.finished / name, adapter / name)
            shutil.copyfile(training.finished / METRICS_FILE, output.metrics)
        draw_training(metrics, title_of(job, pairs), [Path(output.figure), Path(output.picture)])


if __name__ == "__main__":
    run_script(main)
