"""Rule build_pairs: best and worst response of each prompt become its preference pair (paper 3.3,
Eq. 10), or the reason why not.

Chosen is the first maximum of the response rewards, rejected the first minimum, among the valid
responses only. A prompt that a benchmark has in common with the training data (rule
check_contamination) gives no pair where the configuration says so.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib import weights
from lib.data.shards import Row, is_missing, read_shard, stage_rows
from lib.jobs.batches import Item
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script

VERSION = 1
IN_A_BENCHMARK = "in a benchmark"
Tokens = Sequence[int]


def image_tokens(config: dict[str, Any]) -> int:
    """How many tokens of a LLaVA-1.5 model's context an image takes, from its `config.json`."""
    if "image_seq_length" in config:
        return int(config["image_seq_length"])
    vision = config["vision_config"]
    return int((vision["image_size"] // vision["patch_size"]) ** 2)


def pair_of(responses: dict[str, dict[str, Any]], min_margin: float) -> dict[str, Any]:
    """`{"pair": {chosen, rejected, margin}}`, or `{"no_pair": reason}`.

    `responses`: by policy model in the configured order, either with `text` and `score`, or with
    `invalid`.
    """
    valid = {
        policy: response for policy, response in responses.items() if "invalid" not in response
    }
    if len(valid) < 2:
        return {"no_pair": "fewer than two valid responses"}
    best = max(valid, key=lambda policy: valid[policy]["score"])
    worst = min(valid, key=lambda policy: valid[policy]["score"])
    margin = valid[best]["score"] - valid[worst]["score"]
    if margin == 0:
        return {"no_pair": "tie"}
    if margin <= min_margin:
        return {"no_pair": "margin too small"}
    return {
        "pair": {
            name: {
                "policy": policy,
                "text": valid[policy]["text"],
                "score": valid[policy]["score"],
            }
            for name, policy in (("chosen", best), ("rejected", worst))
        }
        | {"margin": margin}
    }


def same_after_truncation(chosen: Tokens, rejected: Tokens, room: int) -> bool:
    """Whether training, which cuts a response to `room` tokens, would see the same text twice."""
    return list(chosen[:room]) == list(rejected[:room])


def unusable_for_training(row: Row, tokenizer: Any, room: int) -> str | None:
    """Why training could not use a pair as it is written, or None.

    `tokenizer`: the base model's, of the library `tokenizers`; `room`: tokens left for a response
    by image and instruction.
    """
    texts = {side: row["pair"][side]["text"] for side in ("chosen", "rejected")}
    tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    if any(token in text for token in tokens for text in (row["instruction"], *texts.values())):
        return "special token in a text"
    if room <= 0:
        return "no room for a response"
    chosen, rejected = (
        tokenizer.encode(texts[side], add_special_tokens=False).ids
        for side in ("chosen", "rejected")
    )
    return "same after truncation" if same_after_truncation(chosen, rejected, room) else None


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    rows = read_shard(snakemake.input.ranking)
    found = {
        name: row for path in snakemake.input.overlaps for name, row in read_shard(path).items()
    }
    excluded = {name for name, row in found.items() if row.get("overlaps")}
    base = settings["base_model"]
    base_identity = weights.identity(base["model"], base["revision"])
    job.record.models[base["model"]] = base_identity

    def item(row: Row) -> Item:
        # In the configured order, which decides between equals: JSON files keep their keys sorted.
        responses = {policy: row["responses"][policy] for policy in settings["policies"]}
        decided_by = {
            name: settings[name]
            for name in ("policies", "min_margin", "max_length", "prompt_template")
        }
        compared = {
            policy: {
                name: response[name] for name in ("text", "score", "invalid") if name in response
            }
            for policy, response in responses.items()
        }
        # Only there, so that no other key changes with the benchmarks.
        left_out = {"in_a_benchmark": True} if row["id"] in excluded else {}
        key = job.key(
            responses=compared,
            image=row["image"],
            instruction=row["instruction"],
            tokenizer=base_identity,
            **decided_by,
            **left_out,
        )
        return Item(row["id"], key, {**row, "responses": responses})

    def load_tokenizer() -> tuple[Any, int]:
        from tokenizers import Tokenizer

        folder = weights.fetch(
            base["model"], base["revision"], only=["tokenizer.json", "config.json"]
        )
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return Tokenizer.from_file(str(Path(folder, "tokenizer.json"))), image_tokens(config)

    def pair(model: tuple[Any, int], batch: Sequence[Item]) -> list[dict[str, Any]]:
        tokenizer, tokens_of_image = model
        results = []
        for item in batch:
            row = item.inputs
            in_a_benchmark = item.id in excluded
            result = (
                {"no_pair": IN_A_BENCHMARK}
                if in_a_benchmark
                else pair_of(row["responses"], settings["min_margin"])
            )
            if "pair" in result:
                asked = settings["prompt_template"].replace("{instruction}", row["instruction"])
                room = settings["max_length"] - tokens_of_image - len(tokenizer.encode(asked).ids)
                if reason := unusable_for_training({**row, **result}, tokenizer, room):
                    result = {"no_pair": reason}
            invalid = {
                policy: response["invalid"]
                for policy, response in row["responses"].items()
                if "invalid" in response
            }
            results.append(
                {
                    "image": row["image"],
                    "instruction": row["instruction"],
                    "invalid_responses": invalid,
                    **result,
                }
            )
        return results

    outcomes = job.run(
        [item(row) for row in rows.values() if not is_missing(row)], load_tokenizer, pair
    )
    job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
