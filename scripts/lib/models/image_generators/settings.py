"""What the settings of all sources of images have, and those of image generators."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from lib.blocks import LATER, Block, Model
from lib.data.prompts import Prompt
from lib.model_files import problem_with_pipeline


class ImageGeneratorSettings(Block):
    """What the settings of all sources of images have."""

    #: Whether a model draws the images: they then have guidance scales and seeds.
    IS_DRAWN: ClassVar[bool] = False

    kind: str = Field(description="Which class draws the images.", json_schema_extra=LATER)

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that makes the images."""
        return "workflow"

    @property
    def megabytes(self) -> int:
        """The memory that a job asks for at first, most of it to load the model."""
        return 4000

    @property
    def images_per_prompt(self) -> int:
        """How many candidates a prompt has, as far as it is known before the run."""
        raise NotImplementedError

    @property
    def drawn(self) -> list[tuple[float, int]]:
        """A prompt's candidates in their order: each one's guidance scale, and which of the samples
        at this scale it is, from 1 on; none where no model draws them.
        """
        return []

    @property
    def scales(self) -> list[float]:
        """The guidance scales that there are, each once."""
        return list(dict.fromkeys(scale for scale, _ in self.drawn))

    def check_before_run(self) -> None:
        """Looks at what is not on this machine and says what could not be drawn; it may ask the
        hub. Errors: UserError.
        """

    def read_pictures(self, prompts: Iterable[Prompt]) -> dict[str, list[Any]] | None:
        """The pictures that the user has, by prompt id; None where a model draws them. Errors:
        UserError where that cannot be told.
        """
        return None


class DrawnImageSettings(ImageGeneratorSettings, Model):
    """What the settings of image generators have that run a model."""

    IS_DRAWN: ClassVar[bool] = True

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
    def images_per_prompt(self) -> int:
        """One for each guidance scale and sample."""
        return len(self.drawn)

    def problem_with_files(self, folder: Path) -> str | None:
        """What a pipeline's folder lacks of its parts."""
        return problem_with_pipeline(folder)
