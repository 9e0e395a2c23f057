"""What the settings of all image generators have."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from lib.blocks import LATER, Model
from lib.model_files import problem_with_pipeline


class ImageGeneratorSettings(Model):
    """What the settings of all image generators have."""

    kind: str = Field(description="Which class draws the images.", json_schema_extra=LATER)
    height: PositiveInt = Field(1024, multiple_of=8, description="Pixels.")
    width: PositiveInt = Field(1024, multiple_of=8, description="Pixels.")
    format: Literal["png", "webp", "jpeg"] = Field(
        "png", description="Image files; png and webp are lossless here, jpeg is not."
    )

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that draws."""
        return "diffusion"

    @property
    def megabytes(self) -> int:
        """The memory that a job asks for at first, most of it to load the model."""
        return 24000

    @property
    def drawn(self) -> list[tuple[float, int]]:
        """A prompt's candidates in their order: each one's guidance scale, and which of the samples
        at this scale it is, from 1 on.
        """
        raise NotImplementedError

    @property
    def scales(self) -> list[float]:
        """The guidance scales that there are, each once."""
        return list(dict.fromkeys(scale for scale, _ in self.drawn))

    def problem_with_files(self, folder: Path) -> str | None:
        """What a pipeline's folder lacks of its parts."""
        return problem_with_pipeline(folder)

    def check_before_run(self) -> None:
        """Looks at what is not on this machine and says what could not be drawn; it may ask the
        hub. Errors: UserError.
        """
