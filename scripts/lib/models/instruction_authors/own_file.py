"""Instructions that users wrote themselves, one for each prompt.

A line of the file is `{"prompt": "<its text>", "instruction": "..."}` or `{"id": "<prompt id>",
"instruction": "..."}`; where it stands means nothing.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lib.blocks import NO_EFFECT, UserPath
from lib.data.prompt_lines import PromptLine, PromptLines
from lib.data.prompts import Prompt
from lib.data.rows import PickedRow
from lib.errors import UserError
from lib.jobs.job import Job
from lib.jobs.streams import in_batches, inputs_of
from lib.models.instruction_authors.base import Writer, WrittenInstruction
from lib.models.instruction_authors.checks import problem_with
from lib.models.instruction_authors.settings import InstructionAuthorSettings


class InstructionFile:
    """Takes the instructions of a file."""

    VERSION: ClassVar[int] = 1

    class Settings(InstructionAuthorSettings):
        """Stage instructions from a file."""

        backend: Literal["file"] = Field(description="Who writes.", json_schema_extra=NO_EFFECT)
        file: UserPath = Field(
            description="JSON lines, each with `prompt` (its text) or `id`, and `instruction`."
        )

        def read_written(self, prompts: Iterable[Prompt]) -> dict[str, str]:
            """The file's instructions by prompt id, one for each prompt."""
            return read_instruction_file(Path(self.file), prompts, self.require_question)

        @model_validator(mode="after")
        def _file_exists(self) -> Self:
            if not Path(self.file).is_file():
                raise ValueError(f"`file`: there is no file '{self.file}'. Correct the path")
            return self

    def __init__(self, settings: Settings, job: Job[Any], written: Mapping[str, str]) -> None:
        self.written = written

    def prepare(self, row: PickedRow) -> tuple[dict[str, Any], WrittenInstruction]:
        """The instruction of a prompt."""
        instruction = self.written[row["id"]]
        decides = {"prompt": row["prompt"], "instruction": instruction}
        return decides, {"instruction": instruction}

    def at_work(self) -> AbstractContextManager[Writer[WrittenInstruction]]:
        """Loads nothing."""
        return nullcontext(in_batches(inputs_of, 1))


def read_instruction_file(
    path: Path, prompts: Iterable[Prompt], require_question: bool
) -> dict[str, str]:
    """The instructions of a file by prompt id, one for each prompt.

    Whatever does not fit (not JSON, an unknown prompt, a second line for one prompt, a prompt
    without a line, an instruction that fails the checks) is a UserError that names file and line.

    Args:
        path: the file, UTF-8.
        prompts: all prompts of the run.
        require_question: refuse instructions without a question mark.
    """
    lines = PromptLines(path, prompts, "instruction")
    instructions: dict[str, str] = {}
    line_of: dict[str, int] = {}
    for line in lines:
        name = line.prompt.id
        if name in instructions:
            raise UserError(
                f"{line.where}: a second instruction for prompt {name}; the first is on line"
                f" {line_of[name]}. Delete one."
            )
        instructions[name] = _usable(line, require_question)
        line_of[name] = line.number
    lines.refuse_lacking(instructions)
    return instructions


def _usable(line: PromptLine, require_question: bool) -> str:
    """The instruction of a line. Errors: UserError where it fails the checks."""
    instruction = unicodedata.normalize("NFC", line.entry["instruction"].strip())
    if problem := problem_with(instruction, require_question):
        mend = (
            "Delete it: the workflow adds the image itself."
            if "<image>" in problem
            else "Correct it."
        )
        raise UserError(f"{line.where}: the instruction cannot be used: {problem}. {mend}")
    return instruction
