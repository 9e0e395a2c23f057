"""Answers that users have: of people, or of a model that ran elsewhere.

A line of the file is `{"prompt": "<its text>", "response": "..."}` or `{"id": "<prompt id>",
"response": "..."}`; where it stands means nothing, but for the order of several answers to one
prompt. With `image` (a picture's sha256) or `instruction` it answers about these only. The rows
that this workflow publishes of responses are such lines.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, NotRequired, TypedDict

from pydantic import Field, field_validator

from lib.blocks import NO_EFFECT, UserPath
from lib.data.prompt_lines import PromptLine, PromptLines
from lib.data.prompts import Prompt
from lib.data.rows import InstructionRow
from lib.data.texts import SPECIAL_TOKEN, control_character_in, visible
from lib.errors import ItemError, UserError
from lib.jobs.job import Job
from lib.jobs.streams import in_batches, inputs_of
from lib.models.policy_models.base import Answerer
from lib.models.policy_models.settings import (
    PolicyModelSettings,
    ResponseSettings,
    backend_field,
)
from lib.models.response_generators.for_jobs import GeneratedText


class WrittenAnswer(TypedDict):
    """An answer of the file; `image`, `instruction`: what it answers, where it says so."""

    response: str
    finish_reason: str
    image: NotRequired[str]
    instruction: NotRequired[str]


class AnswerFile:
    """Takes the answers of a file."""

    VERSION: ClassVar[int] = 1

    class Settings(PolicyModelSettings):
        """Answers from a file; `samples` of them for each prompt."""

        backend: Literal["file"] = backend_field("file")
        file: UserPath = Field(
            description=(
                "JSON lines, each with `prompt` (its text) or `id`, and `response`; with `image`"
                " (sha256) or `instruction`, if it is to serve these only."
            ),
            json_schema_extra=NO_EFFECT,
        )

        @property
        def source(self) -> tuple[str, ...]:
            """The file."""
            return (str(Path(self.file).resolve()),)

        def read_written(self, prompts: Iterable[Prompt]) -> dict[str, list[WrittenAnswer]]:
            """The file's answers by prompt id, at least one for each prompt."""
            return read_answer_file(Path(self.file), prompts, self.samples)

        @field_validator("file")
        @classmethod
        def _file_exists(cls, file: str) -> str:
            if not Path(file).is_file():
                raise ValueError(f"there is no file '{file}'. Correct the path")
            return file

    def __init__(
        self,
        settings: Settings,
        responses: ResponseSettings,
        job: Job[Any],
        written: Mapping[str, Sequence[WrittenAnswer]],
    ) -> None:
        self.written, self.file = written, settings.file

    def prepare(
        self, row: InstructionRow, sample: int
    ) -> tuple[dict[str, Any], GeneratedText | ItemError]:
        """The answer to a prompt's instruction about its picked image, or that there is none."""
        fit = [answer for answer in self.written[row["id"]] if _answers(answer, row)]
        if len(fit) < sample:
            decides = {"image": row["image"]["sha256"], "instruction": row["instruction"]}
            problem = ItemError(
                f"{self.file} has {len(fit) or 'no'} answer(s) to this instruction about this"
                " picture"
            )
            return {**decides, "lacking": sample}, problem
        text, finish_reason = fit[sample - 1]["response"], fit[sample - 1]["finish_reason"]
        decides = {"response": text, "finish_reason": finish_reason}
        return decides, {"text": text, "finish_reason": finish_reason}

    def at_work(self) -> AbstractContextManager[Answerer[GeneratedText | ItemError]]:
        """Loads nothing."""
        return nullcontext(in_batches(inputs_of, 1))


def _answers(answer: WrittenAnswer, row: InstructionRow) -> bool:
    """Whether an answer is one to a row's instruction about its picture."""
    return (
        answer.get("image", row["image"]["sha256"]) == row["image"]["sha256"]
        and answer.get("instruction", row["instruction"]) == row["instruction"]
    )


def read_answer_file(
    path: Path, prompts: Iterable[Prompt], samples: int
) -> dict[str, list[WrittenAnswer]]:
    """The answers of a file by prompt id, in their order, `samples` at least for each prompt, and
    at most for each picture and instruction that lines name.

    Whatever does not fit (not JSON, an unknown prompt, an answer too many or too few, one that
    cannot be used) is a UserError that names file and line.
    """
    lines = PromptLines(path, prompts, "response")
    answers: dict[str, list[WrittenAnswer]] = {}
    for line in lines:
        answer = _answer_of(line)
        known = answers.setdefault(line.prompt.id, [])
        known.append(answer)
        alike = [each for each in known if _asked(each) == _asked(answer)]
        if len(alike) > samples:
            raise UserError(
                f"{line.where}: answer {len(alike)} to prompt {line.prompt.id}, and `samples` is"
                f" {samples}. Delete one, or say `samples: {len(alike)}`."
            )
    lines.refuse_lacking(answers)
    for name, known in answers.items():
        if len(known) < samples:
            raise UserError(
                f"{path}: has {len(known)} line(s) for prompt {name}, and `samples` is {samples}."
                " Add what is missing, or lower `samples`."
            )
    return answers


def _asked(answer: WrittenAnswer) -> tuple[str | None, str | None]:
    return answer.get("image"), answer.get("instruction")


def _answer_of(line: PromptLine) -> WrittenAnswer:
    entry = line.entry
    text = unicodedata.normalize("NFC", entry["response"].replace("\r\n", "\n").strip())
    if problem := _problem_with(text):
        raise UserError(f"{line.where}: the response cannot be used: {problem}. Correct it.")
    answer: WrittenAnswer = {"response": text, "finish_reason": "stop"}
    # A row that was published has more of its image.
    image = entry.get("image")
    image = image.get("sha256") if isinstance(image, Mapping) else image
    told = {"image": image, "instruction": entry.get("instruction")}
    told |= {"finish_reason": entry.get("finish_reason")}
    for key, value in told.items():
        if value is not None and not isinstance(value, str):
            raise UserError(f"{line.where}: `{key}` is not a text. Correct it, or take it out.")
    return answer | {key: value for key, value in told.items() if value is not None}  # type: ignore[return-value]


def _problem_with(text: str) -> str | None:
    """What is wrong with a response that a user has; None for a good one."""
    if not visible(text):
        return "it is empty"
    if token := SPECIAL_TOKEN.search(text):
        return f"it holds the special token '{token[0]}'"
    if control := control_character_in(text):
        return f"it holds {control}"
    return None
