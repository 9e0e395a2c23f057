"""SigLIP and SigLIP 2 (of a fixed resolution): the logit that image and prompt belong together.

Source: arXiv:2303.15343, arXiv:2502.14786.
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


class SigLIPScore(CheckpointScorer):
    """SigLIP's logit of a pair, before the sigmoid, which would make ties of good matches. Prompts
    are read in small letters and padded to the context (64 tokens), without a mask, as SigLIP was
    trained.
    """

    VERSION: ClassVar[int] = 1

    class Settings(CheckpointSettings):
        """Any SiglipModel; a score is the logit that image and prompt belong together."""

        kind: Literal["siglip"] = Field(description="Architecture and formula.")

        @property
        def environment(self) -> str:
            """SigLIP's tokenizer needs protobuf, which this one has."""
            return "diffusion"

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        from transformers import AutoTokenizer, SiglipImageProcessorPil, SiglipModel

        self.model = load_transformers_model(SiglipModel, folder, device, dtype)
        self.image_processor = load_from_folder(SiglipImageProcessorPil, folder)
        self.tokenizer = load_from_folder(AutoTokenizer, folder)
        self.max_prompt_tokens: int = self.model.config.text_config.max_position_embeddings
        self.device = device

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        tokens = self.tokenizer(
            prompt.lower(),
            padding="max_length",
            truncation=True,
            max_length=self.max_prompt_tokens,
            split_special_tokens=True,
            return_tensors="pt",
        )
        output = self.model(
            input_ids=tokens.input_ids.to(self.device),
            pixel_values=self._pixels(images),
        )
        return output.logits_per_image[:, 0].float()
