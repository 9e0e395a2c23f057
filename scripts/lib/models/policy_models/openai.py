"""A model that sees images, at an OpenAI-compatible endpoint."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field

from lib.blocks import NO_EFFECT, Endpoint, deciding
from lib.data.rows import InstructionRow
from lib.endpoint import Client
from lib.errors import ItemError
from lib.files import digest
from lib.jobs.job import Job
from lib.jobs.streams import Item, in_batches
from lib.models.policy_models.base import Answerer
from lib.models.policy_models.requests import request_for
from lib.models.policy_models.settings import (
    DrawnPolicySettings,
    ResponseSettings,
    backend_field,
)
from lib.models.response_generators.for_jobs import GeneratedText
from lib.models.response_generators.requests import Request


class EndpointPolicy:
    """Asks an endpoint, several requests at once, each with the picked image."""

    VERSION: ClassVar[int] = 1

    class Settings(DrawnPolicySettings):
        """A policy model at an endpoint; it has to see images."""

        backend: Literal["openai"] = backend_field("openai")
        endpoint: Endpoint = Field(description="Where it is asked.", json_schema_extra=NO_EFFECT)

        @property
        def source(self) -> tuple[str, ...]:
            """What is asked, wherever its server is."""
            return self.endpoint.model, digest(deciding(self.endpoint))

        @property
        def llm_endpoint(self) -> Endpoint:
            """The endpoint."""
            return self.endpoint

    def __init__(
        self,
        settings: Settings,
        responses: ResponseSettings,
        job: Job[Any],
        written: Mapping[str, Sequence[Any]],
    ) -> None:
        self.job, self.responses, self.endpoint = job, responses, settings.endpoint
        self.identity = deciding(settings.endpoint)
        job.record.models["endpoint"] = settings.endpoint.model

    def prepare(self, row: InstructionRow, sample: int) -> tuple[dict[str, Any], Request]:
        """All that determines an answer, and what the endpoint is asked."""
        decides, request = request_for(row, self.job, digest(self.identity), sample)
        generation = deciding(self.responses)
        return {**decides, "endpoint": self.identity, "generation": generation}, request

    @contextmanager
    def at_work(self) -> Iterator[Answerer[Request]]:
        """Connects to the endpoint."""
        with Client(self.endpoint) as client:
            yield in_batches(partial(self._submit, client), self.endpoint.concurrency)

    def _submit(
        self, client: Client, batch: Sequence[Item[Request]]
    ) -> list[Future[GeneratedText]]:
        return [client.submit(self._answer, client, item.inputs) for item in batch]

    def _answer(self, client: Client, request: Request) -> GeneratedText:
        responses = self.responses
        # Servers that draw from all tokens anyway do not all know `top_p`.
        nucleus = {"top_p": responses.top_p} if responses.top_p < 1 else {}
        answer = client.ask(
            request.text,
            temperature=responses.temperature,
            max_tokens=responses.max_new_tokens,
            seed=request.seed,
            image=request.image,
            parameters=nucleus,
        )
        if answer.finish_reason == "content_filter":
            raise ItemError("the endpoint's content filter cut the answer off")
        text = answer.text.strip()
        if any(unicodedata.category(character) == "Cs" for character in text):
            raise ItemError("the answer holds a lone surrogate, which no file can hold")
        result: GeneratedText = {"text": text, "finish_reason": answer.finish_reason}
        if answer.tokens is not None:
            result["tokens"] = answer.tokens
        return result
