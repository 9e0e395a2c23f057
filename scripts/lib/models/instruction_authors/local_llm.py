"""A local LLM, or a vision-language model that sees the picture, run by transformers or by vLLM."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lib.blocks import NO_EFFECT, Model
from lib.jobs.job import Job
from lib.models.instruction_authors.base import Writer
from lib.models.instruction_authors.llm import (
    InstructionRequest,
    LLMAuthor,
    LLMSettings,
    write_usable,
)
from lib.models.response_generators.base import Generator
from lib.models.response_generators.for_jobs import (
    generator_in_key,
    generator_settings,
    load_for_job,
)
from lib.models.response_generators.requests import Generated, Request, Sampling
from lib.models.response_generators.settings import GeneratorSettings, is_blind


class LocalLLMSettings(LLMSettings):
    """A model, and how many prompts share a batch."""

    llm: Model = Field(description="The model.", json_schema_extra=NO_EFFECT)
    prompts_per_batch: PositiveInt = Field(
        1,
        description=(
            "Prompts in one batch. Over 1 it is faster, and low bits may depend on what shares a"
            " batch; the record says so."
        ),
        json_schema_extra=NO_EFFECT,
    )

    @property
    def generator(self) -> GeneratorSettings:
        """The model, and what runs it."""
        return generator_settings(self.llm, self)

    @model_validator(mode="after")
    def _sees(self) -> Self:
        if self.with_image and is_blind(self.llm):
            raise ValueError(
                f"`with_image`: {self.llm.model} is no vision-language model (its config.json has"
                " no `vision_config`). Take one that reads pictures as `llm`, or set it to false"
            )
        return self


class LocalLLM(LLMAuthor):
    """Asks a model that runs in the job."""

    def __init__(
        self, settings: LocalLLMSettings, job: Job[Any], written: Mapping[str, str]
    ) -> None:
        identity = {"model": job.identify(settings.llm), **generator_in_key(settings.generator)}
        super().__init__(settings, job, identity)
        self.settings, self.job = settings, job
        self.batch_size = settings.prompts_per_batch

    @contextmanager
    def at_work(self) -> Iterator[Writer[InstructionRequest]]:
        """Loads the model."""
        settings = self.settings
        generator = load_for_job(
            self.job,
            settings.generator,
            Sampling(settings.max_new_tokens, settings.temperature),
            with_images=settings.with_image,
            batch_size=self.batch_size,
            of="prompts",
        )
        ask = partial(ask_generator, generator)
        yield partial(write_usable, ask, require_question=settings.require_question)


def ask_generator(
    generator: Generator, attempts: Sequence[tuple[InstructionRequest, int]]
) -> list[Generated]:
    """The answers of a local model, as one batch."""
    return generator.generate(
        [Request(request.text, seed, request.image) for request, seed in attempts]
    )


class TransformersLLM(LocalLLM):
    """Asks a model that transformers runs."""

    VERSION: ClassVar[int] = 1

    class Settings(LocalLLMSettings):
        """Stage instructions by a local LLM under transformers."""

        backend: Literal["transformers"] = Field(
            description="Who writes.", json_schema_extra=NO_EFFECT
        )


class VllmLLM(LocalLLM):
    """Asks a model that vLLM runs."""

    VERSION: ClassVar[int] = 1

    class Settings(LocalLLMSettings):
        """Stage instructions by a local LLM under vLLM."""

        backend: Literal["vllm"] = Field(description="Who writes.", json_schema_extra=NO_EFFECT)
        # The engine ends an answer there, too; it is in the keys of items as the generator's.
        max_model_len: PositiveInt = Field(
            4096,
            description="Tokens of question and instruction together.",
            json_schema_extra=NO_EFFECT,
        )
