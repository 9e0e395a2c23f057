"""What the settings of all image generators have."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lib.blocks import LATER, Model


class ImageGeneratorSettings(Model):
    """What the settings of all image generators have."""

    kind: str = Field(description="Which class draws the images.", json_schema_extra=LATER)
    guidance_scales: list[Annotated[float, Field(gt=1)]] = Field(
        [5.0, 7.0, 9.0, 11.0],
        min_length=1,
        description="One candidate each; over 1, which means no guidance (paper 4.3, Figure 4).",
    )
    height: PositiveInt = Field(1024, multiple_of=8, description="Pixels.")
    width: PositiveInt = Field(1024, multiple_of=8, description="Pixels.")
    format: Literal["png", "webp", "jpeg"] = Field(
        "png", description="Image files; png and webp are lossless here, jpeg is not."
    )

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that draws."""
        return "diffusion"

    @model_validator(mode="after")
    def _scales_differ(self) -> Self:
        if len(set(self.guidance_scales)) < len(self.guidance_scales):
            raise ValueError("the same guidance scale stands twice in `guidance_scales`")
        return self
