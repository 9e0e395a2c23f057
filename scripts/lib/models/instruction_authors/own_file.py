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
from lib.data.prompts import Prompt
from lib.data.rows import PickedRow
from lib.data.texts import visible
from lib.errors import UserError
from lib.files import STRICT_JSON
from lib.jobs.job import Job
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
        self.batch_size = 1

    def prepare(self, row: PickedRow) -> tuple[dict[str, Any], WrittenInstruction]:
        """The instruction of a prompt."""
        instruction = self.written[row["id"]]
        decides = {"prompt": row["prompt"], "instruction": instruction}
        return decides, {"instruction": instruction}

    def at_work(self) -> AbstractContextManager[Writer[WrittenInstruction]]:
        """Loads nothing."""
        return nullcontext(list)


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
    reader = _Reader(prompts, require_question)
    for number, line in enumerate(_lines_of(path), start=1):
        if line.strip():
            reader.add(line, number, f"{path}, line {number}")
    if lacking := reader.lacking():
        shown = "\n".join(f"  {prompt.id}: {prompt.text}" for prompt in lacking[:5])
        raise UserError(
            f"{path}: has no line for {len(lacking)} of {len(reader.by_id)} prompts. Add one for"
            f" each; the first are:\n{shown}"
        )
    return reader.instructions


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file. Correct `instructions.file`.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8. Save the file as UTF-8, e.g. `iconv -f latin1 -t utf-8`."
        ) from error


class _Reader:
    """Collects the instructions of a file by prompt id."""

    def __init__(self, prompts: Iterable[Prompt], require_question: bool) -> None:
        self.by_id = {prompt.id: prompt for prompt in prompts}
        self.by_text = {visible(prompt.text): prompt for prompt in self.by_id.values()}
        self.require_question = require_question
        self.instructions: dict[str, str] = {}
        self.line_of: dict[str, int] = {}

    def lacking(self) -> list[Prompt]:
        """The prompts that have no instruction yet."""
        return [prompt for prompt in self.by_id.values() if prompt.id not in self.instructions]

    def add(self, line: str, number: int, where: str) -> None:
        """Takes the instruction of a line. `where`: the file and the line, for messages."""
        entry = _entry_of(line, where)
        prompt = self._prompt_of(entry, where)
        if prompt.id in self.instructions:
            raise UserError(
                f"{where}: a second instruction for prompt {prompt.id}; the first is on line"
                f" {self.line_of[prompt.id]}. Delete one."
            )
        instruction = unicodedata.normalize("NFC", entry["instruction"].strip())
        if problem := problem_with(instruction, self.require_question):
            mend = (
                "Delete it: the workflow adds the image itself."
                if "<image>" in problem
                else "Correct it."
            )
            raise UserError(f"{where}: the instruction cannot be used: {problem}. {mend}")
        self.instructions[prompt.id] = instruction
        self.line_of[prompt.id] = number

    def _prompt_of(self, entry: Mapping[str, Any], where: str) -> Prompt:
        """The prompt that a line names by `prompt` or `id`; if by both, they must agree."""
        named = []
        for key, known in (("prompt", self.by_text), ("id", self.by_id)):
            if key not in entry:
                continue
            prompt = _named(entry[key], known)
            if prompt is None:
                raise UserError(
                    f"{where}: there is no prompt with {key} {entry[key]!r}. Correct the line, or"
                    " delete it."
                )
            named.append(prompt)
        if not named:
            raise UserError(f"{where}: names no prompt. Add `prompt` (its text) or `id`.")
        if len(set(named)) > 1:
            raise UserError(
                f"{where}: `prompt` is {named[0].id}, but `id` says {named[1].id}. Correct one of"
                " them."
            )
        return named[0]


def _entry_of(line: str, where: str) -> dict[str, Any]:
    """A line's JSON object, which has an instruction."""
    try:
        entry = STRICT_JSON.decode(line)
    except ValueError as error:
        raise UserError(
            f"{where}: not valid JSON ({error}). Write one JSON object a line."
        ) from error
    if not isinstance(entry, dict) or not isinstance(entry.get("instruction"), str):
        raise UserError(f"{where}: has no text under `instruction`. Add it.")
    return entry


def _named(name: Any, known: Mapping[str, Prompt]) -> Prompt | None:
    if not isinstance(name, str):
        return None
    return known.get(visible(name))
