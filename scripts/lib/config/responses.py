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
        if isinstance(values, Mapping) and "policy_models" not in values:
            if not _runs_models(values):
                raise ValueError(
                    f"`backend: {values['backend']}` is of no model that is here by default. Name"
                    " your `policy_models`, each with what it needs (docs/adding-a-model.md)"
                )
            values = {**values, "policy_models": PAPER_S}
        return with_backends(values)

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


def _shared_backend(responses: Mapping[str, Any]) -> str:
    """What answers where a policy model does not say it. What is wrong with `backend` is said of
    it, and not of each policy model, too.
    """
    return next((kind for kind in POLICY_MODELS.kinds if kind == responses.get("backend")), "vllm")


def _runs_models(responses: Mapping[str, Any]) -> bool:
    """Whether what answers, where a policy model does not say it, runs a model in the job."""
    return "model" in POLICY_MODELS.settings_of(_shared_backend(responses)).model_fields


def with_backends(responses: Any) -> Any:
    """The values of block `responses`, in which every policy model says what answers."""
    policies = responses.get("policy_models") if isinstance(responses, Mapping) else None
    if not isinstance(policies, Mapping):
        return responses
    shared = {"backend": _shared_backend(responses)}
    told = {
        name: {**shared, **policy} if isinstance(policy, Mapping) else policy
        for name, policy in policies.items()
    }
    return {**responses, "policy_models": told}


def with_base_model(responses: Any, base_model: Mapping[str, Any]) -> Any:
    """The values of block `responses`, with the base model's where it is a policy model.
    `base_model`: the values of `training.base_model`. Errors: ValueError.
    """
    policies = responses.get("policy_models") if isinstance(responses, Mapping) else None
    if not isinstance(policies, Mapping):
        return responses
    told = {}
    for name, policy in policies.items():
        own = {"model": policy} if policy == BASE else policy
        is_base = isinstance(own, Mapping) and own.get("model") == BASE
        if is_base and "backend" not in own and not _runs_models(responses):
            raise ValueError(
                f"`responses.policy_models.{name}`: the base model runs in the job, and"
                f" `responses.backend` is {responses['backend']}. Say what runs it, e.g. `backend:"
                " vllm`"
            )
        told[name] = _told_base(name, own, base_model) if is_base else policy
    return {**responses, "policy_models": told}


def _told_base(name: str, own: Mapping[str, Any], base_model: Mapping[str, Any]) -> dict[str, Any]:
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
