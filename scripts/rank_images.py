"""Rule rank_images: scores of each prompt's candidates by one image scorer, and the candidate that
wins (paper 3.2, Eq. 6). Rule rank_images_together: the same by several scorers, for which each
picture is decoded once.

An item is a prompt: its candidates are one batch. The winner is the first maximum among the
candidates that show anything; a blank image keeps its score, but stands last.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from weakref import WeakValueDictionary

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
from lib.jobs.turns import open_jobs, run_in_turns
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


class Images:
    """The images of a prompt's candidates, decoded once: from the beginning on where there are
    readers, otherwise when they are asked for.
    """

    def __init__(self, files: Iterable[Path], readers: Executor | None) -> None:
        self._read = (readers.map if readers else map)(read_image, files)

    def get(self) -> "list[Image]":
        """The images. Errors: what a file failed of, each time."""
        if isinstance(self._decoded, Exception):
            raise self._decoded
        return self._decoded

    @cached_property
    def _decoded(self) -> "list[Image] | Exception":
        try:
            return list(self._read)
        except Exception as error:
            return error


class Candidates:
    """The image files of prompts' candidates, for all scorers of a job: each is checked once, and
    its pixels are shared by those that hold them at the same time.
    """

    def __init__(self, root: Path, megapixels: float, readers: Executor | None) -> None:
        self._root, self._megapixels, self._readers = root, megapixels, readers
        self._checked: set[str] = set()
        self._held: WeakValueDictionary[str, Images] = WeakValueDictionary()

    def check(self, item: Item[ImagesRow]) -> None:
        """Errors: as those of `check_files`."""
        if item.id not in self._checked:
            check_files(item.inputs, self._root, self._megapixels)
            self._checked.add(item.id)

    def images(self, item: Item[ImagesRow]) -> Images:
        """The images of a prompt. Nothing is raised."""
        images = self._held.get(item.id)
        if images is None:
            files = [self._root / candidate["file"] for candidate in item.inputs["candidates"]]
            images = self._held[item.id] = Images(files, self._readers)
        return images


def rank_candidates(
    scorer: ImageScorer, row: ImagesRow, job: Job[RankImagesJob], images: "Sequence[Image]"
) -> Ranking:
    """The scores and the ranking of a prompt's candidates. Errors: ItemError where a score is not a
    number.
    """
    scores = halving(images, partial(scorer.score, row["prompt"]), job.note)
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
    scorer: ImageScorer, job: Job[RankImagesJob], candidates: Candidates
) -> Stream[Item[ImagesRow], Ranking]:
    """Ranks one prompt after the other, and reads the next one's images meanwhile."""
    return with_the_next_prepared(
        candidates.images,
        lambda item, images: rank_candidates(scorer, item.inputs, job, images.get()),
    )


def rankings(job: Job[RankImagesJob], candidates: Candidates) -> Items[ImagesRow, Any, Ranking]:
    """How the prompts of a job are ranked: several at once by what waits for a server."""
    scorer = job.settings.scorer
    if scorer.items_at_once == 1:
        return Streamed(
            job,
            load=lambda: ranking(load_scorer(scorer, job.device), job, candidates),
            check=candidates.check,
        )

    def rank_item(model: ImageScorer, item: Item[ImagesRow]) -> Ranking:
        return rank_candidates(model, item.inputs, job, candidates.images(item).get())

    return Batches(
        job,
        load=lambda: load_scorer(scorer, job.device),
        compute=lambda model, batch: each_at_once(partial(rank_item, model), batch),
        batch_size=scorer.items_at_once,
        check=candidates.check,
    )


def items_of(rows: ImagesRows, job: Job[RankImagesJob]) -> list[Item[ImagesRow]]:
    """The items of a job."""
    scorer = job.settings.scorer
    in_keys = scorer_in_keys(scorer, job.identify_all(scorer))
    return [item_of(row, job, in_keys) for row in present(rows.values())]


def main(snakemake: Any) -> None:
    with (
        open_jobs(snakemake, RankImagesJob, VERSION) as opened,
        ThreadPoolExecutor(THREADS) as readers,
    ):
        parts, jobs = zip(*opened, strict=True)
        any_job = jobs[0]
        rows = without_blank(read_whole_shard(any_job, snakemake.input, ImagesRow), any_job.rule)
        # A GPU waits for what is decoded; on a CPU, decoding would take from the scorer.
        pool = readers if any_job.device == "cuda" else None
        megapixels = any_job.settings.max_image_megapixels
        candidates = Candidates(any_job.root, megapixels, pool)
        ranked = run_in_turns(
            [(rankings(job, candidates), items_of(rows, job)) for job in jobs],
            hold=candidates.images,
        )
        for part, job, outcomes in zip(parts, jobs, ranked, strict=True):
            if outcomes is not None:
                job.publish(part.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
