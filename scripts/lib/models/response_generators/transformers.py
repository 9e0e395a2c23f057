"""Answers by transformers' `generate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from lib import weights
from lib.data.image_files import read_image
from lib.jobs.device import require_device
from lib.loading import load_whole
from lib.models.response_generators.chat import (
    chat_prompt,
    end_tokens,
    finished,
    load_processor,
    tokenizer_of,
)
from lib.models.response_generators.requests import Generated, Request, Sampling
from lib.models.response_generators.settings import GeneratorSettings


class TransformersGenerator:
    """A model run by transformers' `generate`. Several requests are one left-padded batch."""

    VERSION: ClassVar[int] = 1

    class Settings(GeneratorSettings):
        """A model that transformers runs."""

        backend: Literal["transformers"] = Field(description="What runs the model.")

    @classmethod
    def load(
        cls,
        settings: GeneratorSettings,
        device: str,
        sampling: Sampling,
        *,
        with_images: bool,
        batch_size: int,
    ) -> Self:
        """Loads the model; a batch may have any size."""
        require_device(device)
        if sampling.beams > 1 and sampling.temperature:
            raise ValueError("beams are searched without a temperature")
        folder = weights.fetch(settings.model, settings.revision)
        return cls(folder, settings.dtype, device, sampling, with_images)

    def __init__(
        self, folder: Path, dtype: str, device: str, sampling: Sampling, with_images: bool
    ) -> None:
        import torch
        from transformers import (
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            GenerationConfig,
        )

        self.sampling = sampling
        self.device = device
        self.processor = load_processor(folder, with_images)
        self.tokenizer = tokenizer_of(self.processor)
        # Right padding would stand between a prompt and its answer.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.ends = end_tokens(folder, self.tokenizer)
        architecture = AutoModelForImageTextToText if with_images else AutoModelForCausalLM
        model = load_whole(architecture, folder, dtype=getattr(torch, dtype), use_safetensors=True)
        self.model = model.to(device).eval()
        # Penalties of the folder's own are left out, as in vLLM (own_settings.py).
        self.model.generation_config = GenerationConfig(
            bos_token_id=self.tokenizer.bos_token_id,
            cache_implementation=model.generation_config.cache_implementation,
        )

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order."""
        import torch
        from transformers import LogitsProcessorList

        prompts = [
            chat_prompt(self.processor, request.text, request.image is not None, request.system)
            for request in requests
        ]
        images = [read_image(request.image) for request in requests if request.image is not None]
        inputs = self.processor(
            text=prompts,
            padding=len(prompts) > 1,
            return_tensors="pt",
            **({"images": images} if images else {}),
        )
        inputs = inputs.to(self.device)
        if images:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        draw = LogitsProcessorList(
            [seeded_draw(self.sampling, [request.seed for request in requests])]
            if self.sampling.temperature
            else []
        )
        with torch.inference_mode():
            ids = self.model.generate(
                **inputs,
                do_sample=False,  # the drawing is in `draw`; what is left is to take the maximum
                num_beams=self.sampling.beams,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=draw,
                max_new_tokens=self.sampling.max_new_tokens,
                eos_token_id=self.ends,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return [
            finished(self.tokenizer, row, self.ends)
            for row in ids[:, inputs["input_ids"].shape[1] :].tolist()
        ]


def seeded_draw(sampling: Sampling, seeds: Sequence[int]) -> Any:
    """A logits processor after which the maximum is a sample (Gumbel-max), each row drawn from its
    own generator.

    transformers' own sampling draws all rows of a batch from one global generator, so that an
    answer would depend on what shares its batch. The noise is drawn on the CPU, so that it is the
    same on every device.
    """
    import torch
    from transformers import LogitsProcessor, TopPLogitsWarper

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    nucleus = TopPLogitsWarper(top_p=sampling.top_p) if sampling.top_p < 1 else None

    class SeededDraw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores = scores.float() / sampling.temperature
            if nucleus is not None:
                scores = nucleus(input_ids, scores)
            exponential = torch.stack(
                [
                    torch.empty(scores.shape[-1]).exponential_(generator=generator)
                    for generator in generators
                ]
            )
            return scores - exponential.log().to(scores.device)

    return SeededDraw()
