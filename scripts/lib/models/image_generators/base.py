"""What an image generator is: the role of Stable Diffusion 3 in the paper (3.2, Eq. 5)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from lib.models.image_generators.settings import DrawnImageSettings

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageGenerator(Protocol):
    """A loaded model. VERSION is raised where the same settings would give other images."""

    VERSION: ClassVar[int]
    Settings: ClassVar[type[DrawnImageSettings]]

    @classmethod
    def load(cls, settings: DrawnImageSettings, device: str) -> Self:
        """Loads the model. Errors: UserError where there is no such device or no usable model."""
        ...

    def cut(self, prompt: str) -> Mapping[str, int]:
        """What reads the first tokens of a prompt only, each with how many."""
        ...

    def generate(self, prompt: str, scales: Sequence[float], seeds: Sequence[int]) -> "list[Image]":
        """One RGB image (height, width) a guidance scale and seed, in order, as one batch."""
        ...
