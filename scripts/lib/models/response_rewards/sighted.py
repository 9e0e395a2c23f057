"""What rewards share that ask a vision-language model about the picture."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from lib import weights
from lib.data.image_files import read_image
from lib.models.response_generators.base import Generator
from lib.models.response_generators.for_jobs import generator_settings
from lib.models.response_generators.registry import GENERATORS, Backend
from lib.models.response_generators.requests import Question, Sampling
from lib.models.response_rewards.base import Conversation
from lib.models.response_rewards.settings import ResponseRewardSettings


class SightedSettings(ResponseRewardSettings):
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

    @model_validator(mode="after")
    def _sees(self) -> Self:
        folder = weights.local_folder(self.model, self.revision)
        config = weights.config_in(folder) if folder else {}
        if config and "vision_config" not in config:
            raise ValueError(
                f"`model`: {self.model} is no vision-language model (its config.json has no"
                " `vision_config`), and it has to see the picture. Take one that reads pictures,"
                " or another `kind`"
            )
        return self


def load_generator(settings: SightedSettings, device: str, batch_size: int) -> Generator:
    """The model of settings on a device, for so many questions at once."""
    return GENERATORS.load(settings.backend).load(
        generator_settings(settings),
        device,
        Sampling(1, 0.0),
        with_images=True,
        batch_size=batch_size,
    )


def check_words(template: str, needed: str, known: Collection[str]) -> str:
    """The template; a ValueError where it lacks the word in braces that it needs, or has another
    one than those known.
    """
    if f"{{{needed}}}" not in template:
        raise ValueError(
            f"has no `{{{needed}}}`: the model would not know what to look at. Put it where it"
            " belongs"
        )
    if unknown := sorted(set(re.findall(r"\{(\w+)\}", template)) - set(known)):
        names = ", ".join(f"`{{{word}}}`" for word in known)
        raise ValueError(f"knows no `{{{unknown[0]}}}`. Known here: {names}")
    return template


def filled(template: str, **words: object) -> str:
    """The template with its words in braces filled in, whatever stands in what they become."""
    return re.sub(r"\{(\w+)\}", lambda match: str(words[match[1]]), template)


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
