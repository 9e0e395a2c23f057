"""Instructions that users wrote themselves, one for each prompt."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lib.blocks import NO_EFFECT
from lib.models.instruction_authors.settings import InstructionAuthorSettings


class InstructionFile:
    """Reads a file of instructions."""

    VERSION: ClassVar[int] = 1

    class Settings(InstructionAuthorSettings):
        """Stage instructions from a file."""

        backend: Literal["file"] = Field(description="Who writes.", json_schema_extra=NO_EFFECT)
        file: str = Field(
            description="JSON lines, each with `prompt` (its text) or `id`, and `instruction`."
        )

        @model_validator(mode="after")
        def _file_exists(self) -> Self:
            if not Path(self.file).is_file():
                raise ValueError(f"`file`: there is no file '{self.file}'. Correct the path")
            return self
