"""Prompts that an LLM writes (target `prompts`)."""

from typing import Annotated, Any, Self

from pydantic import (
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    WrapValidator,
    model_validator,
)

from lib.blocks import Block, Endpoint, Fraction
from lib.data.prompts import TOPIC

Topic = Annotated[str, StringConstraints(pattern=rf"^{TOPIC}$")]

PROMPT_TEMPLATE = """\
Write {count} descriptions of images on the topic "{topic}", for a text-to-image model. Each is \
one English sentence of {min_words} to {max_words} words about one specific scene, with objects, \
their number, colours, positions and actions that a question can be asked about. Vary places, \
people, times and points of view. Answer with the descriptions only, one a line, without numbers \
or quotation marks.

These are there already; write others:
{examples}"""


def _count(value: Any, validate: Any) -> Any:
    """One message where it is neither a number nor numbers by topic, instead of one for each."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            "give a whole number above 0 for all topics, or one for each (`{art: 500}`)"
        ) from None


class GeneratePrompts(Block):
    """Target `prompts`: an LLM writes what a topic's file lacks, which is added below the lines
    that are there.
    """

    count: Annotated[PositiveInt | dict[Topic, PositiveInt], WrapValidator(_count)] = Field(
        default_factory=dict,
        description=(
            "How many prompts each topic is to have, those of your own included: one number for"
            " all topics, or topic -> number."
        ),
    )
    endpoint: Endpoint | None = Field(
        None, description="Who writes; without it, `instructions.endpoint` does."
    )
    max_similarity: Fraction = Field(
        0.5,
        description=(
            "A proposal at least this similar to a prompt (Jaccard of word 3-shingles) is dropped."
        ),
    )
    min_words: PositiveInt = Field(15, description="Shorter proposals are dropped.")
    max_words: PositiveInt = Field(40, description="Longer proposals are dropped.")
    template: str = Field(
        PROMPT_TEMPLATE,
        description=(
            "What the LLM is asked; `{count}`, `{topic}`, `{min_words}`, `{max_words}` and"
            " `{examples}` are filled in."
        ),
    )
    temperature: float = Field(1.0, ge=0, description="0 is greedy.")

    def wanted(self, topic: str) -> int:
        """How many prompts a topic is to have; 0 where that is not said."""
        return self.count.get(topic, 0) if isinstance(self.count, dict) else self.count

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(
                f"`min_words` ({self.min_words}) is more than `max_words` ({self.max_words})"
            )
        if "{topic}" not in self.template or "{count}" not in self.template:
            raise ValueError("`template` needs both `{topic}` and `{count}`")
        return self

    def for_topic(self, topic: str, endpoint: Endpoint | None) -> Self:
        """The settings of one topic: its own count alone. `endpoint`: who writes where none is
        configured here.
        """
        wanted = self.wanted(topic)
        return self.model_copy(
            update={
                "count": {topic: wanted} if wanted else {},
                "endpoint": self.endpoint or endpoint,
            }
        )


class GeneratePromptsJob(Block):
    """What rule generate_prompts is told of one topic (`GeneratePrompts.for_topic`), and the topics
    whose prompts the proposals are compared with.
    """

    proposals: GeneratePrompts
    topics: list[Topic]
    max_prompt_characters: PositiveInt


class AddPromptsJob(Block):
    """What rule add_prompts is told: how many prompts the topics that lack some are to have, in the
    configured order, where the files of all topics are, and what a prompt has to be.
    """

    wanted: dict[Topic, PositiveInt]
    files: dict[Topic, str]
    min_words: PositiveInt
    max_words: PositiveInt
    max_similarity: Fraction
    max_prompt_characters: PositiveInt
