"""The response rewards that there are."""

from functools import partial
from typing import Annotated

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
    said_by=partial(weights.kind_by_architecture, endings=ARCHITECTURES),
)
AnyResponseReward = Annotated[SerializeAsAny[ResponseRewardSettings], chosen_from(RESPONSE_REWARDS)]
