"""Answers by vLLM's offline engine, in this process."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from lib import weights
from lib.blocks import LATER
from lib.data.image_files import read_image
from lib.engine import (
    EngineStream,
    Prompt,
    independence,
    load_engine,
    places_in_engine,
    sampling_parameters,
)
from lib.errors import ItemError
from lib.jobs.device import require_device, spread_over
from lib.jobs.streams import Ended, Item, Take, handing_out
from lib.models.response_generators.chat import (
    answer_tokens,
    blank_before_answer,
    chat_prompt,
    end_tokens,
    finished,
    load_processor,
    tokenizer_of,
)
from lib.models.response_generators.requests import Generated, Question, Request, Sampling
from lib.models.response_generators.settings import GeneratorSettings


class VllmGenerator:
    """A model run by vLLM's engine, in this process."""

    VERSION: ClassVar[int] = 1

    class Settings(GeneratorSettings):
        """A model that vLLM runs."""

        backend: Literal["vllm"] = Field(description="What runs the model.")
        # The engine ends an answer there, too.
        max_model_len: PositiveInt = Field(
            4096, description="Tokens of image, question and answer together."
        )
        prefix_caching: bool = Field(
            False,
            description="Compute once what prompts in a row begin with.",
            json_schema_extra=LATER,
        )

    @classmethod
    def load(
        cls,
        settings: Settings,
        device: str,
        sampling: Sampling,
        *,
        with_images: bool,
        batch_size: int,
    ) -> Self:
        """Loads the model into an engine for so many requests at once."""
        require_device(device, settings.gpus)
        if sampling.beams > 1:
            raise ValueError("beams are searched by transformers alone")
        folder = weights.fetch(settings.model, settings.revision)
        return cls(
            folder,
            settings.dtype,
            device,
            sampling,
            with_images,
            places_in_engine(batch_size, device, settings.deterministic),
            settings.max_model_len,
            prefix_caching=settings.prefix_caching,
            gpus=spread_over(device, settings.gpus),
            deterministic=settings.deterministic,
        )

    @classmethod
    def independence(cls, device: str) -> str:
        """How answers that are to be deterministic are made so on a device."""
        return independence(device)

    def __init__(
        self,
        folder: Path,
        dtype: str,
        device: str,
        sampling: Sampling,
        with_images: bool,
        batch_size: int,
        max_model_len: int,
        *,
        prefix_caching: bool = False,
        gpus: int = 1,
        deterministic: bool = False,
    ) -> None:
        self.processor = load_processor(folder, with_images)
        self.tokenizer = tokenizer_of(self.processor)
        self.ends = end_tokens(folder, self.tokenizer)
        self.sampling = sampling
        self.batch_size = batch_size
        self.llm = load_engine(
            folder,
            dtype,
            device,
            batch_size,
            max_model_len,
            with_images=with_images,
            prefix_caching=prefix_caching,
            gpus=gpus,
            deterministic=deterministic,
        )

    def with_sampling(self, sampling: Sampling) -> Self:
        """The same engine, for answers that are drawn otherwise. What it has computed of others'
        prefixes is forgotten: low bits of what comes next would depend on it.
        """
        self.llm.reset_prefix_cache()
        other = copy.copy(self)
        other.sampling = sampling
        return other

    def stream(
        self, take: Take[Item[Request]], note: Callable[[str], None]
    ) -> Iterator[Ended[Item[Request], Generated]]:
        """Answers requests, each in the place of one that ended."""

        def prompt_of(item: Item[Request]) -> Prompt:
            return self.prompt_of(item.inputs)

        for ended in EngineStream(self.llm, self.batch_size, prompt_of).run(take):
            yield [(item, self._answer_in(output)) for item, output in ended]

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order."""
        answers = map(self._answer_in, self._outputs([self.prompt_of(each) for each in requests]))
        return [_raised(answer) for answer in answers]

    def prompt_of(self, request: Request) -> Prompt:
        """What the engine is asked."""
        image = request.image
        return Prompt(
            chat_prompt(self.processor, request.text, image is not None, request.system),
            lambda: [] if image is None else [read_image(image)],
            sampling_parameters(
                max_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                seed=request.seed,
                stop_token_ids=self.ends,
            ),
        )

    def _answer_in(self, output: Any) -> Generated | Exception:
        """The answer of an engine's output, or what it failed of."""
        if isinstance(output, Exception):
            return output
        completion = output.outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            return ItemError(f"vLLM ended the answer for the reason '{completion.finish_reason}'")
        return finished(self.tokenizer, list(completion.token_ids), self.ends)

    def _outputs(self, prompts: Sequence[Prompt]) -> list[Any]:
        """What the engine makes of prompts, in their order. What one fails of is raised."""
        numbers = EngineStream(self.llm, self.batch_size, prompts.__getitem__)
        by_number = {
            number: _raised(output)
            for ended in numbers.run(handing_out(range(len(prompts))))
            for number, output in ended
        }
        return [by_number[number] for number in range(len(prompts))]

    def log_probabilities(
        self, questions: Sequence[Question], answers: Sequence[str]
    ) -> list[list[float]]:
        """The log-probability of each answer to each question, read with the question in one."""
        if not questions:
            return []
        with_image = questions[0].image is not None
        blank = blank_before_answer(self.processor, with_image)
        parameters = sampling_parameters(max_tokens=1, temperature=0, prompt_logprobs=1)
        prompts: list[Prompt] = []
        tokens: list[list[int]] = []
        for question in questions:
            asked = chat_prompt(self.processor, question.text, with_image)
            tokens += answer_tokens(self.processor, asked, answers, with_image)
            images = [question.image] if question.image is not None else []
            prompts += [
                Prompt(f"{asked}{blank}{answer}", partial(list, images), parameters)
                for answer in answers
            ]
        found = [
            sum(
                said[token].logprob
                for said, token in zip(
                    output.prompt_logprobs[-len(ids) :],
                    output.prompt_token_ids[-len(ids) :],
                    strict=True,
                )
            )
            for output, ids in zip(self._outputs(prompts), tokens, strict=True)
        ]
        return [found[start : start + len(answers)] for start in range(0, len(found), len(answers))]


def _raised(output: Any) -> Any:
    """The output, unless it is what a prompt failed of."""
    if isinstance(output, Exception):
        raise output
    return output
