"""What LLMs that write instructions share: how they are asked, and that what they answer is checked."""

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from lib.blocks import NO_EFFECT
from lib.models.instruction_authors.settings import InstructionAuthorSettings

INSTRUCTION_TEMPLATE = """\
Below is the description from which an image was made. Write one question about the image that can \
be answered by looking at it, and that asks for a detailed answer about its objects, their number, \
colours, positions or actions. Do not mention the description. Answer with the question only.

Description: {prompt}"""


class LLMSettings(InstructionAuthorSettings):
    """How an LLM is asked."""

    template: str = Field(
        INSTRUCTION_TEMPLATE,
        description="What the LLM is asked; `{prompt}` stands for the text-to-image prompt.",
    )
    max_new_tokens: PositiveInt = Field(200, description="Length limit of an instruction.")
    temperature: float = Field(0.7, ge=0, description="0 is greedy.")
    # Raising it asks again for those that failed, and for no other.
    max_attempts: PositiveInt = Field(
        3,
        description=(
            "An instruction that fails the checks is asked for again, up to so many times in all."
        ),
        json_schema_extra=NO_EFFECT,
    )

    @model_validator(mode="after")
    def _asks_about_the_prompt(self) -> Self:
        if "{prompt}" not in self.template:
            raise ValueError(
                "`template` has no `{prompt}`: the instruction would be about nothing. Put"
                " `{prompt}` where the prompt belongs"
            )
        return self
