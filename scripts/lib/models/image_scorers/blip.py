"""BLIP's image-text matching head: the probability that image and prompt match.

Source: arXiv:2201.12086.
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
from lib.models.image_scorers.bert import BLIP_PROMPT_TOKENS, load_bert_tokenizer, tokenize_for_blip
from lib.models.image_scorers.settings import LocalScorerSettings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class BLIPScore(BatchScorer):
    """Probability of BLIP's image-text matching head that image and prompt match; the prompt is cut
    to 35 tokens, as BLIP does.
    """

    VERSION: ClassVar[int] = 1
    max_prompt_tokens = BLIP_PROMPT_TOKENS

    class Settings(LocalScorerSettings):
        """Any BlipForImageTextRetrieval; a score is the probability that image and prompt match."""

        kind: Literal["blip"] = Field(description="Architecture and formula.")

        def problem_with_files(self, folder: Path) -> str | None:
            """As of any checkpoint of transformers; of older ones pickles are read."""
            return problem_with_checkpoint(folder, PICKLES)

    @classmethod
    def load(cls, settings: LocalScorerSettings, device: str) -> Self:
        """Loads the model of the settings onto a device."""
        require_device(device)
        return cls(fetch_transformers_folder(settings), device, settings.dtype)

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        from transformers import BlipForImageTextRetrieval, BlipImageProcessorPil

        self.model = load_transformers_model(BlipForImageTextRetrieval, folder, device, dtype)
        self.image_processor = load_from_folder(BlipImageProcessorPil, folder)
        self.tokenizer = load_bert_tokenizer(folder, self.model.config.text_config.vocab_size)
        self.device = device

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        pixels = self.image_processor(
            [image.convert("RGB") for image in images], return_tensors="pt"
        ).pixel_values
        # The model's own forward makes a mask of the image on the CPU, whatever its device; images
        # have no padding to mask.
        image_states = self.model.vision_model(
            pixel_values=pixels.to(device=self.device, dtype=self.model.dtype)
        ).last_hidden_state
        prompt_states = self.model.text_encoder(
            **tokenize_for_blip(self.tokenizer, prompt, len(images), self.device),
            encoder_hidden_states=image_states,
        ).last_hidden_state
        return self.model.itm_head(prompt_states[:, 0]).float().softmax(-1)[:, 1]
