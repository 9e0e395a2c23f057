"""Stage response ranking: the reward of each valid response, of one model or of several."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, SerializeAsAny, model_validator

from lib.blocks import Block, Name
from lib.models.response_rewards.registry import RESPONSE_REWARDS, AnyResponseReward
from lib.models.response_rewards.settings import ResponseRewardSettings
from lib.registry import chosen_from


class RewardEnsemble(Block):
    """Several response rewards, each of which scores all responses in jobs of its own. Responses
    are ranked by the weighted mean of their scores, which are standardised: as differences to the
    run's mean, in standard deviations of the responses to one prompt (docs/adding-a-model.md).
    """

    rewards: dict[Name, AnyResponseReward] = Field(
        min_length=1,
        description="By a name of yours. One that is added or changed leaves the others' scores.",
    )
    weights: dict[Name, PositiveFloat] = Field(
        {},
        description=(
            "How much a reward's standardised score counts, by its name; 1 where it has none here."
        ),
    )

    @model_validator(mode="after")
    def _weights_are_of_rewards(self) -> Self:
        for name in self.weights:
            if name not in self.rewards:
                raise ValueError(
                    f"`weights` has '{name}', but `rewards` has {', '.join(self.rewards)}. Correct"
                    " the name, or take it out"
                )
        return self


class _RankingKinds:
    """A block with `rewards` is an ensemble's, any other that of one reward."""

    def blocks(self) -> list[type[Block]]:
        """All kinds of one reward, and the ensemble."""
        return [*RESPONSE_REWARDS.blocks(), RewardEnsemble]

    def block_for(self, values: Mapping[str, Any]) -> type[Block]:
        """The block that a block's values are."""
        return RewardEnsemble if "rewards" in values else RESPONSE_REWARDS.block_for(values)

    def validate(self, values: Any) -> Any:
        """A configuration's values as that block."""
        if isinstance(values, Mapping) and "rewards" in values:
            return RewardEnsemble.model_validate(values)
        return RESPONSE_REWARDS.validate(values)


ResponseRanking = ResponseRewardSettings | RewardEnsemble
AnyResponseRanking = Annotated[SerializeAsAny[ResponseRanking], chosen_from(_RankingKinds())]


def rewards_of(ranking: ResponseRanking) -> dict[str, ResponseRewardSettings]:
    """The rewards of a ranking by name; the name of one that ranks alone is empty."""
    return ranking.rewards if isinstance(ranking, RewardEnsemble) else {"": ranking}


def key_of_reward(name: str) -> str:
    """The configuration key of a reward of `rewards_of`."""
    return f"response_ranking.rewards.{name}" if name else "response_ranking"


class RankResponsesJob(Block):
    """What rule rank_responses is told: the reward, and what the policy models' answers are called,
    in their order.
    """

    reward: AnyResponseReward
    policies: list[str]


class FitRewardsJob(Block):
    """What rule fit_rewards is told: the rewards of an ensemble by name."""

    rewards: list[str]


class CombineRewardsJob(Block):
    """What rule combine_rewards is told: the weights of an ensemble's rewards by name."""

    weights: dict[str, PositiveFloat]


def weights_of(ranking: ResponseRanking) -> dict[str, float]:
    """The weight of each of `rewards_of`, in their order."""
    given = ranking.weights if isinstance(ranking, RewardEnsemble) else {}
    return {name: given.get(name, 1.0) for name in rewards_of(ranking)}


def scores_input(reward: str) -> str:
    """The name of a rule's input that is the scores of a reward."""
    return f"scores_{reward}"
