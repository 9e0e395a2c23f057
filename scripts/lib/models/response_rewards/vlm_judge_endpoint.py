"""A vision-language model at an OpenAI-compatible endpoint as a judge: as `vlm-judge`, by the
probabilities of its ratings where the endpoint tells them, else by the rating that it writes.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from lib.models.at_endpoint import AtEndpoint, Choice, EndpointModel, rating_options
from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.settings import ResponseRewardSettings
from lib.models.response_rewards.sighted import turns_of
from lib.models.response_rewards.vlm_judge import JudgeSettings, reward_of, rubric_about


class EndpointJudge(AtEndpoint):
    """A judge that is asked about the answers to a question at once."""

    VERSION: ClassVar[int] = 1

    class Settings(EndpointModel, JudgeSettings, ResponseRewardSettings):
        """Any vision-language model at an endpoint, asked to rate what it sees."""

        SEES_IMAGE: ClassVar[bool] = True

        kind: Literal["vlm-judge-endpoint"] = Field(description="Which class rates the responses.")

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The rewards of answers to one question each about an image. Errors: ValueError for any
        other conversation; ItemError where there is no rating.
        """
        questions = [
            (rubric_about(self.settings, instruction, response), picture)
            for instruction, response, picture in map(turns_of, conversations)
        ]
        return list(map(_reward_of, self.choose(questions, rating_options(self.settings))))


def _reward_of(choice: Choice) -> Reward:
    """The reward of a chosen rating, which says what it was read by."""
    reward = reward_of(choice.log_probabilities)
    parts = reward.details if choice.rated_by == "probabilities" else {}
    return Reward(reward.score, {**parts, "rated_by": choice.rated_by})
