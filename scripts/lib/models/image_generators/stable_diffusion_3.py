"""Stable Diffusion 3 by diffusers: all guidance scales of a prompt in one batch, the prompt encoded
once. So an image depends on its prompt and the settings only, not on sharding, order or resumption.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lib import weights
from lib.blocks import LATER, DType, dtype_field, model_field, revision_field
from lib.errors import UserError
from lib.jobs.device import require_device
from lib.model_files import problem_with_pipeline
from lib.models.image_generators.pipelines import (
    PIPELINES,
    known_folder,
    load_networks,
    per_row,
    pipeline_in,
    place,
)
from lib.models.image_generators.settings import DrawnImageSettings

if TYPE_CHECKING:
    from PIL.Image import Image


class StableDiffusion3:
    """A pipeline whose batch has a guidance scale a row."""

    VERSION: ClassVar[int] = 1

    class Settings(DrawnImageSettings):
        """Stage images by any StableDiffusion3Pipeline (Stable Diffusion 3 and 3.5): four
        candidates a prompt, one at each guidance scale (paper 3.2; model card of SD3-medium).
        """

        kind: Literal["stable-diffusion-3"] = Field(
            "stable-diffusion-3", description="The architecture.", json_schema_extra=LATER
        )
        guidance_scales: list[Annotated[float, Field(gt=1)]] = Field(
            [5.0, 7.0, 9.0, 11.0],
            min_length=1,
            description=(
                "One candidate each; over 1, which means no guidance (paper 4.3, Figure 4)."
            ),
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

        compiled: bool = Field(
            False,
            description=(
                "Compile the denoiser on a GPU: a sixth faster on an H200 (docs/gpu.md), after some"
                " 12 s a job, by a C compiler that its node has to have; the images are other ones,"
                " the same each time."
            ),
            json_schema_extra=LATER,
        )

        @property
        def drawn(self) -> list[tuple[float, int]]:
            """One image at each guidance scale."""
            return [(scale, 1) for scale in self.guidance_scales]

        @model_validator(mode="after")
        def _scales_differ(self) -> Self:
            if len(set(self.guidance_scales)) < len(self.guidance_scales):
                raise ValueError("the same guidance scale stands twice in `guidance_scales`")
            return self

        @model_validator(mode="after")
        def _is_of_this_kind(self) -> Self:
            folder = known_folder({"model": self.model, "revision": self.revision})
            if problem := self.problem_in(folder):
                raise ValueError(problem)
            return self

        def problem_in(self, folder: Path | None) -> str | None:
            """What to write where a folder's pipeline is another one."""
            name = pipeline_in(folder)
            if name not in PIPELINES or name == "StableDiffusion3Pipeline":
                return None
            return (
                f"`{self.model}` is a {name}. Write `kind: diffusers`, and `candidates` in place of"
                " `guidance_scales`"
            )

        @property
        def parts_left_out(self) -> tuple[str, ...]:
            """The parts of the pipeline that are not loaded: T5, where no token of it is read."""
            return () if self.max_sequence_length else ("text_encoder_3", "tokenizer_3")

        def problem_with_files(self, folder: Path) -> str | None:
            """What a pipeline's folder lacks of the parts that are loaded."""
            return problem_with_pipeline(folder, self.parts_left_out)

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
        if problem := settings.problem_in(folder):
            raise UserError(f"{folder}: {problem}.")
        parts: dict[str, Any] = dict.fromkeys(settings.parts_left_out)
        parts |= load_networks(folder, settings.dtype, left_out=parts)
        pipeline = per_row("StableDiffusion3Pipeline").from_pretrained(
            folder, trust_remote_code=False, **parts
        )
        place(pipeline, device)
        generator = cls(pipeline, settings)
        if settings.compiled and device == "cuda":
            generator.compile()
        return generator

    def compile(self) -> None:
        """Compiles the denoiser's blocks for a prompt's images, by drawing some in one step."""
        for block in self.pipeline.transformer.transformer_blocks:
            block.compile()
        scales = self.settings.guidance_scales
        self._draw("", scales, range(len(scales)), steps=1)

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
        return self._draw(prompt, scales, seeds, self.settings.steps)

    def _draw(
        self, prompt: str, scales: Sequence[float], seeds: Sequence[int], steps: int
    ) -> "list[Image]":
        import torch

        self.pipeline.row_scales = scales
        output = self.pipeline(
            prompt=prompt,
            negative_prompt=self.settings.negative_prompt,
            num_images_per_prompt=len(scales),
            num_inference_steps=steps,
            height=self.settings.height,
            width=self.settings.width,
            max_sequence_length=self.settings.max_sequence_length or 256,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        )
        return list(output.images)
