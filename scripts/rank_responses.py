"""Rule rank_responses: the reward of each valid response, by ArmoRM (paper 3.3, Eq. 9).

An item is a prompt: its valid responses are one batch. Empty, truncated, endlessly repeating and
failed responses are marked as invalid with their reason and are not scored; so are those whose
score is not a number.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lib import weights
from lib.data.shards import Row, is_missing, read_shard, stage_rows
from lib.errors import ItemError, UserError
from lib.jobs.batches import Item, Outcome
from lib.jobs.device import halving, require_device
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.models.response_rewards.armorm import ATTRIBUTES, ArmoRM, ResponseReward
from lib.response_checks import invalid_reason

VERSION = 1


@dataclass(frozen=True)
class Answers:
    """One prompt's responses: `row` has its image and instruction, `responses` what each policy
    model said or why that is invalid.
    """

    row: Row
    responses: dict[str, dict[str, Any]]

    @property
    def valid(self) -> list[str]:
        """The policy models whose response is to be scored, in the configured order."""
        return [policy for policy, response in self.responses.items() if "invalid" not in response]


def collect(rows: dict[str, Row], max_repeats: int) -> Answers | None:
    """One prompt's rows by policy model as one; None if no policy model has a response to it."""
    answered = [row for row in rows.values() if not is_missing(row)]
    if not answered:
        return None
    responses: dict[str, dict[str, Any]] = {}
    for policy, row in rows.items():
        if is_missing(row):
            responses[policy] = {"invalid": "failed", "detail": row["missing"]["reason"]}
        else:
            responses[policy] = {"text": row["response"], "finish_reason": row["finish_reason"]}
            if reason := invalid_reason(row["response"], row["finish_reason"], max_repeats):
                responses[policy]["invalid"] = reason
    return Answers(answered[0], responses)


def asked(template: str, row: Row) -> str:
    """What the reward model reads as the user's words: the template with the row's instruction and
    prompt, whatever stands in these.
    """
    return re.sub(r"\{(instruction|prompt)\}", lambda match: str(row[match[1]]), template)


def reward_of(reward: ResponseReward) -> dict[str, Any]:
    """What is kept of one response's reward, or that it is invalid because it is not a number."""
    if not all(map(math.isfinite, (reward.score, *reward.rewards.values(), *reward.gating))):
        return {"invalid": "nan"}
    return {
        "score": reward.score,
        "attributes": reward.attributes,
        "rewards": reward.rewards,
        "gating": dict(zip(ATTRIBUTES, reward.gating, strict=True)),
        "cut_for_scoring": reward.truncated,
    }


def load_armorm(settings: dict[str, Any], device: str) -> ArmoRM:
    """The reward model, on the device; what is wrong with its files is a UserError."""
    require_device(device)
    try:
        return ArmoRM.from_pretrained(
            weights.fetch(settings["model"], settings["revision"]), settings["dtype"], device
        )
    except ValueError as error:
        raise UserError(
            f"{settings['model']}: not usable as the response reward model: {error}"
        ) from error


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    identity = weights.identity(settings["model"], settings["revision"])
    job.record.models[settings["model"]] = identity
    shards = dict(zip(settings["policies"], map(read_shard, snakemake.input), strict=True))

    def item(answers: Answers) -> Item:
        words = asked(settings["template"], answers.row)
        texts = [answers.responses[policy]["text"] for policy in answers.valid]
        scoring = {name: settings[name] for name in ("dtype", "max_length")}
        conversations = [
            [{"role": "user", "content": words}, {"role": "assistant", "content": text}]
            for text in texts
        ]
        return Item(
            answers.row["id"],
            job.key(conversations=conversations, model=identity, **scoring),
            conversations,
        )

    def score(model: ArmoRM, batch: Sequence[Item]) -> list[dict[str, Any]]:
        results = []
        for item in batch:
            try:
                rewards = halving(
                    item.inputs, lambda part: model.score(part, settings["max_length"]), job.note
                )
            except ValueError as error:
                raise ItemError(str(error)) from error
            results.append({"rewards": [reward_of(reward) for reward in rewards]})
        return results

    def with_rewards(answers: Answers, rewards: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rewarded = dict(zip(answers.valid, rewards, strict=True))
        responses = {
            policy: response | rewarded.get(policy, {})
            for policy, response in answers.responses.items()
        }
        return {
            "image": answers.row["image"],
            "instruction": answers.row["instruction"],
            "responses": responses,
        }

    rows: dict[str, Row] = {}
    collected: dict[str, Answers] = {}
    for prompt_id, row in shards[settings["policies"][0]].items():
        answers = collect(
            {policy: shard[prompt_id] for policy, shard in shards.items()}, settings["max_repeats"]
        )
        rows[prompt_id] = answers.row if answers else row
        if answers:
            collected[prompt_id] = answers
    outcomes = job.run(
        [item(answers) for answers in collected.values() if answers.valid],
        load=lambda: load_armorm(settings, job.device),
        compute=score,
    )
    for prompt_id, answers in collected.items():
        rewards = outcomes[prompt_id].result if answers.valid else {"rewards": []}
        if rewards is not None:
            outcomes[prompt_id] = Outcome(prompt_id, with_rewards(answers, rewards["rewards"]))
    job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
