"""Instructions drawn from templates that users wrote, for all prompts."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from lib.blocks import NO_EFFECT
from lib.data.prompts import Prompt, seed_of
from lib.data.rows import PickedRow
from lib.data.texts import visible
from lib.errors import UserError
from lib.jobs.job import Job
from lib.jobs.streams import in_batches, inputs_of
from lib.models.instruction_authors.base import Writer, WrittenInstruction
from lib.models.instruction_authors.checks import problem_with
from lib.models.instruction_authors.settings import InstructionAuthorSettings

#: Where a template's text has something filled in, or seems to.
PLACEHOLDER = re.compile(r"\{\s*\w*\s*\}")


class Templates:
    """Draws a template for each prompt; no LLM is asked."""

    VERSION: ClassVar[int] = 1

    class Settings(InstructionAuthorSettings):
        """Stage instructions from templates."""

        backend: Literal["template"] = Field(description="Who writes.", json_schema_extra=NO_EFFECT)
        templates: list[str] = Field(
            description=(
                "The instructions, of which one is drawn for each prompt with the run's seed."
                " `{prompt}` stands for the text-to-image prompt, where an instruction is to have"
                " it."
            )
        )

        def read_written(self, prompts: Iterable[Prompt]) -> dict[str, str]:
            """Nothing: the templates serve all prompts. Errors: UserError for a prompt that does
            not fit into one.
            """
            check_prompts_for_templates(self.templates, prompts)
            return {}

        @field_validator("templates")
        @classmethod
        def _as_prompts_are(cls, templates: list[str]) -> list[str]:
            return [unicodedata.normalize("NFC", template.strip()) for template in templates]

        @model_validator(mode="after")
        def _templates_are_usable(self) -> Self:
            if not self.templates:
                raise ValueError(
                    "`templates` is an empty list: no prompt would get an instruction. Add a text,"
                    " or take the key away"
                )
            for number, template in enumerate(self.templates, start=1):
                if visible(template) in map(visible, self.templates[: number - 1]):
                    raise ValueError(
                        f"`templates`: the text {template[:60]!r} stands there twice. Delete one"
                    )
                if problem := problem_with_template(template, self.require_question):
                    is_statement = "no question mark" in problem
                    mend = "Add one, or set `require_question: false`"
                    raise ValueError(
                        f"`templates`: text {number} ({template[:60]!r}) cannot be used:"
                        f" {problem}. {mend if is_statement else 'Correct it'}"
                    )
            return self

    def __init__(self, settings: Settings, job: Job[Any], written: Mapping[str, str]) -> None:
        self.templates = settings.templates
        self.seed = job.seed

    def prepare(self, row: PickedRow) -> tuple[dict[str, Any], WrittenInstruction]:
        """The template that is drawn for a prompt, and the instruction that it makes."""
        prompt = Prompt(row["topic"], row["prompt"])
        template, instruction = from_template(self.templates, self.seed, prompt)
        # The other templates and the seed are not part of the key: they decided which template it
        # is, and nothing more.
        decides = {"prompt": row["prompt"], "template": template}
        return decides, {"instruction": instruction, "template": template}

    def at_work(self) -> AbstractContextManager[Writer[WrittenInstruction]]:
        """Loads nothing."""
        return nullcontext(in_batches(inputs_of, 1))


def problem_with_template(template: str, require_question: bool) -> str | None:
    """What is wrong with a template of `instructions.templates`; None for a good one."""
    unknown = [name for name in PLACEHOLDER.findall(template) if name != "{prompt}"]
    if unknown:
        return f"it has `{unknown[0]}`, which nothing fills in: only `{{prompt}}` is filled in"
    return problem_with(template, require_question)


def from_template(templates: Sequence[str], seed: int, prompt: Prompt) -> tuple[str, str]:
    """The template that is drawn for a prompt, each with equal chance, and the instruction that it
    makes.

    Each template gets its own seeded draw: adding, editing or taking away one changes no prompt but
    those that it is drawn for, and their order means nothing. `seed`: the run's.
    """
    template = min(templates, key=lambda text: (seed_of(seed, "template", prompt.id, text), text))
    return template, template.replace("{prompt}", prompt.text)


def check_prompts_for_templates(templates: Sequence[str], prompts: Iterable[Prompt]) -> None:
    """Refuses a prompt whose text makes an instruction unusable where a template has it filled in.
    Errors: UserError.
    """
    filled_in = [template for template in templates if "{prompt}" in template]
    for prompt in prompts if filled_in else ():
        for template in filled_in:
            # The template itself passed; its question mark is its own.
            if problem := problem_with(
                template.replace("{prompt}", prompt.text), require_question=False
            ):
                raise UserError(
                    f"instructions.templates: prompt {prompt.id} cannot be filled in for"
                    f" `{{prompt}}` of {template[:60]!r}: {problem}. Change the prompt in its file"
                    f" ({prompt.topic}.txt), or write templates without `{{prompt}}`."
                )
