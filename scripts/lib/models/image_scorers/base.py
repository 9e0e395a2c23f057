"""What an image scorer is: the role of ImageReward in the paper (3.2, Eq. 6)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from lib.models.image_scorers.settings import ImageScorerSettings

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageScorer(Protocol):
    """A loaded model. VERSION is raised where the same images would get other scores."""

    VERSION: ClassVar[int]
    Settings: ClassVar[type[ImageScorerSettings]]

    @classmethod
    def load(cls, settings: ImageScorerSettings, device: str) -> "ImageScorer":
        """Loads the model onto a torch device ("cpu", "cuda").

        Errors: UserError, or a ValueError that says what about the files is not usable.
        """
        ...

    def score(self, prompt: str, images: "Sequence[Image]") -> list[float]:
        """One score an image (RGB, any size), in their order, as one batch; higher is better.

        A score that is not a number is returned as it is. What a prompt contains is text, never a
        special token.
        """
        ...

    def truncates(self, prompt: str) -> bool:
        """Whether the model reads only the beginning of `prompt`."""
        ...
