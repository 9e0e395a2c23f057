"""The policy models that there are."""

from typing import Annotated, Any

from pydantic import AfterValidator, SerializeAsAny

from lib.models.policy_models.settings import PolicyModelSettings
from lib.registry import Registry, chosen_from

POLICY_MODELS: Registry[Any] = Registry(
    "backend of policy models",
    {
        "vllm": "lib.models.policy_models.local:VllmPolicy",
        "transformers": "lib.models.policy_models.local:TransformersPolicy",
        "openai": "lib.models.policy_models.openai:EndpointPolicy",
        "file": "lib.models.policy_models.own_file:AnswerFile",
    },
    key="backend",
)
AnyPolicyModel = Annotated[SerializeAsAny[PolicyModelSettings], chosen_from(POLICY_MODELS)]


def _known_backend(name: str) -> str:
    if name not in POLICY_MODELS.kinds:
        raise ValueError(POLICY_MODELS.problem_with(name))
    return name


#: A configured backend.
PolicyBackend = Annotated[str, AfterValidator(_known_backend)]
