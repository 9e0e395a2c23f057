"""An LLM at an OpenAI-compatible endpoint."""

from typing import ClassVar, Literal

from pydantic import Field

from lib.blocks import NO_EFFECT, Endpoint
from lib.models.instruction_authors.llm import LLMSettings


class OpenAIEndpoint:
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
