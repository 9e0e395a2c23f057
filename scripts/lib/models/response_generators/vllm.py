"""Answers by vLLM's offline engine, in this process."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from lib import weights
from lib.data.image_files import read_image
from lib.errors import ItemError, UserError
from lib.jobs.device import require_device
from lib.jobs.streams import Ended, Item, Take, handing_out
from lib.loading import check_whole
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
from lib.models.response_generators.vllm_stream import EngineStream, Prompt


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
        require_device(device)
        if sampling.beams > 1:
            raise ValueError("beams are searched by transformers alone")
        folder = weights.fetch(settings.model, settings.revision)
        length = settings.max_model_len
        return cls(folder, settings.dtype, device, sampling, with_images, batch_size, length)

    def __init__(
        self,
        folder: Path,
        dtype: str,
        device: str,
        sampling: Sampling,
        with_images: bool,
        batch_size: int,
        max_model_len: int,
    ) -> None:
        # In this process, so that a killed job leaves no engine behind on the GPU, and requests are
        # scheduled in the order given.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING" if device == "cuda" else "ERROR")
        if device == "cpu":
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
            # Bound threads of two jobs would share one core while the others idle.
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        from vllm import LLM, SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self.processor = load_processor(folder, with_images)
        self.tokenizer = tokenizer_of(self.processor)
        self.ends = end_tokens(folder, self.tokenizer)
        self.sampling = sampling
        self.batch_size = batch_size
        self._parameters = partial(SamplingParams, output_kind=RequestOutputKind.FINAL_ONLY)
        check_whole(folder, with_images)  # vLLM itself lets linear layers be missing
        try:
            self.llm = LLM(
                str(folder),
                dtype=dtype,
                max_model_len=max_model_len,
                max_num_seqs=batch_size,
                enforce_eager=device == "cpu",
                # A prefix taken from another request's cache was computed in other pieces: low bits
                # would depend on the order.
                enable_prefix_caching=False,
                limit_mm_per_prompt={"image": 1} if with_images else {},
                mm_processor_cache_gb=0,  # no image is asked about twice
                load_format="safetensors",
                trust_remote_code=False,
                seed=0,
                disable_log_stats=True,
            )
        except Exception as error:
            raise UserError(
                f"{folder}: vLLM cannot load this model: {_vllm_reason(error)}"
            ) from error

    def stream(
        self, take: Take[Item[Request]], note: Callable[[str], None]
    ) -> Iterator[Ended[Item[Request], Generated]]:
        """Answers requests, each in the place of one that ended."""

        def prompt_of(item: Item[Request]) -> Prompt:
            return self._prompt_of(item.inputs)

        for ended in EngineStream(self.llm, self.batch_size, prompt_of).run(take):
            yield [(item, self._answer_in(output)) for item, output in ended]

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order."""
        answers = map(self._answer_in, self._outputs([self._prompt_of(each) for each in requests]))
        return [_raised(answer) for answer in answers]

    def _prompt_of(self, request: Request) -> Prompt:
        image = request.image
        return Prompt(
            chat_prompt(self.processor, request.text, image is not None, request.system),
            lambda: [] if image is None else [read_image(image)],
            self._parameters(
                max_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                seed=request.seed,
                stop_token_ids=self.ends,
                detokenize=False,
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
        parameters = self._parameters(max_tokens=1, temperature=0, prompt_logprobs=1)
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


def _vllm_reason(error: BaseException) -> str:
    """The line of vLLM's message that says what is wrong; pydantic puts others before it."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return next(
        (line for line in lines if line.startswith("Value error")),
        lines[0] if lines else type(error).__name__,
    )
