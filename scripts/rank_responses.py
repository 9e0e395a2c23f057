"""Rule rank_responses: the reward of each valid response (paper 3.3, Eq. 9).

An item is a prompt: its valid responses are one batch. Empty, truncated, endlessly repeating and
failed responses are marked as invalid with their reason and are not rated; so are those whose score
is not a number.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict, cast

from lib.blocks import deciding
from lib.config.response_ranking import RankResponsesJob
from lib.data.rows import MissingRow, PromptRow, RankedResponse, ResponseRow
from lib.data.samples import apart, policy_of
from lib.data.shards import files_by_name, is_missing, present, read_whole_shard, stage_rows
from lib.errors import ItemError
from lib.jobs.batches import Batches, Outcome, each_at_once
from lib.jobs.job import Job
from lib.jobs.memory import halving
from lib.jobs.script import run_script
from lib.jobs.streams import Item
from lib.models.response_rewards.base import Conversation, ResponseReward, Reward
from lib.models.response_rewards.registry import RESPONSE_REWARDS
from lib.registry import version_in_key
from lib.response_checks import invalid_reason

VERSION = 1
#: What is wrong with a reward's files is a UserError.
load_reward = RESPONSE_REWARDS.load_model
Conversations = list[Conversation]


class Rewards(TypedDict):
    """The result of an item: what is said of each valid response, in the policy models' order."""

    rewards: list[RankedResponse]


@dataclass(frozen=True)
class AnsweredPrompt:
    """One prompt's responses: `row` has its image and instruction, `responses` what each policy
    model said or why that is invalid.
    """

    row: ResponseRow
    responses: dict[str, RankedResponse]

    @cached_property
    def valid(self) -> list[str]:
        """The policy models whose response is to be rated, in the configured order."""
        return [policy for policy, response in self.responses.items() if "invalid" not in response]

    def conversations(self, template: str, image: str | None = None) -> Conversations:
        """What the reward model reads: the instruction in the template, and each valid response.
        `image`: where the model sees it, its file; or what identifies it.
        """
        asked = {"role": "user", "content": user_words(template, self.row)}
        if image is not None:
            asked["image"] = image
        return [
            [
                asked,
                {"role": "assistant", "content": self.responses[policy]["text"]},
            ]
            for policy in self.valid
        ]

    def with_rewards(self, rewards: Sequence[RankedResponse]) -> dict[str, Any]:
        """What is published: `ResponseRankingRow` without its prompt."""
        rewarded = dict(zip(self.valid, rewards, strict=True))
        return {
            "image": self.row["image"],
            "instruction": self.row["instruction"],
            "responses": {
                policy: {**response, **rewarded.get(policy, {})}
                for policy, response in self.responses.items()
            },
        }


def checked_response(row: ResponseRow | MissingRow, max_repeats: int) -> RankedResponse:
    """A policy model's response, or why it is invalid."""
    if is_missing(row):
        return {"invalid": "failed", "detail": row["missing"]["reason"]}
    response: RankedResponse = {"text": row["response"], "finish_reason": row["finish_reason"]}
    if reason := invalid_reason(row["response"], row["finish_reason"], max_repeats):
        response["invalid"] = reason
    return response


def collect(
    rows: Mapping[str, ResponseRow | MissingRow], max_repeats: int
) -> AnsweredPrompt | None:
    """One prompt's rows by policy model as one; None if no policy model has a response to it."""
    answered = present(rows.values())
    if not answered:
        return None
    responses = {policy: checked_response(row, max_repeats) for policy, row in rows.items()}
    return AnsweredPrompt(answered[0], responses)


def user_words(template: str, row: ResponseRow) -> str:
    """What the reward model reads as the user's words: the template with the row's instruction and
    prompt, whatever stands in these.
    """
    words = {"instruction": row["instruction"], "prompt": row["prompt"]}
    return re.sub(r"\{(instruction|prompt)\}", lambda match: words[match[1]], template)


def ranked_response(reward: Reward) -> RankedResponse:
    """What is kept of one response's reward, or that it is invalid because it is not a number."""
    if not math.isfinite(reward.score):
        return {"invalid": "nan"}
    return cast("RankedResponse", {"score": reward.score, **reward.details})


def items_of(
    prompts: Iterable[AnsweredPrompt], job: Job[RankResponsesJob]
) -> list[Item[Conversations]]:
    """The items of the prompts that have a valid response."""
    settings = job.settings.reward
    reward = {
        **job.identify_all(settings),
        **deciding(settings),
        **version_in_key(RESPONSE_REWARDS.class_of(settings)),
    }
    items = []
    for prompt in prompts:
        if prompt.valid:
            conversations = prompt.conversations(settings.template)
            identified = conversations
            if settings.SEES_IMAGE:
                image = prompt.row["image"]
                file = str(job.root / image["file"])
                conversations = prompt.conversations(settings.template, file)
                identified = prompt.conversations(settings.template, image["sha256"])
            key = job.key(conversations=identified, **reward)
            items.append(Item(prompt.row["id"], key, conversations))
    return items


def rate(
    job: Job[Any], reward: ResponseReward, batch: Sequence[Item[Conversations]]
) -> list[Rewards | ItemError]:
    """What the reward model says of each prompt's responses."""
    results: list[Rewards | ItemError] = []
    for item in batch:
        try:
            rewards = halving(item.inputs, reward.rate, job.note)
        except ValueError as error:
            results.append(ItemError(str(error)))
        else:
            results.append({"rewards": [ranked_response(each) for each in rewards]})
    return results


def read_responses(
    snakemake: Any, job: Job[RankResponsesJob]
) -> tuple[dict[str, PromptRow], dict[str, AnsweredPrompt]]:
    """The rows of a shard, missing where no policy model has a response; and the others with all of
    their responses. Both by prompt id.
    """
    settings = job.settings
    names: dict[str, list[str]] = {}
    for name in settings.policies:
        names.setdefault(policy_of(name), []).append(name)
    shards = {
        policy: read_whole_shard(job, files, ResponseRow)
        for policy, files in files_by_name(list(names), snakemake.input).items()
    }
    rows: dict[str, PromptRow] = {}
    answered: dict[str, AnsweredPrompt] = {}
    for prompt_id, row in next(iter(shards.values())).items():
        of_policies: dict[str, ResponseRow | MissingRow] = {}
        for policy, shard in shards.items():
            of_policies |= apart(shard[prompt_id], names[policy])
        prompt = collect(of_policies, settings.reward.max_repeats)
        if prompt:
            answered[prompt_id] = prompt
        rows[prompt_id] = prompt.row if prompt else row
    return rows, answered


def published(prompt: AnsweredPrompt, outcome: Outcome[Rewards] | None) -> Outcome[dict[str, Any]]:
    """What is published of a prompt. `outcome`: None where it has no valid response."""
    if outcome and outcome.result is None:
        return Outcome(outcome.id, reason=outcome.reason)
    rewards = outcome.result["rewards"] if outcome and outcome.result else []
    return Outcome(prompt.row["id"], prompt.with_rewards(rewards))


def main(snakemake: Any) -> None:
    with Job(snakemake, RankResponsesJob, VERSION) as job:
        rows, answered = read_responses(snakemake, job)
        outcomes = Batches[Conversations, ResponseReward, Rewards](
            job,
            load=lambda: load_reward(job.settings.reward, job.device),
            compute=lambda reward, batch: each_at_once(
                lambda item: rate(job, reward, [item])[0], batch
            ),
            batch_size=job.settings.reward.items_at_once,
        ).run(items_of(answered.values(), job))
        results = {
            prompt_id: published(prompt, outcomes.get(prompt_id))
            for prompt_id, prompt in answered.items()
        }
        job.publish(snakemake.output[0], stage_rows(rows, results, job.rule))


if __name__ == "__main__":
    run_script(main)
