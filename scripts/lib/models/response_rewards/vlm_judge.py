"""A vision-language model as a judge: it sees the picture, reads question and answer in a rubric of
the configuration, and the score is the expected value of the rating that it would give.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.sighted import (
    SightedReward,
    SightedSettings,
    question_about,
    turns_of,
)
from lib.models.rubric import Scale, check_words, expected_rating, filled, shares_of

#: What a rubric may hold in braces.
WORDS = ("instruction", "response", "lowest", "highest")
RUBRIC = """\
Here is a picture, a question about it, and an answer. Look whether the picture shows what the \
answer says, and whether the question is answered.

Question: {instruction}

Answer: {response}

How good is the answer? Give one whole number from {lowest} (worst) to {highest} (best), and \
nothing else."""


class JudgeSettings(Scale):
    """What a judge is asked, and the ratings that it can give."""

    rubric: str = Field(
        RUBRIC,
        description=(
            "What the judge is asked about the picture, with `{instruction}` (what `template`"
            " makes of it) and `{response}`, and `{lowest}` and `{highest}`."
        ),
    )

    @field_validator("rubric")
    @classmethod
    def _rubric_is_usable(cls, rubric: str) -> str:
        return check_words(rubric, "response", WORDS)


class VlmJudge(SightedReward):
    """A loaded judge."""

    #: It is raised, too, where a generator's `log_probabilities` change.
    VERSION: ClassVar[int] = 1
    BATCH_SIZE: ClassVar[int] = 64

    class Settings(JudgeSettings, SightedSettings):
        """Any vision-language model with a chat template, asked to rate what it sees."""

        kind: Literal["vlm-judge"] = Field(description="Which class rates the responses.")

    settings: Settings

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The rewards of answers to one question each about an image, as one batch. Errors:
        ValueError for any other conversation.
        """
        settings, ratings = self.settings, self.settings.ratings
        questions = []
        for instruction, response, picture in map(turns_of, conversations):
            text = rubric_about(settings, instruction, response)
            questions.append(question_about(picture, text))
        rows = self.generator.log_probabilities(questions, ratings)
        return [reward_of(dict(zip(ratings, row, strict=True))) for row in rows]


def rubric_about(settings: JudgeSettings, instruction: str, response: str) -> str:
    """The rubric about a response."""
    words = {"instruction": instruction, "response": response}
    return filled(settings.rubric, **words, lowest=settings.lowest, highest=settings.highest)


def reward_of(log_probabilities: Mapping[str, float]) -> Reward:
    """The expected rating among those that can be given; `ratings`: their shares, which add up to
    1; `rating_probability`: how likely the judge answers with any of them at all.
    """
    told = shares_of(log_probabilities)
    if told is None:
        return Reward(math.nan, {})
    shares, probability = told
    return Reward(expected_rating(shares), {"ratings": shares, "rating_probability": probability})
