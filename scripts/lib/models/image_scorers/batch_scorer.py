"""What scorers with a tokenizer and one forward pass share, and those of them that are a checkpoint
of transformers.

All images go through PIL, never through torchvision: the two differ by up to one 8-bit level, and
scores must not depend on which is installed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lib.jobs.device import require_device
from lib.loading import fetch_transformers_folder
from lib.models.image_scorers.settings import CheckpointSettings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class BatchScorer(ABC):
    """Scores the images of one prompt.

    A prompt longer than `max_prompt_tokens` is cut at its end before it is scored, as the original
    models do; `truncates` says whether that happens, so that the caller can put it on record. What
    a prompt contains is text: "[SEP]" or "<|endoftext|>" in it is spelt out, not taken for the
    tokenizer's special token.
    """

    max_prompt_tokens: int
    tokenizer: Any

    def score(self, prompt: str, images: Sequence[Image]) -> list[float]:
        """One score an image, in the order of `images`, computed as one batch; higher is better.

        A score that is not a number is returned as it is: what to do about it is the caller's
        decision.
        """
        import torch

        if not images:
            return []
        with torch.inference_mode():
            return [float(score) for score in self._score(prompt, images)]

    def truncates(self, prompt: str) -> bool:
        """Whether `prompt` has more than `max_prompt_tokens` tokens, special tokens included."""
        return (
            len(self.tokenizer(prompt, split_special_tokens=True, verbose=False).input_ids)
            > self.max_prompt_tokens
        )

    @abstractmethod
    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        """`score` of at least one image, as a list or a tensor of shape (images,)."""


class CheckpointScorer(BatchScorer):
    """A checkpoint of transformers on a device, with its image processor and its tokenizer."""

    model: Any
    image_processor: Any
    device: str

    @classmethod
    def load(cls, settings: CheckpointSettings, device: str) -> Self:
        """Loads the model of the settings onto a device."""
        require_device(device)
        return cls(fetch_transformers_folder(settings), device, settings.dtype)

    @abstractmethod
    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        """Loads what is in a folder."""

    def _pixels(self, images: Sequence[Image]) -> torch.Tensor:
        """The images as the model reads them: (images, 3, height, width)."""
        pixels: torch.Tensor = self.image_processor(
            [image.convert("RGB") for image in images], return_tensors="pt"
        ).pixel_values
        return pixels.to(device=self.device, dtype=self.model.dtype)
