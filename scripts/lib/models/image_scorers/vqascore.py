"""VQAScore: the probability that a vision-language model answers "Yes" when it is asked whether the
image shows the prompt.

Source: Lin et al. 2024, arXiv:2404.01291.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from lib.blocks import DType, dtype_field, gpus_field
from lib.models.image_scorers.settings import LocalScorerSettings
from lib.models.response_generators.registry import GENERATORS, Backend
from lib.models.response_generators.requests import Question, Sampling
from lib.models.response_generators.settings import problem_with_gpus

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib.models.response_generators.base import Generator

MARK = "{prompt}"
#: So many questions at once are room for a prompt's candidates.
BATCH = 8


class VQAScore:
    """Asks a model that answers about pictures, in its own chat template, and reads how likely it
    finds one answer. The whole prompt is read; what in it is a special token of the model's is
    text, with a blank inside.
    """

    VERSION: ClassVar[int] = 1

    class Settings(LocalScorerSettings):
        """Any vision-language model that a policy model may be; a score is its probability of the
        answer "Yes".
        """

        kind: Literal["vqascore"] = Field(description="Architecture and formula.")
        dtype: DType = dtype_field()
        backend: Backend = Field(  # type: ignore[assignment]
            "transformers", description="What runs the model: `transformers` or `vllm`."
        )
        question: str = Field(
            f'Does this figure show "{MARK}"? Please answer yes or no.',
            description=f"What it is asked; `{MARK}` stands for the prompt.",
        )
        answer: str = Field(
            "Yes", min_length=1, description="The answer whose probability is the score."
        )
        gpus: PositiveInt = gpus_field()

        @property
        def environment(self) -> str:
            """That of the models that answer."""
            return "vllm"

        @property
        def megabytes(self) -> int:
            """As a policy model's job."""
            return 64000

        @property
        def is_small(self) -> bool:
            """It has as many weights as a policy model."""
            return False

        @field_validator("question")
        @classmethod
        def _asks_about_the_prompt(cls, question: str) -> str:
            if MARK not in question:
                raise ValueError(f"write {MARK} where the prompt is to stand")
            return question

        @model_validator(mode="after")
        def _can_be_spread(self) -> Self:
            if problem := problem_with_gpus(self, self.backend, self.gpus):
                raise ValueError(f"`gpus`: {problem}")
            return self

    def __init__(self, generator: Generator, settings: Settings) -> None:
        self.generator = generator
        self.settings = settings

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Loads the model with what runs it."""
        names = ("backend", "model", "revision", "dtype", "gpus")
        runs = GENERATORS.validate({name: getattr(settings, name) for name in names})
        generator = GENERATORS.class_of(runs).load(
            runs, device, Sampling(1, 0.0), with_images=True, batch_size=BATCH
        )
        return cls(generator, settings)

    def score(self, prompt: str, images: Sequence[Image]) -> list[float]:
        """The probability of the answer, of each image, as one batch."""
        text = self.settings.question.replace(MARK, prompt)
        questions = [Question(text, image.convert("RGB")) for image in images]
        rows = self.generator.log_probabilities(questions, [self.settings.answer])
        return [math.exp(value) for (value,) in rows]

    def truncates(self, _prompt: str) -> bool:
        """No prompt is cut."""
        return False
