"""What the settings of all image scorers have."""

from typing import Literal

from pydantic import Field

from lib.blocks import DType, Model, dtype_field


class ImageScorerSettings(Model):
    """What the settings of all image scorers have."""

    kind: str = Field(description="Architecture and formula.")
    dtype: DType = dtype_field("float32")
    backend: Literal["native"] = Field("native", description="Our reading of the checkpoint.")

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that scores."""
        return "rewards"

    @property
    def megabytes(self) -> int:
        """The memory that a job asks for at first, most of it to load the model."""
        return 12000
