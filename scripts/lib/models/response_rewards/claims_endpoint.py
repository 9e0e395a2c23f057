"""The claims of an answer, each asked as a yes/no question about the picture of a vision-language
model at an OpenAI-compatible endpoint: as `claims`, by the probabilities of Yes and No where the
endpoint tells them, else by the word that it writes.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from lib.data.rows import Claim
from lib.models.at_endpoint import YES_OR_NO, AtEndpoint, EndpointModel
from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.claims import (
    ClaimsSettings,
    claims_of,
    reward_of,
    share_of_yes,
)
from lib.models.response_rewards.settings import ResponseRewardSettings
from lib.models.response_rewards.sighted import turns_of
from lib.models.rubric import filled


class EndpointClaims(AtEndpoint):
    """A model that is asked about all claims of the answers to a question at once."""

    VERSION: ClassVar[int] = 1

    class Settings(EndpointModel, ClaimsSettings, ResponseRewardSettings):
        """Any vision-language model at an endpoint, asked whether each sentence of a response is
        right.
        """

        SEES_IMAGE: ClassVar[bool] = True

        kind: Literal["claims-endpoint"] = Field(description="Which class rates the responses.")

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The rewards of answers to one question each about an image. Errors: ValueError for any
        other conversation; ItemError where a claim gets neither Yes nor No.
        """
        turns = list(map(turns_of, conversations))
        texts = [claims_of(response) for _, response, _ in turns]
        questions = [
            (filled(self.settings.question, instruction=instruction, claim=claim), picture)
            for (instruction, _, picture), claims in zip(turns, texts, strict=True)
            for claim in claims
        ]
        choices = iter(self.choose(questions, YES_OR_NO))
        rewards = []
        for claims in texts:
            asked: list[Claim] = []
            for claim, choice in zip(claims, choices, strict=False):  # the rest is the others'
                share = share_of_yes(*choice.log_probabilities.values())
                asked.append({"text": claim, "yes": share, "rated_by": choice.rated_by})
            rewards.append(reward_of(asked, self.settings.score))
        return rewards
