"""Any text-to-image pipeline of diffusers that takes a guidance scale (`PIPELINES`): SDXL, Stable
Diffusion 1.5, FLUX, Z-Image and their like, distilled or not. The images of a prompt are one batch
where the pipeline can give each its own guidance scale, else one batch a scale.
"""

import inspect
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lib import weights
from lib.blocks import Block
from lib.errors import UserError
from lib.jobs.device import require_device
from lib.models.image_generators.pipelines import (
    DESCRIPTIONS,
    PIPELINES,
    ignores_guidance,
    known_folder,
    load_networks,
    per_row,
    pipeline_in,
    place,
)
from lib.models.image_generators.settings import DrawnImageSettings

if TYPE_CHECKING:
    from PIL.Image import Image


class CandidateSettings(Block):
    """What is a candidate's own."""

    guidance_scale: float = Field(
        ge=0,
        description=(
            "Up to 1 it means none, where a pipeline guides by a second pass; a model's card says"
            " what is usual."
        ),
    )


class DiffusersPipeline:
    """A pipeline, and what of its call it takes."""

    VERSION: ClassVar[int] = 1

    class Settings(DrawnImageSettings):
        """Stage images by any text-to-image pipeline of diffusers that takes a guidance scale."""

        kind: Literal["diffusers"] = Field(
            "diffusers", description="May be left out where the folder or the hub cache says it."
        )
        candidates: list[CandidateSettings] = Field(
            min_length=1, description="One each, e.g. `[{guidance_scale: 5.0}]`; of `samples` each."
        )
        samples: PositiveInt = Field(
            1, description="Seeds of each candidate: `samples: 4` draws four images of one."
        )
        # Most autoencoders make one of 8 pixels, and most transformers read patches of 2 of these.
        height: PositiveInt = Field(1024, multiple_of=16, description="Pixels.")
        width: PositiveInt = Field(1024, multiple_of=16, description="Pixels.")
        steps: PositiveInt = Field(
            28, description="Denoising steps; distilled models take few (their card says how many)."
        )
        negative_prompt: str = Field("", description="What the images should not show.")
        max_sequence_length: PositiveInt | None = Field(
            None, description="Tokens of a prompt that are read; null: as many as the pipeline's."
        )

        @property
        def megabytes(self) -> int:
            """FLUX has 34 GB of weights."""
            return 64000

        @property
        def drawn(self) -> list[tuple[float, int]]:
            """Each candidate as often as there are samples of it."""
            numbers = range(1, self.samples + 1)
            return [(each.guidance_scale, n) for each in self.candidates for n in numbers]

        def check_before_run(self) -> None:
            """Asks the hub what the pipeline is, where that is not known on this machine."""
            if pipeline_in(self._known_folder()) is None:
                folder = weights.fetch(self.model, self.revision, only=DESCRIPTIONS)
                if problem := self.problem_in(folder):
                    raise UserError(f"{problem}.")

        def _known_folder(self) -> Path | None:
            return known_folder({"model": self.model, "revision": self.revision})

        @model_validator(mode="after")
        def _pipeline_can_do_it(self) -> Self:
            scales = [each.guidance_scale for each in self.candidates]
            if len(set(scales)) < len(scales):
                raise ValueError(
                    "the same candidate stands twice in `candidates`. For several images of one"
                    " write it once, with `samples`"
                )
            if (folder := self._known_folder()) and (problem := self.problem_in(folder)):
                raise ValueError(problem)
            return self

        def problem_in(self, folder: Path) -> str | None:
            """What of these settings the pipeline of a folder cannot do, and what could."""
            name = pipeline_in(folder)
            if name is None:
                return None  # of a part of a snapshot; loading tells what is missing
            if name not in PIPELINES:
                return (
                    f"`{self.model}` is a {name}, which is none of the text-to-image pipelines"
                    f" that take a guidance scale. Take a model of {', '.join(PIPELINES)}"
                )
            for key, can in (
                ("negative_prompt", PIPELINES[name].negative),
                ("max_sequence_length", PIPELINES[name].length),
            ):
                if getattr(self, key) and not can:
                    return f"a {name} takes no `{key}`. Take it out"
            if len(self.candidates) > 1 and ignores_guidance(folder):
                return (
                    f"`{self.model}` was distilled without guidance: its images do not depend on"
                    " the guidance scale. List one candidate, and say how many images with"
                    " `samples`"
                )
            return None

    def __init__(self, pipeline: Any, settings: Settings, by_row: bool) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.by_row = by_row

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Loads the pipeline that model_index.json names."""
        import diffusers
        from diffusers.utils import logging as diffusers_logging

        diffusers_logging.disable_progress_bar()
        require_device(device)
        folder = weights.fetch(settings.model, settings.revision)
        if problem := settings.problem_in(folder):
            raise UserError(f"{folder}: {problem}.")
        networks = load_networks(folder, settings.dtype, left_out={})
        name = str(pipeline_in(folder))
        unet = networks.get("unet")
        # Some distilled U-Nets are told the scale as a number, not guided by it.
        by_row = PIPELINES[name].by_row and not (unet and unet.config.time_cond_proj_dim)
        pipeline_class = per_row(name) if by_row else getattr(diffusers, name)
        try:
            pipeline = pipeline_class.from_pretrained(folder, trust_remote_code=False, **networks)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{folder} cannot be loaded as a {name}: {error}") from error
        place(pipeline, device)
        return cls(pipeline, settings, by_row)

    def cut(self, prompt: str) -> dict[str, int]:
        """The text encoders that do not read a prompt to its end, each with the tokens that it
        reads. What a pipeline writes around a prompt is not counted.
        """
        return {
            name.replace("tokenizer", "text_encoder"): room
            for name, part in self.pipeline.components.items()
            if name.startswith("tokenizer")
            and part
            and len(part(prompt, verbose=False)["input_ids"]) > (room := self._room(part))
        }

    def _room(self, tokenizer: Any) -> int:
        of_call = inspect.signature(type(self.pipeline).__call__).parameters
        length = of_call.get("max_sequence_length")
        if length is None or "CLIP" in type(tokenizer).__name__:
            return int(tokenizer.model_max_length)
        return int(self.settings.max_sequence_length or length.default)

    def generate(self, prompt: str, scales: Sequence[float], seeds: Sequence[int]) -> "list[Image]":
        """One RGB image (height, width) a guidance scale and seed, in order. The noise is drawn on
        the CPU, so that it is the same on every device.
        """
        return [
            image
            for part in self._batches(list(zip(scales, seeds, strict=True)))
            for image in self._draw(prompt, part)
        ]

    def _batches(self, pairs: Sequence[tuple[float, int]]) -> Iterator[list[tuple[float, int]]]:
        """Neighbours that can be one batch."""
        for _, part in groupby(pairs, lambda pair: pair[0] > 1 if self.by_row else pair[0]):
            yield list(part)

    def _draw(self, prompt: str, pairs: Sequence[tuple[float, int]]) -> "list[Image]":
        import torch

        settings = self.settings
        names = ("negative_prompt", "max_sequence_length")
        given = {name: value for name in names if (value := getattr(settings, name))}
        if self.by_row:
            self.pipeline.row_scales = [scale for scale, _ in pairs]
        images = self.pipeline(
            prompt=prompt,
            guidance_scale=pairs[0][0],
            num_images_per_prompt=len(pairs),
            num_inference_steps=settings.steps,
            height=settings.height,
            width=settings.width,
            generator=[torch.Generator("cpu").manual_seed(seed) for _, seed in pairs],
            **given,
        ).images
        if (size := images[0].size) != (settings.width, settings.height):
            raise UserError(
                f"{settings.model} draws images of {size[1]} x {size[0]} where `height` x `width`"
                f" are {settings.height} x {settings.width}. Configure a size that it can draw."
            )
        return [image.convert("RGB") for image in images]
