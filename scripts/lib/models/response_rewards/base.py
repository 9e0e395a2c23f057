"""What a response reward is: the role of ArmoRM in the paper (3.3, Eq. 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from lib.models.response_rewards.settings import ResponseRewardSettings

#: Messages of `role` ("user", "assistant", "system") and `content`, ending with the response; the
#: user's has the file of the `image` where the reward's settings say that it sees it.
Conversation = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Reward:
    """What is said of one response.

    score    the preference score; higher is better, and not a number where it could not be given
    details  what else the model says of the response, published as it is
    """

    score: float
    details: dict[str, Any]


class ResponseReward(Protocol):
    """A loaded model. VERSION is raised where the same responses would get other rewards."""

    VERSION: ClassVar[int]
    Settings: ClassVar[type[ResponseRewardSettings]]

    @classmethod
    def load(cls, settings: ResponseRewardSettings, device: str) -> Self:
        """Loads the model onto a torch device. Errors: UserError, or a ValueError that says what
        about the files is not usable.
        """
        ...

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The rewards of the last message of each conversation, in their order, as one batch.

        Errors: ValueError where a conversation cannot be rated.
        """
        ...
