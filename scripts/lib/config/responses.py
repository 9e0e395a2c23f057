"""Stage responses: one answer by each policy model."""

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from lib.blocks import NO_EFFECT, Block, Model, Name
from lib.models.response_generators.for_jobs import generator_settings
from lib.models.response_generators.registry import Backend
from lib.models.response_generators.settings import GeneratorSettings


class ResponseSettings(Block):
    """How policy models answer (paper 3.3, Eq. 8; greedily, as the published code)."""

    # What is the generator's is in the keys of items as such.
    backend: Backend = Field(
        "vllm", description="What runs the policy models.", json_schema_extra=NO_EFFECT
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
            "Prompts a policy model answers in one batch. Over 1 it is faster, and low bits may"
            " depend on what shares a batch; the record says so."
        ),
        json_schema_extra=NO_EFFECT,
    )
    max_model_len: PositiveInt = Field(
        4096,
        description="vLLM: tokens of image, instruction and response together.",
        json_schema_extra=NO_EFFECT,
    )


class Responses(ResponseSettings):
    """Stage responses: one answer by each policy model (paper 3.3, Eq. 8)."""

    policy_models: dict[Name, Model] = Field(
        default_factory=lambda: {
            "llava-v1.6-mistral-7b": Model(
                model="llava-hf/llava-v1.6-mistral-7b-hf",
                revision="2424fdd47412fccc66d91719126b420e9fbd7065",
            ),
            "llava-v1.6-vicuna-7b": Model(
                model="llava-hf/llava-v1.6-vicuna-7b-hf",
                revision="c916e6cdcd760b4cecd1dd4907f84ac649f93b23",
            ),
            "llava-v1.6-vicuna-13b": Model(
                model="llava-hf/llava-v1.6-vicuna-13b-hf",
                revision="745cfbdb14dfeff9bcc6eb731937102e88ea3024",
            ),
            "llama3-llava-next-8b": Model(
                model="llava-hf/llama3-llava-next-8b-hf",
                revision="b041c0d0ea0dd0196d147206c210c8d1752fc2da",
            ),
        },
        min_length=2,
        description="By name, at least two; each answers every instruction.",
    )

    @model_validator(mode="after")
    def _policy_models_differ(self) -> Self:
        homes: dict[tuple[str, str], str] = {}
        for name, policy in self.policy_models.items():
            if (other := homes.setdefault((policy.model, policy.revision), name)) != name:
                raise ValueError(
                    f"policy models '{other}' and '{name}' are the same model '{policy.model}': "
                    "their answers cannot be ranked against each other. Take one of them out"
                )
        return self

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that answers."""
        return self.generator_of(next(iter(self.policy_models))).environment

    def generator_of(self, policy: str) -> GeneratorSettings:
        """What runs a policy model."""
        return generator_settings(self.policy_models[policy], self)

    def job_of(self, policy: str) -> "GenerateResponsesJob":
        """Parameters of generate_responses for one policy model."""
        shared = {name: getattr(self, name) for name in ResponseSettings.model_fields}
        return GenerateResponsesJob(policy=self.policy_models[policy], **shared)


class GenerateResponsesJob(ResponseSettings):
    """What rule generate_responses is told of one policy model."""

    policy: Model = Field(json_schema_extra=NO_EFFECT)
