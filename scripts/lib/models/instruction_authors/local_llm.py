"""A local LLM, run by transformers or by vLLM."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from lib.blocks import NO_EFFECT, Model
from lib.models.instruction_authors.llm import LLMSettings


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
    def needs_gpu(self) -> bool:
        """The model runs in the job."""
        return True


class TransformersLLM:
    """Asks a model that transformers runs."""

    VERSION: ClassVar[int] = 1

    class Settings(LocalLLMSettings):
        """Stage instructions by a local LLM under transformers."""

        backend: Literal["transformers"] = Field(
            description="Who writes.", json_schema_extra=NO_EFFECT
        )


class VllmLLM:
    """Asks a model that vLLM runs."""

    VERSION: ClassVar[int] = 1

    class Settings(LocalLLMSettings):
        """Stage instructions by a local LLM under vLLM."""

        backend: Literal["vllm"] = Field(description="Who writes.", json_schema_extra=NO_EFFECT)
        max_model_len: PositiveInt = Field(
            4096, description="Tokens of question and instruction together."
        )
