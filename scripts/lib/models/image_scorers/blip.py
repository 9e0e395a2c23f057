"""BLIP's image-text matching head: the probability that image and prompt match.

Source: arXiv:2201.12086.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from lib.loading import load_from_folder, load_transformers_model
from lib.models.image_scorers.batch_scorer import CheckpointScorer
from lib.models.image_scorers.bert import BLIP_PROMPT_TOKENS, load_bert_tokenizer, tokenize_for_blip
from lib.models.image_scorers.settings import CheckpointSettings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class BLIPScore(CheckpointScorer):
    """Probability of BLIP's image-text matching head that image and prompt match; the prompt is cut
    to 35 tokens, as BLIP does.
    """

    VERSION: ClassVar[int] = 1
    max_prompt_tokens = BLIP_PROMPT_TOKENS

    class Settings(CheckpointSettings):
        """Any BlipForImageTextRetrieval; a score is the probability that image and prompt match."""

        kind: Literal["blip"] = Field(description="Architecture and formula.")

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        from transformers import BlipForImageTextRetrieval, BlipImageProcessorPil

        self.model = load_transformers_model(BlipForImageTextRetrieval, folder, device, dtype)
        self.image_processor = load_from_folder(BlipImageProcessorPil, folder)
        self.tokenizer = load_bert_tokenizer(folder, self.model.config.text_config.vocab_size)
        self.device = device

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        # The model's own forward makes a mask of the image on the CPU, whatever its device; images
        # have no padding to mask.
        image_states = self.model.vision_model(pixel_values=self._pixels(images)).last_hidden_state
        prompt_states = self.model.text_encoder(
            **tokenize_for_blip(self.tokenizer, prompt, len(images), self.device),
            encoder_hidden_states=image_states,
        ).last_hidden_state
        return self.model.itm_head(prompt_states[:, 0]).float().softmax(-1)[:, 1]
