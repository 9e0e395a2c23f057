"""A vision-language model at an OpenAI-compatible endpoint that rates how well an image shows the
prompt, by a rubric of the configuration: the expected value of its rating where the endpoint tells
probabilities, else the rating that it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from lib.models.at_endpoint import AtEndpoint, EndpointModel, png_of, rating_options
from lib.models.image_scorers.settings import ImageScorerSettings
from lib.models.rubric import Scale, check_words, expected_rating, filled, shares_of

if TYPE_CHECKING:
    from PIL.Image import Image

#: What a rubric may hold in braces.
WORDS = ("prompt", "lowest", "highest")
RUBRIC = """\
Somebody asked for a picture of this:

{prompt}

How well does the picture show it, all of it and nothing that contradicts it? Give one whole \
number from {lowest} (worst) to {highest} (best), and nothing else."""


class VlmRating(AtEndpoint):
    """A model that is asked about the images of a prompt at once."""

    VERSION: ClassVar[int] = 1

    class Settings(EndpointModel, Scale, ImageScorerSettings):
        """Any vision-language model at an endpoint, asked to rate how well an image shows the
        prompt.
        """

        kind: Literal["vlm-rating"] = Field(description="Architecture and formula.")
        rubric: str = Field(
            RUBRIC,
            description=(
                "What it is asked about the image, with `{prompt}`, and `{lowest}` and `{highest}`."
            ),
        )

        @property
        def megabytes(self) -> int:
            """No model is loaded."""
            return 2000

        @field_validator("rubric")
        @classmethod
        def _rubric_is_usable(cls, rubric: str) -> str:
            return check_words(rubric, "prompt", WORDS)

    def score(self, prompt: str, images: Sequence[Image]) -> list[float]:
        """The rating of each image, all asked for at once. Errors: ItemError without one."""
        scale = self.settings
        text = filled(scale.rubric, prompt=prompt, lowest=scale.lowest, highest=scale.highest)
        questions = [(text, png_of(image)) for image in images]
        scores = []
        for choice in self.choose(questions, rating_options(scale)):
            told = shares_of(choice.log_probabilities)
            assert told is not None, "what is chosen has a probability"
            scores.append(expected_rating(told[0]))
        return scores

    def truncates(self, _prompt: str) -> bool:
        """No prompt is cut."""
        return False
