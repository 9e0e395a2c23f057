"""Answers by transformers' `generate`."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from lib import weights
from lib.data.image_files import read_image
from lib.engine import ONE_AT_A_TIME
from lib.jobs.device import require_device
from lib.jobs.streams import Ended, Item, Take, in_batches
from lib.loading import load_whole, placing, to_device
from lib.models.response_generators.chat import (
    answer_tokens,
    chat_prompt,
    end_tokens,
    finished,
    load_processor,
    tokenizer_of,
)
from lib.models.response_generators.requests import Generated, Question, Request, Sampling
from lib.models.response_generators.settings import GeneratorSettings


class TransformersGenerator:
    """A model run by transformers' `generate`.

    Several requests are one left-padded batch, which ends with its longest answer: a row that took
    the place of one that ended would be computed behind other padding, and get other low bits. The
    continuous batching of transformers itself takes no images.
    """

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
        """Loads the model."""
        require_device(device, settings.gpus)
        if sampling.beams > 1 and sampling.temperature:
            raise ValueError("beams are searched without a temperature")
        folder = weights.fetch(settings.model, settings.revision)
        at_once = 1 if settings.deterministic else batch_size
        return cls(
            folder, settings.dtype, device, sampling, with_images, at_once, gpus=settings.gpus
        )

    @classmethod
    def independence(cls, _device: str) -> str:
        """How answers that are to be deterministic are made so, on every device."""
        return ONE_AT_A_TIME

    def __init__(
        self,
        folder: Path,
        dtype: str,
        device: str,
        sampling: Sampling,
        with_images: bool,
        batch_size: int = 1,
        *,
        gpus: int = 1,
    ) -> None:
        import torch
        from transformers import (
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            GenerationConfig,
        )

        self.sampling = sampling
        self.device = device
        self.batch_size = batch_size
        self.processor = load_processor(folder, with_images)
        self.tokenizer = tokenizer_of(self.processor)
        # Right padding would stand between a prompt and its answer.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.ends = end_tokens(folder, self.tokenizer)
        architecture = AutoModelForImageTextToText if with_images else AutoModelForCausalLM
        options = {"dtype": getattr(torch, dtype), "use_safetensors": True}
        model = load_whole(architecture, folder, **options, **placing(device, gpus))
        self.model = to_device(model, device)
        # Penalties of the folder's own are left out, as in vLLM (own_settings.py).
        self.model.generation_config = GenerationConfig(
            bos_token_id=self.tokenizer.bos_token_id,
            cache_implementation=model.generation_config.cache_implementation,
        )

    def with_sampling(self, sampling: Sampling) -> Self:
        """The same model, for answers that are drawn otherwise."""
        other = copy.copy(self)
        other.sampling = sampling
        return other

    def stream(
        self, take: Take[Item[Request]], note: Callable[[str], None]
    ) -> Iterator[Ended[Item[Request], Generated]]:
        """Answers requests in batches."""

        def answer(batch: Sequence[Item[Request]]) -> list[Generated]:
            return self.generate([item.inputs for item in batch])

        return in_batches(answer, self.batch_size, note)(take)

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order, as one batch."""
        prompts = [
            chat_prompt(self.processor, request.text, request.image is not None, request.system)
            for request in requests
        ]
        images = [read_image(request.image) for request in requests if request.image is not None]
        inputs = self._inputs(prompts, images)
        seeds = [request.seed for request in requests]
        ids = self._generate(
            inputs,
            [seeded_draw(self.sampling, seeds)] if self.sampling.temperature else [],
            num_beams=self.sampling.beams,
            max_new_tokens=self.sampling.max_new_tokens,
            eos_token_id=self.ends,
        )
        return [
            finished(self.tokenizer, row, self.ends)
            for row in ids[:, inputs["input_ids"].shape[1] :].tolist()
        ]

    def log_probabilities(
        self, questions: Sequence[Question], answers: Sequence[str]
    ) -> list[list[float]]:
        """The log-probability of each answer to each question: the model writes each of the
        beginnings that the answers have, and says at each token how likely it found all others.
        """
        if not questions:
            return []
        images = [question.image for question in questions if question.image is not None]
        with_image = bool(images)
        prompts = [chat_prompt(self.processor, each.text, with_image) for each in questions]
        inputs = self._inputs(prompts, images)
        tokens = answer_tokens(self.processor, prompts[0], answers, with_image)
        columns: list[list[float]] = [[] for _ in answers]
        for path in paths_to(tokens):
            steps = self._generate(
                inputs,
                [dictation(path)],
                max_new_tokens=len(path) + 1,
                output_logits=True,
                return_dict_in_generate=True,
            ).logits
            at_step = [logits.float().log_softmax(dim=-1) for logits in steps]
            for column, ids in enumerate(tokens):
                if tuple(ids[:-1]) == path[: len(ids) - 1]:
                    found = [at_step[step][:, token] for step, token in enumerate(ids)]
                    columns[column] = sum(found[1:], start=found[0]).tolist()
        return [list(row) for row in zip(*columns, strict=True)]

    def _inputs(self, prompts: Sequence[str], images: Sequence[Any]) -> Any:
        """What the model reads, as one left-padded batch on its device."""
        inputs = self.processor(
            text=prompts,
            padding=len(prompts) > 1,
            return_tensors="pt",
            **({"images": images} if images else {}),
        )
        inputs = inputs.to(self.device)
        if images:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        return inputs

    def _generate(self, inputs: Any, processors: Sequence[Any], **settings: Any) -> Any:
        """What `generate` gives where the maximum of the processed logits is always taken."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        # Without a configuration of its own, each call would make a default one of the model's, to
        # compare with: 6 ms.
        asked = GenerationConfig(
            do_sample=False,  # the drawing is in a processor; what is left is the maximum
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id,
            **settings,
        )
        with torch.inference_mode():
            return self.model.generate(
                **inputs,
                generation_config=asked,
                logits_processor=LogitsProcessorList(processors),
            )


def paths_to(answers: Iterable[Sequence[int]]) -> list[tuple[int, ...]]:
    """What has to be written to come by the last token of each answer: the answers without that
    token, less those that another one passes through.
    """
    paths = {tuple(tokens[:-1]) for tokens in answers}
    return sorted(
        path
        for path in paths
        if not any(other != path and other[: len(path)] == path for other in paths)
    )


def dictation(tokens: Sequence[int]) -> Any:
    """A logits processor after which these tokens are what is written, one after the other."""
    import torch
    from transformers import LogitsProcessor

    left = list(tokens)

    class Dictation(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if not left:
                return scores
            dictated = torch.full_like(scores, -torch.inf)
            dictated[:, left.pop(0)] = 0
            return dictated

    return Dictation()


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
