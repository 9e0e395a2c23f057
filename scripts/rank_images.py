"""Rule rank_images: scores of each prompt's candidates by one image scorer, and the candidate that
wins (paper 3.2, Eq. 6).

An item is a prompt: its candidates are one batch. The winner is the first maximum among the
candidates that show anything; a blank image keeps its score, but stands last.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from lib.blocks import Block, deciding
from lib.config.image_ranking import RankImagesJob
from lib.data.image_files import check_pixels, read_image, read_published, shard_file_of
from lib.data.rows import ImagesRow, MissingRow
from lib.data.shards import is_missing, missing_row, present, read_whole_shard, stage_rows
from lib.errors import ItemError
from lib.jobs.batches import Batches, Items, Streamed, each_at_once
from lib.jobs.job import Job
from lib.jobs.memory import halving
from lib.jobs.script import run_script
from lib.jobs.streams import Item, Stream, with_the_next_prepared
from lib.models.image_scorers.base import ImageScorer
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.registry import version_in_key

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1
#: Files of a prompt that are decoded at once where the scorer is on a GPU.
THREADS = 4
#: What is wrong with a scorer's files is a UserError.
load_scorer = IMAGE_SCORERS.load_model

ImagesRows = Mapping[str, ImagesRow | MissingRow]
#: Reads files in their order: when they are asked for, or several at once from the call on.
ReadImages = Callable[[Callable[[Path], "Image"], Iterable[Path]], Iterable["Image"]]


class Ranking(TypedDict):
    """The result of an item: `ImageRankingRow` without its prompt."""

    scores: list[float]
    ranking: list[int]
    winner: int
    blank: list[int]
    prompt_truncated: bool


def rank(scores: Sequence[float], blank: Sequence[int]) -> list[int]:
    """Indexes of the candidates, best first: blank ones after all others, of equals the first one
    first.
    """
    return sorted(range(len(scores)), key=lambda index: (index in blank, -scores[index]))


def blank_candidates(row: ImagesRow) -> list[int]:
    """The indexes of the candidates that show one colour only."""
    return [index for index, candidate in enumerate(row["candidates"]) if candidate["blank"]]


def scorer_in_keys(scorer: Block, identities: Mapping[str, str]) -> dict[str, Any]:
    """What the keys of items hold of a scorer's settings. `identities`: of its models, by their
    names in its block.
    """
    decides = deciding(scorer) | version_in_key(IMAGE_SCORERS.class_of(scorer))
    return {"scorer": decides, **identities}


def item_of(row: ImagesRow, job: Job[RankImagesJob], scorer: Mapping[str, Any]) -> Item[ImagesRow]:
    """The item of a prompt. `scorer`: of `scorer_in_keys`."""
    key = job.key(
        prompt=row["prompt"],
        images=[candidate["sha256"] for candidate in row["candidates"]],
        blank=blank_candidates(row),
        **scorer,
    )
    return Item(row["id"], key, row)


def images_of(row: ImagesRow, job: Job[RankImagesJob], read: ReadImages) -> Iterable["Image"]:
    """The images of a prompt's candidates."""
    return read(read_image, [job.root / candidate["file"] for candidate in row["candidates"]])


def rank_candidates(
    scorer: ImageScorer, row: ImagesRow, job: Job[RankImagesJob], images: Iterable["Image"]
) -> Ranking:
    """The scores and the ranking of a prompt's candidates. Errors: ItemError where a score is not a
    number.
    """
    scores = halving([*images], partial(scorer.score, row["prompt"]), job.note)
    if unusable := [index for index, value in enumerate(scores) if not math.isfinite(value)]:
        raise ItemError(f"the score of candidate {', '.join(map(str, unusable))} is not a number")
    blank = blank_candidates(row)
    ranking = rank(scores, blank)
    return {
        "scores": scores,
        "ranking": ranking,
        "winner": ranking[0],
        "blank": blank,
        "prompt_truncated": scorer.truncates(row["prompt"]),
    }


def without_blank(rows: ImagesRows, rule: str) -> ImagesRows:
    """The rows of a shard; where no candidate of a prompt shows anything, its row is missing."""
    return {
        prompt_id: missing_row(row, rule, "all images blank") if is_blank(row) else row
        for prompt_id, row in rows.items()
    }


def is_blank(row: ImagesRow | MissingRow) -> bool:
    """Whether a prompt has images, and none of them shows anything."""
    return not is_missing(row) and len(blank_candidates(row)) == len(row["candidates"])


def check_files(row: ImagesRow, root: Path, megapixels: float) -> None:
    """Raises a UserError if an image file of a prompt is not the one that was published, or is too
    large.
    """
    for candidate in row["candidates"]:
        path = root / candidate["file"]
        content = read_published(path, candidate["sha256"], shard_file_of(path))
        check_pixels(BytesIO(content), str(path), megapixels)


def ranking(
    scorer: ImageScorer, job: Job[RankImagesJob], read: ReadImages
) -> Stream[Item[ImagesRow], Ranking]:
    """Ranks one prompt after the other, and reads the next one's images meanwhile."""
    return with_the_next_prepared(
        lambda item: images_of(item.inputs, job, read),
        lambda item, images: rank_candidates(scorer, item.inputs, job, images),
    )


def rankings(job: Job[RankImagesJob], read: ReadImages) -> Items[ImagesRow, Any, Ranking]:
    """How the prompts of a job are ranked: several at once by what waits for a server."""
    scorer = job.settings.scorer
    megapixels = job.settings.max_image_megapixels

    def check(item: Item[ImagesRow]) -> None:
        check_files(item.inputs, job.root, megapixels)

    if scorer.items_at_once == 1:
        return Streamed(
            job, load=lambda: ranking(load_scorer(scorer, job.device), job, read), check=check
        )

    def rank_item(model: ImageScorer, item: Item[ImagesRow]) -> Ranking:
        return rank_candidates(model, item.inputs, job, images_of(item.inputs, job, read))

    return Batches(
        job,
        load=lambda: load_scorer(scorer, job.device),
        compute=lambda model, batch: each_at_once(partial(rank_item, model), batch),
        batch_size=scorer.items_at_once,
        check=check,
    )


def main(snakemake: Any) -> None:
    with Job(snakemake, RankImagesJob, VERSION) as job, ThreadPoolExecutor(THREADS) as readers:
        scorer = job.settings.scorer
        in_keys = scorer_in_keys(scorer, job.identify_all(scorer))
        rows = without_blank(read_whole_shard(job, snakemake.input, ImagesRow), job.rule)
        # A GPU waits for what is decoded; on a CPU, decoding would take from the scorer.
        read: ReadImages = readers.map if job.device == "cuda" else map
        items = [item_of(row, job, in_keys) for row in present(rows.values())]
        outcomes = rankings(job, read).run(items)
        job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
