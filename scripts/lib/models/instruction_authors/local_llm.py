"""A local LLM, or a vision-language model that sees the picture, run by transformers or by vLLM."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lib.blocks import NO_EFFECT, Model, deterministic_field, gpus_field
from lib.errors import ItemError
from lib.jobs.job import Job
from lib.jobs.streams import Ended, Item, Take
from lib.models.instruction_authors.base import Writer, WrittenInstruction
from lib.models.instruction_authors.llm import (
    InstructionRequest,
    LLMAuthor,
    LLMSettings,
    checked,
)
from lib.models.response_generators.base import Generator
from lib.models.response_generators.for_jobs import (
    generator_in_key,
    generator_settings,
    load_for_job,
)
from lib.models.response_generators.requests import Request, Sampling
from lib.models.response_generators.settings import (
    GeneratorSettings,
    is_blind,
    problem_with_gpus,
)


class LocalLLMSettings(LLMSettings):
    """A model, and how many prompts share a batch."""

    llm: Model = Field(description="The model.", json_schema_extra=NO_EFFECT)
    prompts_per_batch: PositiveInt = Field(
        1,
        description=(
            "Prompts that are written about at once, as `responses.prompts_per_batch`. Over 1 it is"
            " faster, and low bits may depend on what is; the record says so."
        ),
        json_schema_extra=NO_EFFECT,
    )
    deterministic: bool = deterministic_field(NO_EFFECT, "prompts")
    gpus: PositiveInt = gpus_field()

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

    @model_validator(mode="after")
    def _can_be_spread(self) -> Self:
        if problem := problem_with_gpus(self.llm, self.backend, self.gpus):
            raise ValueError(f"`gpus`: {problem}")
        return self


class LocalLLM(LLMAuthor):
    """Asks a model that runs in the job."""

    def __init__(
        self, settings: LocalLLMSettings, job: Job[Any], written: Mapping[str, str]
    ) -> None:
        identity = {"model": job.identify(settings.llm), **generator_in_key(settings.generator)}
        super().__init__(settings, job, identity)
        self.settings, self.job = settings, job

    @contextmanager
    def at_work(self) -> Iterator[Writer[InstructionRequest]]:
        """Loads the model."""
        settings = self.settings
        generator = load_for_job(
            self.job,
            settings.generator,
            Sampling(settings.max_new_tokens, settings.temperature),
            with_images=settings.with_image,
            batch_size=settings.prompts_per_batch,
            of="prompts",
        )
        yield Attempts(generator, self.job.note, settings.require_question).stream


class Attempts:
    """What a local model is asked and writes. What fails the checks is asked for again, with the
    next seed, before anything new is.
    """

    def __init__(
        self, generator: Generator, note: Callable[[str], None], require_question: bool
    ) -> None:
        self.generator, self.note, self.require_question = generator, note, require_question
        self._again: deque[Item[InstructionRequest]] = deque()
        self._asked: dict[str, Item[InstructionRequest]] = {}
        self._attempts: Counter[str] = Counter()

    def stream(
        self, take: Take[Item[InstructionRequest]]
    ) -> Iterator[Ended[Item[InstructionRequest], WrittenInstruction]]:
        """The instruction of each item, or why there is none."""
        for answers in self.generator.stream(partial(self._take, take), self.note):
            results = [(self._asked.pop(each.id), answer) for each, answer in answers]
            ended = [(item, self._written(item, answer)) for item, answer in results]
            if settled := [(item, written) for item, written in ended if written is not None]:
                yield settled

    def _take(self, take: Take[Item[InstructionRequest]], number: int) -> list[Item[Request]]:
        items = [self._again.popleft() for _ in range(min(number, len(self._again)))]
        items += take(number - len(items))
        self._asked |= {item.id: item for item in items}
        return [self._attempt(item) for item in items]

    def _attempt(self, item: Item[InstructionRequest]) -> Item[Request]:
        seed = item.inputs.seeds[self._attempts[item.id]]
        return Item(item.id, item.key, Request(item.inputs.text, seed, item.inputs.image))

    def _written(
        self, item: Item[InstructionRequest], answer: Any
    ) -> WrittenInstruction | Exception | None:
        """What has become of an item; None where it is asked again."""
        if isinstance(answer, Exception):
            return answer
        self._attempts[item.id] += 1
        attempts = self._attempts[item.id]
        written = checked(answer, item.inputs, attempts, self.require_question)
        if isinstance(written, ItemError) and attempts < len(item.inputs.seeds):
            self._again.append(item)
            return None
        return written


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
