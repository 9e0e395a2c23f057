"""A vision-language model as a judge: it sees the picture, reads question and answer in a rubric of
the configuration, and the score is the expected value of the rating that it would give.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from lib.models.response_generators.base import Generator
from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.sighted import (
    SightedSettings,
    check_words,
    filled,
    load_generator,
    question_about,
    turns_of,
)

#: What a rubric may hold in braces.
WORDS = ("instruction", "response", "lowest", "highest")
RUBRIC = """\
Here is a picture, a question about it, and an answer. Look whether the picture shows what the \
answer says, and whether the question is answered.

Question: {instruction}

Answer: {response}

How good is the answer? Give one whole number from {lowest} (worst) to {highest} (best), and \
nothing else."""
#: The most answers that are judged at once.
BATCH_SIZE = 64


class VlmJudge:
    """A loaded judge."""

    #: It is raised, too, where a generator's `log_probabilities` change.
    VERSION: ClassVar[int] = 1

    class Settings(SightedSettings):
        """Any vision-language model with a chat template, asked to rate what it sees."""

        kind: Literal["vlm-judge"] = Field(description="Which class rates the responses.")
        rubric: str = Field(
            RUBRIC,
            description=(
                "What the judge is asked about the picture, with `{instruction}` (what `template`"
                " makes of it) and `{response}`, and `{lowest}` and `{highest}`."
            ),
        )
        lowest: int = Field(1, ge=0, le=9, description="The worst rating.")
        highest: int = Field(5, ge=0, le=9, description="The best rating.")

        @field_validator("rubric")
        @classmethod
        def _rubric_is_usable(cls, rubric: str) -> str:
            return check_words(rubric, "response", WORDS)

        @model_validator(mode="after")
        def _ratings_differ(self) -> Self:
            if self.lowest >= self.highest:
                raise ValueError(
                    f"`highest` ({self.highest}) has to be above `lowest` ({self.lowest})"
                )
            return self

    def __init__(self, generator: Generator, settings: Settings) -> None:
        self.generator, self.settings = generator, settings

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Loads the model onto a device."""
        return cls(load_generator(settings, device, BATCH_SIZE), settings)

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The rewards of answers to one question each about an image, as one batch. Errors:
        ValueError for any other conversation.
        """
        settings = self.settings
        questions = []
        for instruction, response, picture in map(turns_of, conversations):
            questions.append(question_about(picture, self.text_of(instruction, response)))
        ratings = [str(rating) for rating in range(settings.lowest, settings.highest + 1)]
        rows = self.generator.log_probabilities(questions, ratings)
        return [reward_of(dict(zip(ratings, row, strict=True))) for row in rows]

    def text_of(self, instruction: str, response: str) -> str:
        """The rubric about a response."""
        lowest, highest = self.settings.lowest, self.settings.highest
        words = {"instruction": instruction, "response": response}
        return filled(self.settings.rubric, **words, lowest=lowest, highest=highest)


def reward_of(log_probabilities: Mapping[str, float]) -> Reward:
    """The expected rating among those that can be given; `ratings`: their shares, which add up to
    1; `rating_probability`: how likely the judge answers with any of them at all.
    """
    most = max(log_probabilities.values())
    if not all(each < math.inf for each in log_probabilities.values()) or most == -math.inf:
        return Reward(math.nan, {})
    masses = {rating: math.exp(each - most) for rating, each in log_probabilities.items()}
    whole = sum(masses.values())
    shares = {rating: mass / whole for rating, mass in masses.items()}
    score = sum(int(rating) * share for rating, share in shares.items())
    return Reward(score, {"ratings": shares, "rating_probability": whole * math.exp(most)})
