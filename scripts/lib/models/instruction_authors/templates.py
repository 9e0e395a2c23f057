"""Instructions drawn from templates that users wrote, for all prompts."""

import unicodedata
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from lib.blocks import NO_EFFECT
from lib.models.instruction_authors.checks import problem_with_template
from lib.models.instruction_authors.settings import InstructionAuthorSettings


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
                if template in self.templates[: number - 1]:
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
