"""Stage response ranking: the reward of each valid response."""

from lib.blocks import Block
from lib.models.response_rewards.registry import AnyResponseReward


class RankResponsesJob(Block):
    """What rule rank_responses is told: the reward, and what the policy models' answers are called,
    in their order.
    """

    reward: AnyResponseReward
    policies: list[str]
