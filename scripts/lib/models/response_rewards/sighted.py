"""What rewards share that ask a vision-language model about the picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from lib.data.image_files import read_image
from lib.models.response_generators.base import Generator
from lib.models.response_generators.for_jobs import generator_settings
from lib.models.response_generators.registry import GENERATORS, Backend
from lib.models.response_generators.requests import Question, Sampling
from lib.models.response_generators.settings import is_blind, problem_with_gpus
from lib.models.response_rewards.base import Conversation
from lib.models.response_rewards.settings import LocalRewardSettings


class SightedSettings(LocalRewardSettings):
    """A vision-language model with a chat template, and what runs it."""

    SEES_IMAGE: ClassVar[bool] = True

    backend: Backend = Field(
        "transformers",
        description=(
            "What runs the model. transformers reads picture and words once, vLLM once for each"
            " answer that is asked for."
        ),
    )
    max_model_len: PositiveInt = Field(
        4096, description="vLLM: tokens of image and words together."
    )

    @property
    def environment(self) -> str:
        """That of the models that answer."""
        return "vllm"

    @model_validator(mode="before")
    @classmethod
    def _runs_in_the_job(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and (
            "endpoint" in values or values.get("backend") == "openai"
        ):
            kind = values.get("kind")
            raise ValueError(
                f"`kind: {kind}` runs its model in the job. One at an endpoint is `kind:"
                f" {kind}-endpoint`, with `endpoint` and without `model` and `backend`"
            )
        return values

    @model_validator(mode="after")
    def _sees(self) -> Self:
        if is_blind(self):
            raise ValueError(
                f"`model`: {self.model} is no vision-language model (its config.json has no"
                " `vision_config`), and it has to see the picture. Take one that reads pictures,"
                " or another `kind`"
            )
        if problem := problem_with_gpus(self, self.backend, self.gpus):
            raise ValueError(f"`gpus`: {problem}")
        return self


class SightedReward:
    """A loaded model that is asked about pictures."""

    #: The most questions that it is asked at once.
    BATCH_SIZE: ClassVar[int]

    def __init__(self, generator: Generator, settings: Any) -> None:
        self.generator, self.settings = generator, settings

    @classmethod
    def load(cls, settings: SightedSettings, device: str) -> Self:
        """Loads the model onto a device."""
        generator = GENERATORS.load(settings.backend).load(
            generator_settings(settings),
            device,
            Sampling(1, 0.0),
            with_images=True,
            batch_size=cls.BATCH_SIZE,
        )
        return cls(generator, settings)


def turns_of(conversation: Conversation) -> tuple[str, str, Path]:
    """Question, answer and the picture's file. Errors: ValueError for any other conversation."""
    if [turn["role"] for turn in conversation] != ["user", "assistant"]:
        raise ValueError("one answer to one question is what can be rated here")
    asked, answered = conversation
    if "image" not in asked:
        raise ValueError("this reward has to see the picture that the question is about")
    return asked["content"], answered["content"], Path(asked["image"])


def question_about(picture: Path, text: str) -> Question:
    """A question about a picture's file."""
    return Question(text, read_image(picture))
