"""The response rewards that there are."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import SerializeAsAny

from lib import weights
from lib.models.response_rewards.base import ResponseReward
from lib.models.response_rewards.settings import ResponseRewardSettings
from lib.registry import Registry, chosen_from

#: How a class that a checkpoint's config.json names ends -> the kind.
ARCHITECTURES = {
    "ForRewardModelWithGating": "armorm",
    "ForSequenceClassification": "sequence-classification",
}


def _said_by_the_model(values: Mapping[str, Any]) -> str | None:
    """The kind that the model's config.json says, where it is on this machine."""
    model, revision = values.get("model"), values.get("revision", "main")
    if not isinstance(model, str) or not isinstance(revision, str):
        return None
    folder = weights.local_folder(model, revision)
    names = (weights.config_in(folder).get("architectures") or []) if folder else []
    found = [
        kind
        for name in names
        for ending, kind in ARCHITECTURES.items()
        if str(name).endswith(ending)
    ]
    return next(iter(found), None)


RESPONSE_REWARDS: Registry[ResponseReward] = Registry(
    "response reward",
    {
        "armorm": "lib.models.response_rewards.armorm:ArmoRM",
        "sequence-classification": (
            "lib.models.response_rewards.sequence_classification:SequenceClassification"
        ),
        "claims": "lib.models.response_rewards.claims:Claims",
        "claims-endpoint": "lib.models.response_rewards.claims_endpoint:EndpointClaims",
        "vlm-judge": "lib.models.response_rewards.vlm_judge:VlmJudge",
        "vlm-judge-endpoint": "lib.models.response_rewards.vlm_judge_endpoint:EndpointJudge",
    },
    default="armorm",
    said_by=_said_by_the_model,
)
AnyResponseReward = Annotated[SerializeAsAny[ResponseRewardSettings], chosen_from(RESPONSE_REWARDS)]
