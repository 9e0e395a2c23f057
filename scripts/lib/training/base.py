"""What a trainer is: the role of DPO in the paper (3.4)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

from pydantic import Field

from lib.blocks import Block, DType
from lib.data.controls import Control
from lib.training.reference import ReferencePlace
from lib.training.settings import TrainingSettings


class TrainingJob(Block):
    """What the processes of one training work on; `launch` hands it to them as a file.

    trainer  the kind of trainer (lib/training/registry.py)
    base     the base model's folder
    data     the data set's parquet files, in order
    held_out those of its validation split; none where it has none
    folder   where the training writes: checkpoints, caches, what stopped it
    resume   the checkpoint to go on from, None at the beginning
    deterministic
             whether what a GPU cannot compute twice alike stops the processes
    recomputes
             whether activations are recomputed in the backward pass, since they do not fit into
             memory
    reference
             where the reference's log-probabilities are kept; None: they are computed each time
    """

    trainer: str
    base: Path
    dtype: DType
    device: str
    prompt_template: str
    settings: TrainingSettings
    data: list[Path]
    held_out: list[Path] = Field(default_factory=list)
    folder: Path
    resume: Path | None = None
    control: Control | None = None
    deterministic: bool = True
    recomputes: bool = False
    reference: ReferencePlace | None = None

    @property
    def may_recompute(self) -> bool:
        """Whether recomputing activations is allowed, and would be new."""
        return self.settings.gradient_checkpointing and not self.recomputes

    @property
    def checkpoints(self) -> Path:
        """Where the trainer writes its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def stop(self) -> Path:
        """The file whose presence asks the processes to save a checkpoint and end."""
        return self.folder / "stop"


class Trainer(Protocol):
    """A way to train a LoRA adapter. VERSION is raised where the same pairs would give another one.

    METRICS: what is published of each update, by the names of the trainer's log.
    HELD_OUT: what is published of the held-out pairs, by the names of the log -> ours.
    """

    VERSION: ClassVar[int]
    Settings: ClassVar[type[TrainingSettings]]
    METRICS: ClassVar[tuple[str, ...]]
    HELD_OUT: ClassVar[Mapping[str, str]]

    @classmethod
    def train(cls, job: TrainingJob) -> None:
        """Does the part of one process (torchrun's RANK and WORLD_SIZE), writing checkpoints whose
        marker stands last (`checkpoints.mark_complete`). Errors: UserError.
        """
        ...
