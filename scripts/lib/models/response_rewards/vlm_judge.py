"""A vision-language model as a judge: it sees the picture, reads question and answer in a rubric of
the configuration, and the score is the expected value of the rating that it would give.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from lib import weights
from lib.data.image_files import read_image
from lib.models.response_generators.base import Generator
from lib.models.response_generators.for_jobs import generator_settings
from lib.models.response_generators.registry import GENERATORS, Backend
from lib.models.response_generators.requests import Question, Sampling
from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.settings import ResponseRewardSettings

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

    class Settings(ResponseRewardSettings):
        """Any vision-language model with a chat template, asked to rate what it sees."""

        SEES_IMAGE: ClassVar[bool] = True

        kind: Literal["vlm-judge"] = Field(description="Which class rates the responses.")
        backend: Backend = Field(
            "transformers",
            description=(
                "What runs the model. transformers reads picture, question and answer once, vLLM"
                " once for each rating."
            ),
        )
        max_model_len: PositiveInt = Field(
            4096, description="vLLM: tokens of image, rubric, instruction and response together."
        )
        rubric: str = Field(
            RUBRIC,
            description=(
                "What the judge is asked about the picture, with `{instruction}` (what `template`"
                " makes of it) and `{response}`, and `{lowest}` and `{highest}`."
            ),
        )
        lowest: int = Field(1, ge=0, le=9, description="The worst rating.")
        highest: int = Field(5, ge=0, le=9, description="The best rating.")

        @property
        def environment(self) -> str:
            """That of the models that answer."""
            return "vllm"

        @field_validator("rubric")
        @classmethod
        def _rubric_is_usable(cls, rubric: str) -> str:
            if "{response}" not in rubric:
                raise ValueError(
                    "has no `{response}`: the judge would not know what to rate. Put it where the"
                    " response belongs"
                )
            if unknown := sorted(set(re.findall(r"\{(\w+)\}", rubric)) - set(WORDS)):
                known = ", ".join(f"`{{{word}}}`" for word in WORDS)
                raise ValueError(f"knows no `{{{unknown[0]}}}`. Known here: {known}")
            return rubric

        @model_validator(mode="after")
        def _can_judge(self) -> Self:
            if self.lowest >= self.highest:
                raise ValueError(
                    f"`highest` ({self.highest}) has to be above `lowest` ({self.lowest})"
                )
            folder = weights.local_folder(self.model, self.revision)
            config = weights.config_in(folder) if folder else {}
            if config and "vision_config" not in config:
                raise ValueError(
                    f"`model`: {self.model} is no vision-language model (its config.json has no"
                    " `vision_config`), and a judge has to see the picture. Take one that reads"
                    " pictures, or another `kind`"
                )
            return self

    def __init__(self, generator: Generator, settings: Settings) -> None:
        self.generator, self.settings = generator, settings

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Loads the model onto a device."""
        generator = GENERATORS.load(settings.backend).load(
            generator_settings(settings),
            device,
            Sampling(1, 0.0),
            with_images=True,
            batch_size=BATCH_SIZE,
        )
        return cls(generator, settings)

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The rewards of answers to one question each about an image, as one batch. Errors:
        ValueError for any other conversation.
        """
        settings = self.settings
        questions = [self._question(conversation) for conversation in conversations]
        ratings = [str(rating) for rating in range(settings.lowest, settings.highest + 1)]
        rows = self.generator.log_probabilities(questions, ratings)
        return [reward_of(dict(zip(ratings, row, strict=True))) for row in rows]

    def _question(self, conversation: Conversation) -> Question:
        if [turn["role"] for turn in conversation] != ["user", "assistant"]:
            raise ValueError("a judge rates one answer to one question")
        asked, answered = conversation
        if "image" not in asked:
            raise ValueError("a judge has to see the picture that the question is about")
        text = self.text_of(asked["content"], answered["content"])
        return Question(text, read_image(Path(asked["image"])))

    def text_of(self, instruction: str, response: str) -> str:
        """The rubric about a response, whatever stands in this."""
        words: Mapping[str, Any] = {
            "instruction": instruction,
            "response": response,
            "lowest": self.settings.lowest,
            "highest": self.settings.highest,
        }
        return re.sub(r"\{(\w+)\}", lambda match: str(words[match[1]]), self.settings.rubric)


def reward_of(log_probabilities: Mapping[str, float]) -> Reward:
    """The expected rating among those that can be given; `ratings`: their shares, which add up to
    1; `rating_probability`: how likely the judge answers with any of them at all.
    """
    most = max(log_probabilities.values())
    masses = {
        rating: math.exp(each - most) if math.isfinite(most) else math.nan
        for rating, each in log_probabilities.items()
    }
    whole = sum(masses.values())
    shares = {rating: mass / whole for rating, mass in masses.items()}
    if not math.isfinite(whole):
        return Reward(math.nan, {})
    score = sum(int(rating) * share for rating, share in shares.items())
    return Reward(score, {"ratings": shares, "rating_probability": whole * math.exp(most)})
