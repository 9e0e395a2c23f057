"""CLIP: the cosine of the image's and the prompt's embeddings.

Source: arXiv:2103.00020.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from lib.jobs.device import require_device
from lib.loading import (
    fetch_transformers_folder,
    load_from_folder,
    load_transformers_model,
)
from lib.model_files import PICKLES, problem_with_checkpoint
from lib.models.image_scorers.batch_scorer import BatchScorer
from lib.models.image_scorers.settings import LocalScorerSettings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class CLIPScore(BatchScorer):
    """Cosine of CLIP's image and text embeddings; the prompt is cut to CLIP's context (77 tokens
    for OpenAI's models).
    """

    VERSION: ClassVar[int] = 1

    class Settings(LocalScorerSettings):
        """Any CLIPModel; a score is the cosine of the image's and the prompt's embeddings."""

        kind: Literal["clip"] = Field(description="Architecture and formula.")

        def problem_with_files(self, folder: Path) -> str | None:
            """As of any checkpoint of transformers; of older ones pickles are read."""
            return problem_with_checkpoint(folder, PICKLES)

    @classmethod
    def load(cls, settings: LocalScorerSettings, device: str) -> Self:
        """Loads the model of the settings onto a device."""
        require_device(device)
        return cls(fetch_transformers_folder(settings), device, settings.dtype)

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        self.model = load_transformers_model(CLIPModel, folder, device, dtype)
        self.image_processor = load_from_folder(CLIPImageProcessorPil, folder)
        self.tokenizer = load_from_folder(CLIPTokenizer, folder)
        self.max_prompt_tokens: int = self.model.config.text_config.max_position_embeddings
        self.device = device

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        import torch

        pixels = self.image_processor(
            [image.convert("RGB") for image in images], return_tensors="pt"
        ).pixel_values
        tokens = self.tokenizer(
            prompt,
            truncation=True,
            max_length=self.max_prompt_tokens,
            split_special_tokens=True,
            return_tensors="pt",
        ).to(self.device)
        output = self.model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=pixels.to(device=self.device, dtype=self.model.dtype),
        )
        return torch.cosine_similarity(output.image_embeds.float(), output.text_embeds.float())
