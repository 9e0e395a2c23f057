"""What the settings of all policy models have, and what they share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from lib.blocks import NO_EFFECT, Block, Endpoint, deterministic_field
from lib.data.prompts import Prompt
from lib.models.response_generators.settings import GeneratorSettings


class ResponseSettings(Block):
    """How policy models answer (paper 3.3, Eq. 8; sampling as the published code leaves it)."""

    # What is the generator's is in the keys of items as such.
    backend: str = Field(
        "vllm",
        description="What answers where a policy model's own `backend` does not say it.",
        json_schema_extra=NO_EFFECT,
    )
    max_new_tokens: PositiveInt = Field(
        1000,
        description=(
            "Length limit of a response; one that reaches it is truncated and never becomes part of"
            " a pair."
        ),
    )
    temperature: float = Field(
        0.0,
        ge=0,
        description=(
            "0 is greedy, as the published code decodes. What a model's own generation_config.json"
            " says besides (penalties, banned tokens) is left out, and noted."
        ),
    )
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")
    prompts_per_batch: PositiveInt = Field(
        1,
        description=(
            "Prompts a policy model answers at once, each of its samples counted. vLLM takes the"
            " next one wherever one ends; with transformers they are a batch, which ends with its"
            " longest answer. Over 1 it is faster, and low bits may depend on what is answered at"
            " once; the record says so."
        ),
        json_schema_extra=NO_EFFECT,
    )
    max_model_len: PositiveInt = Field(
        4096,
        description="vLLM: tokens of image, instruction and response together.",
        json_schema_extra=NO_EFFECT,
    )
    deterministic: bool = deterministic_field(NO_EFFECT, "prompts")


def backend_field(kind: Any = ...) -> Any:
    """The field `backend` of a kind of policy model. Who answers is in the keys of items by its
    identity.
    """
    return Field(
        kind,
        description="What answers; where it is not said, `responses.backend`.",
        json_schema_extra=NO_EFFECT,
    )


class PolicyModelSettings(Block):
    """What the settings of all policy models have."""

    #: Whether answers are drawn: a seed then tells one from another, unless the temperature is 0.
    IS_DRAWN: ClassVar[bool] = False

    backend: str = backend_field()
    # It decides which items there are, and none of them.
    samples: PositiveInt = Field(
        1,
        description=(
            "Answers to each instruction, each with a seed of its own, by one job that loads the"
            " model once. Over 1 they are ranked as `<name>#1`, `<name>#2`, ..."
        ),
        json_schema_extra=NO_EFFECT,
    )

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that answers."""
        return "vllm"

    @property
    def source(self) -> tuple[str, ...]:
        """Where the answers come from: two policy models with one source are samples of it."""
        raise NotImplementedError

    @property
    def own_sampling(self) -> dict[str, float]:
        """How its answers are drawn, as far as that is not as the stage's are."""
        return {}

    @property
    def llm_endpoint(self) -> Endpoint | None:
        """The endpoint that is asked; None where none is."""
        return None

    @property
    def needs_gpu(self) -> bool:
        """Whether a model runs in the job itself."""
        return False

    def generator(self, responses: ResponseSettings) -> GeneratorSettings | None:
        """The model that runs in the job and what runs it; None where none does."""
        return None

    def read_written(self, prompts: Iterable[Prompt]) -> Mapping[str, Sequence[Any]] | None:
        """The answers that the user has, by prompt id; None where a model gives them. Errors:
        UserError where a prompt would get no usable answer.
        """
        return None


class DrawnPolicySettings(PolicyModelSettings):
    """What the settings of policy models have whose answers are drawn."""

    IS_DRAWN: ClassVar[bool] = True

    # In the keys of items they stand in place of the stage's.
    temperature: float | None = Field(
        None,
        ge=0,
        description="0 is greedy; null is `responses.temperature`.",
        json_schema_extra=NO_EFFECT,
    )
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Nucleus sampling; null is `responses.top_p`.",
        json_schema_extra=NO_EFFECT,
    )

    @property
    def own_sampling(self) -> dict[str, float]:
        """The temperature and the nucleus, where it has its own."""
        own = {"temperature": self.temperature, "top_p": self.top_p}
        return {name: value for name, value in own.items() if value is not None}
