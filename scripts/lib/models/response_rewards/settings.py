"""What the settings of all response rewards have."""

import re
from typing import ClassVar

from pydantic import Field, PositiveInt, field_validator

from lib.blocks import LATER, NO_EFFECT, Block, Model, gpus_field


class ResponseRewardSettings(Block):
    """What the settings of all response rewards have."""

    #: Whether the picture is part of what is rated: only then is it in the conversations.
    SEES_IMAGE: ClassVar[bool] = False

    kind: str = Field(description="Which class rates the responses.", json_schema_extra=LATER)
    # What it makes of a prompt is in the conversations, and these are in the key.
    template: str = Field(
        "{instruction}",
        description=(
            "What the reward model reads as the user's words, with `{instruction}`. One that cannot"
            " see the image is told by `{prompt}` what it was to show, which the policy models are"
            " not."
        ),
        json_schema_extra=NO_EFFECT,
    )
    # Only the valid responses are in the key.
    max_repeats: PositiveInt = Field(
        5,
        description=(
            "A response that says the same words this often in a row is endlessly repeating, and"
            " invalid."
        ),
        json_schema_extra=NO_EFFECT,
    )

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that rates."""
        return "rewards"

    @property
    def needs_gpu(self) -> bool:
        """Whether a model runs in the job itself."""
        return True

    @property
    def items_at_once(self) -> int:
        """How many prompts' responses are rated at the same time."""
        return 1

    @field_validator("template")
    @classmethod
    def _template_is_usable(cls, template: str) -> str:
        if "{instruction}" not in template:
            raise ValueError(
                "has no `{instruction}`: the reward model would not know what was asked. Put it"
                " where the instruction belongs"
            )
        if unknown := sorted(set(re.findall(r"\{\w+\}", template)) - {"{instruction}", "{prompt}"}):
            raise ValueError(
                f"knows no `{unknown[0]}`. Known here: `{{instruction}}`, `{{prompt}}`"
            )
        return template


class LocalRewardSettings(ResponseRewardSettings, Model):
    """A model that runs in the job."""

    gpus: PositiveInt = gpus_field()
