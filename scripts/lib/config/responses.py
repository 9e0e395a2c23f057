"""Stage responses: answers by each policy model."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from lib.blocks import NO_EFFECT, Model, Name
from lib.data.samples import names_of
from lib.models.policy_models.local import VllmPolicy
from lib.models.policy_models.registry import POLICY_MODELS, AnyPolicyModel, PolicyBackend
from lib.models.policy_models.settings import PolicyModelSettings, ResponseSettings

PAPER_S = {
    "llava-v1.6-mistral-7b": {
        "model": "llava-hf/llava-v1.6-mistral-7b-hf",
        "revision": "2424fdd47412fccc66d91719126b420e9fbd7065",
    },
    "llava-v1.6-vicuna-7b": {
        "model": "llava-hf/llava-v1.6-vicuna-7b-hf",
        "revision": "c916e6cdcd760b4cecd1dd4907f84ac649f93b23",
    },
    "llava-v1.6-vicuna-13b": {
        "model": "llava-hf/llava-v1.6-vicuna-13b-hf",
        "revision": "745cfbdb14dfeff9bcc6eb731937102e88ea3024",
    },
    "llama3-llava-next-8b": {
        "model": "llava-hf/llama3-llava-next-8b-hf",
        "revision": "b041c0d0ea0dd0196d147206c210c8d1752fc2da",
    },
}


#: In place of a policy model's `model`, or of a policy model: the base model, whose answers are
#: then on-policy data. A folder of that name is `./base`.
BASE = "base"


def _or_base(schema: dict[str, Any]) -> None:
    """Has an editor take the short form as well."""
    for block in schema["patternProperties"].values():
        block["anyOf"].append({"const": BASE})


def _default_policy_models() -> dict[str, PolicyModelSettings]:
    return {name: VllmPolicy.Settings(backend="vllm", **model) for name, model in PAPER_S.items()}


class Responses(ResponseSettings):
    """Stage responses: answers by each policy model (paper 3.3, Eq. 8)."""

    backend: PolicyBackend = Field(
        "vllm",
        description="What answers where a policy model's own `backend` does not say it.",
        json_schema_extra=NO_EFFECT,
    )
    policy_models: dict[Name, AnyPolicyModel] = Field(
        default_factory=_default_policy_models,
        description=(
            "By name; each answers every instruction, and there have to be two answers at least."
            " `model: base`, or `<name>: base` in short, is the base model, whose data are then"
            " on-policy."
        ),
        json_schema_extra=_or_base,
    )

    @model_validator(mode="before")
    @classmethod
    def _what_answers_is_said_once(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        # What is wrong with `backend` is said of it, and not of each policy model, too.
        known = (kind for kind in POLICY_MODELS.kinds if kind == values.get("backend"))
        shared = next(known, "vllm")
        is_local = "model" in POLICY_MODELS.settings_of(shared).model_fields
        if "policy_models" not in values and not is_local:
            raise ValueError(
                f"`backend: {shared}` is of no model that is here by default. Name your"
                " `policy_models`, each with what it needs (docs/adding-a-model.md)"
            )
        policies = values.get("policy_models", PAPER_S)
        if not isinstance(policies, Mapping):
            return values
        told = {
            name: {"backend": shared, **policy} if isinstance(policy, Mapping) else policy
            for name, policy in policies.items()
        }
        return {**values, "policy_models": told}

    @field_validator("policy_models")
    @classmethod
    def _there_is_something_to_rank(
        cls, policies: dict[str, PolicyModelSettings]
    ) -> dict[str, PolicyModelSettings]:
        if (answers := sum(policy.samples for policy in policies.values())) < 2:
            raise ValueError(
                f"a pair is made of at least 2 answers, and there would be {answers}. Add a policy"
                " model, or give one `samples: 2`"
            )
        return policies

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        homes: dict[tuple[str, ...], str] = {}
        for name, policy in self.policy_models.items():
            if policy.IS_DRAWN and policy.own_sampling.get("temperature", self.temperature):
                continue
            if policy.IS_DRAWN and policy.samples > 1:
                raise ValueError(
                    f"policy model '{name}' has `samples: {policy.samples}`, and with `temperature:"
                    " 0` they are all the same answer. Give it a `temperature`, or `samples: 1`"
                )
            if (other := homes.setdefault(policy.source, name)) != name:
                mend = ", or give one a `temperature`" if policy.IS_DRAWN else ""
                raise ValueError(
                    f"policy models '{other}' and '{name}' are the same, and so give the same"
                    f" answers. Take one of them out{mend}"
                )
        return self

    @property
    def answer_names(self) -> list[str]:
        """What all answers are called, in the configured order."""
        return [
            answer
            for name, policy in self.policy_models.items()
            for answer in names_of(name, policy.samples)
        ]

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that answers."""
        return next(iter(self.policy_models.values())).environment

    def job_of(self, policy: str, written: Path | None = None) -> "GenerateResponsesJob":
        """Parameters of generate_responses for one policy model. `written`: the file with what the
        user has of its answers.
        """
        shared = {name: getattr(self, name) for name in ResponseSettings.model_fields}
        return GenerateResponsesJob(
            policy=self.policy_models[policy],
            first_sample=self._first_samples()[policy],
            written=written,
            **{**shared, **self.policy_models[policy].own_sampling},
        )

    def _first_samples(self) -> dict[str, int]:
        """The number of each policy model's first sample: those of one source count on."""
        taken: Counter[tuple[str, ...]] = Counter()
        first = {}
        for name, policy in self.policy_models.items():
            first[name] = taken[policy.source] + 1
            taken[policy.source] += policy.samples
        return first


def with_base_model(responses: Any, base_model: Mapping[str, Any]) -> Any:
    """The values of block `responses`, with the base model's where it is a policy model.
    `base_model`: the values of `training.base_model`. Errors: ValueError.
    """
    policies = responses.get("policy_models") if isinstance(responses, Mapping) else None
    if not isinstance(policies, Mapping):
        return responses
    told = {name: _told_base(name, policy, base_model) for name, policy in policies.items()}
    return {**responses, "policy_models": told}


def _told_base(name: str, policy: Any, base_model: Mapping[str, Any]) -> Any:
    own = {"model": policy} if policy == BASE else policy
    if not isinstance(own, Mapping) or own.get("model") != BASE:
        return policy
    if "revision" in own:
        raise ValueError(
            f"`responses.policy_models.{name}`: the base model answers in the revision that"
            " `training.base_model` says. Take `revision` out, or name the model itself"
        )
    known = {key: base_model[key] for key in Model.model_fields if key in base_model}
    return {**known, **own, "model": known.get("model", BASE)}


class GenerateResponsesJob(ResponseSettings):
    """What rule generate_responses is told of one policy model: who answers, the number of the
    first of its samples, and the file with what the user has of its answers, as the run read it
    when it began.
    """

    policy: AnyPolicyModel = Field(json_schema_extra=NO_EFFECT)
    first_sample: PositiveInt = Field(1, json_schema_extra=NO_EFFECT)
    written: Path | None = Field(None, json_schema_extra=NO_EFFECT)
