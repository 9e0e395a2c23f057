"""An LLM at an OpenAI-compatible endpoint."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field

from lib.blocks import NO_EFFECT, Endpoint, deciding
from lib.endpoint import Answer, Client
from lib.errors import ItemError
from lib.jobs.job import Job
from lib.jobs.streams import Item, in_batches
from lib.models.instruction_authors.base import Writer, WrittenInstruction
from lib.models.instruction_authors.llm import (
    InstructionRequest,
    LLMAuthor,
    LLMSettings,
    write_usable,
)


class OpenAIEndpoint(LLMAuthor):
    """Asks an endpoint, several requests at once."""

    VERSION: ClassVar[int] = 1

    class Settings(LLMSettings):
        """Stage instructions by an endpoint (the paper used GPT-4)."""

        backend: Literal["openai"] = Field(
            "openai", description="Who writes.", json_schema_extra=NO_EFFECT
        )
        endpoint: Endpoint = Field(
            default_factory=lambda: Endpoint(
                base_url="https://api.openai.com/v1", model="gpt-4o-2024-08-06"
            ),
            description="Where it is asked.",
            json_schema_extra=NO_EFFECT,
        )

        @property
        def llm_endpoint(self) -> Endpoint:
            """The endpoint."""
            return self.endpoint

    def __init__(self, settings: Settings, job: Job[Any], written: Mapping[str, str]) -> None:
        super().__init__(settings, job, identity=deciding(settings.endpoint))
        self.settings = settings
        job.record.models["endpoint"] = settings.endpoint.model

    @contextmanager
    def at_work(self) -> Iterator[Writer[InstructionRequest]]:
        """Connects to the endpoint."""
        with Client(self.settings.endpoint) as client:
            yield in_batches(partial(self._submit, client), self.settings.endpoint.concurrency)

    def _submit(
        self, client: Client, batch: Sequence[Item[InstructionRequest]]
    ) -> list[Future[WrittenInstruction]]:
        return [client.submit(self._write, client, item.inputs) for item in batch]

    def _write(self, client: Client, request: InstructionRequest) -> WrittenInstruction:
        result = write_usable(partial(self._ask, client), request, self.settings.require_question)
        if isinstance(result, ItemError):
            raise result
        return result

    def _ask(self, client: Client, request: InstructionRequest, seed: int) -> Answer:
        return client.ask(
            request.text,
            temperature=self.settings.temperature,
            max_tokens=self.settings.max_new_tokens,
            seed=seed,
            image=request.image,
        )
