"""Stable Diffusion 3 by diffusers: all guidance scales of a prompt in one batch, the prompt encoded
once. So an image depends on its prompt and the settings only, not on sharding, order or resumption.
"""

import json
from collections.abc import Container, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from lib import weights
from lib.blocks import LATER, DType, dtype_field, model_field, revision_field
from lib.jobs.device import require_device
from lib.loading import load_whole
from lib.models.image_generators.settings import ImageGeneratorSettings

if TYPE_CHECKING:
    from PIL.Image import Image


class StableDiffusion3:
    """A pipeline whose batch has a guidance scale a row."""

    VERSION: ClassVar[int] = 1

    class Settings(ImageGeneratorSettings):
        """Stage images: four candidates a prompt, one at each guidance scale (paper 3.2; model card
        of SD3-medium).
        """

        kind: Literal["stable-diffusion-3"] = Field(
            "stable-diffusion-3", description="The architecture.", json_schema_extra=LATER
        )
        model: str = model_field("stabilityai/stable-diffusion-3-medium-diffusers")
        revision: str = revision_field("ea42f8cef0f178587cf766dc8129abd379c90671")
        dtype: DType = dtype_field("float16")
        # Its autoencoder makes one of 8 pixels, and its transformer reads patches of 2 of these.
        height: PositiveInt = Field(1024, multiple_of=16, description="Pixels.")
        width: PositiveInt = Field(1024, multiple_of=16, description="Pixels.")
        steps: PositiveInt = Field(28, description="Denoising steps.")
        negative_prompt: str = Field("", description="What the images should not show.")
        max_sequence_length: int = Field(
            256,
            ge=0,
            le=512,
            description="Tokens of a prompt that the T5 encoder reads; 0 leaves T5 out.",
        )

    def __init__(self, pipeline: Any, settings: Settings) -> None:
        self.pipeline = pipeline
        self.settings = settings

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Loads the pipeline, without its T5 encoder if no token of it is asked for."""
        from diffusers.utils import logging as diffusers_logging

        diffusers_logging.disable_progress_bar()
        require_device(device)
        folder = weights.fetch(settings.model, settings.revision)
        parts: dict[str, Any] = {}
        if settings.max_sequence_length == 0:
            parts = {"text_encoder_3": None, "tokenizer_3": None}
        parts |= load_networks(folder, settings.dtype, left_out=parts)
        pipeline = per_row_pipeline().from_pretrained(folder, trust_remote_code=False, **parts)
        pipeline.to(device).set_progress_bar_config(disable=True)
        return cls(pipeline, settings)

    def cut(self, prompt: str) -> dict[str, int]:
        """The text encoders that do not read a prompt to its end, each with the tokens that it
        reads.
        """
        room = dict.fromkeys(("", "_2"), self.pipeline.tokenizer_max_length)
        room["_3"] = self.settings.max_sequence_length
        return {
            f"text_encoder{end}": length
            for end, length in room.items()
            if (tokenizer := getattr(self.pipeline, f"tokenizer{end}"))
            and len(tokenizer(prompt)["input_ids"]) > length
        }

    def generate(self, prompt: str, scales: Sequence[float], seeds: Sequence[int]) -> "list[Image]":
        """One RGB image (height, width) a guidance scale and seed, in order, as one batch. The
        noise is drawn on the CPU, so that it is the same on every device.
        """
        import torch

        self.pipeline.row_scales = scales
        output = self.pipeline(
            prompt=prompt,
            negative_prompt=self.settings.negative_prompt,
            num_images_per_prompt=len(scales),
            num_inference_steps=self.settings.steps,
            height=self.settings.height,
            width=self.settings.width,
            max_sequence_length=self.settings.max_sequence_length or 256,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        )
        return list(output.images)


def load_networks(folder: Path, dtype: str, left_out: Container[str]) -> dict[str, Any]:
    """The networks of a pipeline's folder by name, each whole: the pipeline itself would fill in
    what is missing at random. Errors: ValueError that names the network's folder.
    """
    import torch

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a pipeline of diffusers: {error}") from error
    networks = {}
    for name, entry in index.items():
        if name not in left_out and (folder / name / "config.json").is_file():
            library, class_name = _entry_of(folder, name, entry)
            network = getattr(import_module(library), class_name)
            networks[name] = load_whole(
                network, folder / name, dtype=getattr(torch, dtype), use_safetensors=True
            )
    return networks


def _entry_of(folder: Path, name: str, entry: Any) -> tuple[str, str]:
    """The library and the class of a part of a pipeline. Errors: ValueError for another library:
    what a folder names is not imported just for that.
    """
    match entry:
        case [("diffusers" | "transformers") as library, str(class_name)]:
            return library, class_name
    raise ValueError(
        f"{folder}/model_index.json: `{name}` is {entry!r}, which is no class of diffusers or"
        " transformers"
    )


@cache
def per_row_pipeline() -> Any:
    """The class of StableDiffusion3Pipeline with a guidance scale for each row of its batch, given
    as its `row_scales`.
    """
    import torch
    from diffusers import StableDiffusion3Pipeline

    class PerRowPipeline(StableDiffusion3Pipeline):  # type: ignore[misc]  # diffusers is untyped
        row_scales: Sequence[float] = ()

        @property
        def guidance_scale(self) -> torch.Tensor:
            """The scales, (batch, 1, 1, 1): each multiplies its row's (channels, height, width)."""
            like = self.transformer
            scales = torch.tensor(self.row_scales, dtype=like.dtype, device=like.device)
            return scales.reshape(-1, 1, 1, 1)

        @property
        def do_classifier_free_guidance(self) -> bool:
            """Whether there is guidance at all, which a batch has or has not as a whole."""
            return min(self.row_scales) > 1

    return PerRowPipeline
