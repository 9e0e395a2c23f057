"""The claims of an answer, each asked as a yes/no question about the picture by a vision-language
model. Idea: RLAIF-V (Yu et al., arXiv:2405.17220); a claim here is a sentence, which no further
model has to write.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from lib.blocks import Block
from lib.data.rows import Claim
from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.sighted import (
    SightedReward,
    SightedSettings,
    question_about,
    turns_of,
)
from lib.models.rubric import check_words, filled

WORDS = ("instruction", "claim")
QUESTION = """\
Somebody was asked about this picture: {instruction}

Part of what they said: {claim}

Does the picture show that this part is right? Answer with Yes or No."""
#: What stands before an entry of a list: "- ", "* ", "2. ".
ENTRY = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')\]])\s+|(?<=[。！？])")


class ClaimsSettings(Block):
    """What is asked about claims, and how their answers make a score."""

    question: str = Field(
        QUESTION,
        description=(
            "What is asked about the picture for each sentence, to be answered by Yes or No, with"
            " `{claim}` and `{instruction}`."
        ),
    )
    score: Literal["mean", "failed"] = Field(
        "mean",
        description=(
            "`mean`: the mean share of Yes of the claims. `failed`: how many claims are less likely"
            " right than wrong, below zero, as in RLAIF-V; many responses tie."
        ),
    )

    @field_validator("question")
    @classmethod
    def _question_is_usable(cls, question: str) -> str:
        return check_words(question, "claim", WORDS)


class Claims(SightedReward):
    """A loaded model that is asked about claims."""

    #: It is raised, too, where a generator's `log_probabilities` change.
    VERSION: ClassVar[int] = 1
    BATCH_SIZE: ClassVar[int] = 16

    class Settings(ClaimsSettings, SightedSettings):
        """Any vision-language model with a chat template, asked whether each sentence of a response
        is right.
        """

        kind: Literal["claims"] = Field(description="Which class rates the responses.")

    settings: Settings

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The rewards of answers to one question each about an image; the claims of each are
        batches of their own. Errors: ValueError for any other conversation.
        """
        return [self._reward(conversation) for conversation in conversations]

    def _reward(self, conversation: Conversation) -> Reward:
        instruction, response, picture = turns_of(conversation)
        texts = claims_of(response)
        template = self.settings.question
        questions = [
            question_about(picture, filled(template, instruction=instruction, claim=text))
            for text in texts
        ]
        claims: list[Claim] = []
        for start in range(0, len(texts), self.BATCH_SIZE):
            batch = slice(start, start + self.BATCH_SIZE)
            rows = self.generator.log_probabilities(questions[batch], ["Yes", "No"])
            claims += [
                {"text": text, "yes": share_of_yes(*row)}
                for text, row in zip(texts[batch], rows, strict=True)
            ]
        return reward_of(claims, self.settings.score)


def claims_of(response: str) -> list[str]:
    """The sentences of a response, and its lines; the whole where it has none with a letter or a
    digit.
    """
    lines = [ENTRY.sub("", line) for line in response.splitlines()]
    sentences = [part.strip() for line in lines for part in SENTENCE_END.split(line)]
    return [part for part in sentences if re.search(r"\w", part)] or [response.strip()]


def share_of_yes(yes: float, no: float) -> float:
    """The share of Yes among both answers, of their log-probabilities."""
    if max(yes, no) == -math.inf:
        return math.nan
    return 0.5 + 0.5 * math.tanh((yes - no) / 2)  # a logistic function that never overflows


def reward_of(claims: Sequence[Claim], score: str) -> Reward:
    """The reward of a response's claims, and which of them failed."""
    failed = [claim["text"] for claim in claims if claim["yes"] < 0.5]
    mean = sum(claim["yes"] for claim in claims) / len(claims)
    value = mean if score == "mean" or math.isnan(mean) else float(-len(failed))
    details: dict[str, Any] = {"claims": list(claims), "failed_claims": failed}
    return Reward(value, details)
