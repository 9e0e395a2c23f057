"""A training's checkpoints, and its finished results, which are made of the last one.

A checkpoint counts once its marker, written last, lists all its files; results count while their
marker's digests are those of the files.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import weights
from lib.blocks import Model
from lib.files import mendable_storage_errors, sync, write_json, write_jsonl
from lib.jobs.kept import MARKER, is_sealed, publish_folder, seal
from lib.training.base import Trainer

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
METRICS_FILE = "metrics.jsonl"


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint is whole: its marker is there, and the files have the sizes that it
    lists.
    """
    try:
        sizes: dict[str, int] = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in sizes.items()
    )


def mark_complete(checkpoint: Path) -> None:
    """Writes a checkpoint's marker, all its files being there, and on the disk."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    for path in files:
        sync(path)
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    write_json(checkpoint / MARKER, sizes)


def all_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, the oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def delete_others(folder: Path, kept: Path | None) -> None:
    """Deletes the checkpoints in a folder, but one."""
    for path in all_checkpoints(folder):
        if path != kept:
            shutil.rmtree(path)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; the others are deleted."""
    whole = [path for path in all_checkpoints(folder) if is_complete(path)]
    last = whole[-1] if whole else None
    delete_others(folder, last)
    return last


@dataclass(frozen=True)
class TrainerState:
    """Updates done and planned, and the trainer's log, at a checkpoint or before the first."""

    step: int = 0
    steps: int = -1
    log: Sequence[dict[str, Any]] = field(default_factory=list)

    @property
    def is_at_the_end(self) -> bool:
        """Whether no update is left to do."""
        return self.step == self.steps


def state_at(checkpoint: Path | None) -> TrainerState:
    """How far a training is at a checkpoint; None: at the beginning."""
    if checkpoint is None:
        return TrainerState()
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return TrainerState(state["global_step"], state["max_steps"], state["log_history"])


def metrics_of(
    log: Sequence[dict[str, Any]], names: Collection[str], held_out: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row an update, without anything that depends on time or on where a training went on from
    a checkpoint; with what the held-out pairs gave after it, where they were asked.

    `names`: of the log; `held_out`: names of the log -> those that are published.
    """
    asked = {row["step"]: row for row in log if held_out.keys() & row.keys()}
    return [
        {
            "step": row["step"],
            **{name: row[name] for name in names if name in row},
            **of_held_out(asked.get(row["step"], {}), held_out),
        }
        for row in log
        if "loss" in row
    ]


def of_held_out(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """What a row of the log says of the held-out pairs, by the names that are published."""
    return {ours: row[name] for name, ours in names.items() if name in row}


def keep_results(checkpoint: Path, finished: Path, base: Model, trainer: type[Trainer]) -> None:
    """Makes the folder with a training's results from its last checkpoint, whole or not at all."""
    with mendable_storage_errors(finished):
        scratch = finished.with_suffix(".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        shutil.copyfile(checkpoint / ADAPTER_FILES[0], scratch / ADAPTER_FILES[0])
        write_json(scratch / ADAPTER_FILES[1], adapter_config(checkpoint, base))
        metrics = metrics_of(state_at(checkpoint).log, trainer.METRICS, trainer.HELD_OUT)
        write_jsonl(scratch / METRICS_FILE, metrics)
        seal(scratch, (*ADAPTER_FILES, METRICS_FILE))
        publish_folder(scratch, finished)


def adapter_config(checkpoint: Path, base: Model) -> dict[str, Any]:
    """PEFT's configuration of a checkpoint's adapter, its base model named as configured: an
    absolute path would say where the adapter was made.
    """
    config = json.loads((checkpoint / ADAPTER_FILES[1]).read_text(encoding="utf-8"))
    is_absolute = weights.is_folder(base.model) and weights.folder_of(base.model).is_absolute()
    return {
        **config,
        "base_model_name_or_path": Path(base.model).name if is_absolute else base.model,
        "revision": None if weights.is_folder(base.model) else base.revision,
    }


def is_finished(finished: Path) -> bool:
    """Whether a training's results are there and undamaged."""
    return is_sealed(finished)
