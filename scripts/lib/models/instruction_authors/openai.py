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
        self.batch_size = settings.endpoint.concurrency
        job.record.models["endpoint"] = settings.endpoint.model

    @contextmanager
    def at_work(self) -> Iterator[Writer[InstructionRequest]]:
        """Connects to the endpoint."""
        with Client(self.settings.endpoint) as client:
            yield partial(self._submit, client)

    def _submit(
        self, client: Client, requests: Sequence[InstructionRequest]
    ) -> list[Future[WrittenInstruction]]:
        return [client.submit(self._write, client, request) for request in requests]

    def _write(self, client: Client, request: InstructionRequest) -> WrittenInstruction:
        ask = partial(self._ask, client)
        [result] = write_usable(ask, [request], self.settings.require_question)
        if isinstance(result, ItemError):
            raise result
        return result

    def _ask(
        self, client: Client, attempts: Sequence[tuple[InstructionRequest, int]]
    ) -> list[Answer]:
        return [
            client.ask(
                request.text,
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_new_tokens,
                seed=seed,
                image=request.image,
            )
            for request, seed in attempts
        ]
