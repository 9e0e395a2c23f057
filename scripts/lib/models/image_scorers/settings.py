"""What the settings of all image scorers have."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from lib.blocks import Block, DType, Model, dtype_field
from lib.model_files import PICKLES, problem_with_checkpoint


class ImageScorerSettings(Block):
    """What the settings of all image scorers have."""

    kind: str = Field(description="Architecture and formula.")

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that scores."""
        return "rewards"

    @property
    def megabytes(self) -> int:
        """The memory that a job asks for at first, most of it to load the model."""
        return 12000

    @property
    def needs_gpu(self) -> bool:
        """Whether a model runs in the job itself."""
        return True

    @property
    def is_small(self) -> bool:
        """Whether its model leaves room for those of other scorers in the same job."""
        return False

    @property
    def items_at_once(self) -> int:
        """How many prompts' candidates are scored at the same time."""
        return 1


class LocalScorerSettings(ImageScorerSettings, Model):
    """A model that runs in the job."""

    dtype: DType = dtype_field("float32")
    backend: Literal["native"] = Field("native", description="Our reading of the checkpoint.")

    @property
    def is_small(self) -> bool:
        """Most have less than half a billion weights."""
        return True


class CheckpointSettings(LocalScorerSettings):
    """A checkpoint of transformers."""

    def problem_with_files(self, folder: Path) -> str | None:
        """As of any checkpoint of transformers; of older ones pickles are read."""
        return problem_with_checkpoint(folder, PICKLES)
