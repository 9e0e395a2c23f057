"""A vision-language model that runs in the job, by transformers or by vLLM."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self

from pydantic import PositiveInt, model_validator

from lib import weights
from lib.blocks import Model, deciding, gpus_field
from lib.data.rows import InstructionRow
from lib.jobs.job import Job
from lib.models.policy_models.base import Answerer
from lib.models.policy_models.requests import request_for
from lib.models.policy_models.settings import (
    DrawnPolicySettings,
    ResponseSettings,
    backend_field,
)
from lib.models.response_generators.for_jobs import (
    answers_for_job,
    generator_in_key,
    generator_settings,
    load_for_job,
)
from lib.models.response_generators.requests import Request, Sampling
from lib.models.response_generators.settings import GeneratorSettings, problem_with_gpus


class LocalPolicySettings(DrawnPolicySettings, Model):
    """A model that runs in the job."""

    gpus: PositiveInt = gpus_field()

    @model_validator(mode="after")
    def _can_be_spread(self) -> Self:
        if problem := problem_with_gpus(self, self.backend, self.gpus):
            raise ValueError(f"`gpus`: {problem}")
        return self

    @property
    def source(self) -> tuple[str, ...]:
        """The model's folder, or its repository and revision."""
        if weights.is_folder(self.model):
            return (str(weights.folder_of(self.model).resolve()),)
        return self.model, self.revision

    @property
    def needs_gpu(self) -> bool:
        """It runs in the job."""
        return True

    def generator(self, responses: ResponseSettings) -> GeneratorSettings:
        """The model, and what runs it."""
        return generator_settings(responses, self)


class LocalPolicy:
    """Asks a model that runs in the job."""

    def __init__(
        self,
        settings: LocalPolicySettings,
        responses: ResponseSettings,
        job: Job[Any],
        written: Mapping[str, Sequence[Any]],
    ) -> None:
        self.job, self.responses = job, responses
        self.generator = settings.generator(responses)
        self.identity = job.identify(settings)
        self.generation = generator_in_key(self.generator) | deciding(responses)

    def prepare(self, row: InstructionRow, sample: int) -> tuple[dict[str, Any], Request]:
        """All that determines an answer, and what the model is asked."""
        decides, request = request_for(row, self.job, self.identity, sample)
        return {**decides, "model": self.identity, "generation": self.generation}, request

    @contextmanager
    def at_work(self) -> Iterator[Answerer[Request]]:
        """Loads the model."""
        responses = self.responses
        generator = load_for_job(
            self.job,
            self.generator,
            Sampling(responses.max_new_tokens, responses.temperature, responses.top_p),
            with_images=True,
            batch_size=responses.prompts_per_batch,
            of="prompts",
        )
        yield answers_for_job(self.job, generator, "instruction")


class TransformersPolicy(LocalPolicy):
    """Asks a model that transformers runs."""

    VERSION: ClassVar[int] = 1

    class Settings(LocalPolicySettings):
        """A policy model under transformers."""

        backend: Literal["transformers"] = backend_field("transformers")


class VllmPolicy(LocalPolicy):
    """Asks a model that vLLM runs."""

    VERSION: ClassVar[int] = 1

    class Settings(LocalPolicySettings):
        """A policy model under vLLM."""

        backend: Literal["vllm"] = backend_field("vllm")
