"""Rule rank_images: scores of each prompt's candidates by one image reward model, and the candidate
that wins (paper 3.2, Eq. 6).

An item is a prompt: its candidates are one batch. The winner is the first maximum among the
candidates that show anything; a blank image keeps its score, but stands last.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lib import weights
from lib.data.image_files import check_image, read_image
from lib.data.shards import Row, is_missing, missing_row, read_shard, stage_rows
from lib.errors import UserError
from lib.jobs.device import require_device
from lib.jobs.job import Item, ItemError, ShardJob, halving, run_script
from lib.models.image_scorers.scorers import ImageScorer, load_image_scorer

VERSION = 1
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


def rank(scores: Sequence[float], blank: Sequence[int]) -> list[int]:
    """Indexes of the candidates, best first: blank ones after all others, of equals the first one
    first.
    """
    return sorted(range(len(scores)), key=lambda index: (index in blank, -scores[index]))


def load_scorer(settings: dict[str, Any], device: str) -> ImageScorer:
    """The scorer that the settings name, on the device; what is wrong with its files is a
    UserError.
    """
    require_device(device)
    folder = weights.fetch(settings["model"], settings["revision"], also=["ImageReward.pt"])
    if settings["kind"] != "image-reward" and not any(folder.glob("*.safetensors")):
        # Some repositories of CLIP and BLIP models hold no safetensors; torch reads these with
        # weights_only.
        folder = weights.fetch(settings["model"], settings["revision"], also=["pytorch_model.bin"])
    tokenizer = settings["tokenizer"]
    try:
        return load_image_scorer(
            settings["kind"],
            folder,
            tokenizer_dir=tokenizer
            and weights.fetch(tokenizer["model"], tokenizer["revision"], only=TOKENIZER_FILES),
            device=device,
            dtype=settings["dtype"],
            backend=settings["backend"],
        )
    except ValueError as error:
        raise UserError(
            f"{settings['model']}: not usable as the image scorer that is configured: {error}"
        ) from error


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    shard: str = snakemake.input[0]
    identities = {"model": weights.identity(settings["model"], settings["revision"])}
    job.record.models[settings["model"]] = identities["model"]
    if tokenizer := settings["tokenizer"]:
        identities["tokenizer"] = weights.identity(tokenizer["model"], tokenizer["revision"])
        job.record.models[tokenizer["model"]] = identities["tokenizer"]

    def blank_candidates(row: Row) -> list[int]:
        return [index for index, candidate in enumerate(row["candidates"]) if candidate["blank"]]

    def item(row: Row) -> Item:
        inputs = {
            "prompt": row["prompt"],
            "images": [candidate["sha256"] for candidate in row["candidates"]],
            "blank": blank_candidates(row),
            "scorer": {name: settings[name] for name in ("kind", "dtype", "backend")},
        }
        return Item(row["id"], job.key(**inputs, **identities), row)

    def check(item: Item) -> None:
        for candidate in item.inputs["candidates"]:
            check_image(job.root / candidate["file"], candidate["sha256"], Path(shard))

    def score(scorer: ImageScorer, batch: Sequence[Item]) -> list[dict[str, Any]]:
        results = []
        for item in batch:
            row = item.inputs
            images = [read_image(job.root / candidate["file"]) for candidate in row["candidates"]]
            scores = halving(images, partial(scorer.score, row["prompt"]), job.note)
            if unusable := [
                index for index, value in enumerate(scores) if not math.isfinite(value)
            ]:
                raise ItemError(
                    f"the score of candidate {', '.join(map(str, unusable))} is not a number"
                )
            ranking = rank(scores, blank_candidates(row))
            results.append(
                {
                    "scores": scores,
                    "ranking": ranking,
                    "winner": ranking[0],
                    "blank": blank_candidates(row),
                    "prompt_truncated": scorer.truncates(row["prompt"]),
                }
            )
        return results

    rows = read_shard(shard)
    for prompt_id, row in rows.items():
        if not is_missing(row) and len(blank_candidates(row)) == len(row["candidates"]):
            rows[prompt_id] = missing_row(row, job.rule, "all images blank")
    outcomes = job.run(
        [item(row) for row in rows.values() if not is_missing(row)],
        load=lambda: load_scorer(settings, job.device),
        compute=score,
        check=check,
    )
    job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
