"""CLIP: the cosine of the image's and the prompt's embeddings.

Source: arXiv:2103.00020.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from lib.loading import load_from_folder, load_transformers_model
from lib.models.image_scorers.batch_scorer import CheckpointScorer
from lib.models.image_scorers.settings import CheckpointSettings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class CLIPScore(CheckpointScorer):
    """Cosine of CLIP's image and text embeddings; the prompt is cut to CLIP's context (77 tokens
    for OpenAI's models).
    """

    VERSION: ClassVar[int] = 1

    class Settings(CheckpointSettings):
        """Any CLIPModel; a score is the cosine of the image's and the prompt's embeddings."""

        kind: Literal["clip"] = Field(description="Architecture and formula.")

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        self.model = load_transformers_model(CLIPModel, folder, device, dtype)
        self.image_processor = load_from_folder(CLIPImageProcessorPil, folder)
        self.tokenizer = load_from_folder(CLIPTokenizer, folder)
        self.max_prompt_tokens: int = self.model.config.text_config.max_position_embeddings
        self.device = device

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        import torch

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
            pixel_values=self._pixels(images),
        )
        return torch.cosine_similarity(output.image_embeds.float(), output.text_embeds.float())
