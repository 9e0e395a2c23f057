"""Rule candidates_figure: prompts with their candidates, guidance scales and image rewards, the
pick marked (the paper's Figure 2).

The prompts are drawn with the run's seed, topic by topic in turn, from those that have a pick; a
prompt keeps its place in the draw whatever other prompts there are.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.config.figures import CandidatesFigureJob
from lib.data.controls import Pick, pick_of
from lib.data.image_files import check_image
from lib.data.prompts import seed_of
from lib.data.rows import Candidate, ImageRankingRow, ImagesRow, MissingRow, PromptRow
from lib.data.shards import present, read_whole_shard, read_whole_shards
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.digits import told_apart
from lib.report.figures import (
    FAINT,
    GREEN,
    INK,
    QUIET,
    demo_mark,
    new_figure,
    pretty,
    thumbnail,
    write_figure,
)
from lib.report.sheet import MARGIN, Sheet
from lib.report.sidecar import resolve_image_model, resolve_scorer
from lib.report.tables import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 2
TILE = 1.45  # inches: a picture's side
TEXT = 2.5  # inches for the prompt
GAP = 0.12  # inches between pictures
HEAD = 0.95  # inches above the first picture
CAPTION = 0.26  # inches below a picture
LETTERS_A_LINE = 34
LINES = 8
#: The sidecar's words for a pick that is not the best one.
DRAWN = "random: a candidate that is not blank, drawn with the run's seed and the prompt id"


class ShownCandidate(Candidate):
    """A candidate with its score, and whether the run went on with it."""

    score: float
    picked: bool


class ShownPrompt(PromptRow):
    """A prompt with its candidates."""

    candidates: list[ShownCandidate]


@dataclass(frozen=True)
class Legend:
    """What the figure says of all its prompts: which scorer's scores stand there, how candidates
    are picked, whose run it is, and whether a model drew them.
    """

    scorer: str
    pick: Pick
    label: str
    is_drawn: bool = True


def choose_prompts(
    rankings: Mapping[str, ImageRankingRow | MissingRow], count: int, seed: int
) -> list[str]:
    """The ids of up to `count` prompts: one of each topic, then a second of each and so on, the
    topics' turn decided by the seed too.
    """
    by_topic: dict[str, list[str]] = {}
    for row in present(rankings.values()):
        by_topic.setdefault(row["topic"], []).append(row["id"])
    places = {}
    for topic, ids in by_topic.items():
        in_turn = sorted(ids, key=lambda one: (seed_of(seed, "sheet", one), one))
        for turn, prompt_id in enumerate(in_turn):
            places[prompt_id] = (turn, seed_of(seed, "sheet", topic), topic)
    chosen = sorted(places, key=lambda one: places[one])[:count]
    return sorted(chosen, key=lambda one: (places[one][2], places[one][0]))


def shorten(text: str) -> str:
    """A prompt in at most so many lines as there is room for; what does not fit is left out at its
    end.
    """
    lines = textwrap.wrap(one_line(text), LETTERS_A_LINE) or [""]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1][: LETTERS_A_LINE - 2] + " …"]
    return "\n".join(lines)


def draw(
    sheet: Sheet, prompts: Sequence[ShownPrompt], images: Mapping[str, "Image"], legend: Legend
) -> None:
    """A line a prompt: its text, then its candidates by guidance scale, each with its score; the
    pick is framed. `images`: by their files' sha256.
    """
    draw_heading(sheet, legend)
    if not prompts:
        sheet.text(MARGIN, HEAD, "No prompt has a pick.", fontsize=9, color=QUIET)
    for number, prompt in enumerate(prompts):
        top = HEAD + number * (TILE + CAPTION + GAP)
        sheet.text(MARGIN, top, pretty(prompt["topic"]), fontsize=8, color=QUIET)
        sheet.text(MARGIN, top + 0.2, shorten(prompt["prompt"]), fontsize=8, linespacing=1.25)
        scores = told_apart([candidate["score"] for candidate in prompt["candidates"]], 2)
        for place, candidate in enumerate(prompt["candidates"]):
            x = MARGIN + TEXT + place * (TILE + GAP)
            draw_picture(sheet, x, top, candidate, images[candidate["sha256"]])
            if number == 0 and candidate["guidance_scale"] is not None:
                scale = f"guidance {candidate['guidance_scale']:g}"
                sheet.text(x + TILE / 2, top - 0.08, scale, fontsize=8, ha="center", va="bottom")
            draw_caption(sheet, x, top, candidate, scores[place], legend)


def draw_heading(sheet: Sheet, legend: Legend) -> None:
    """What the figure shows, and how picks are marked."""
    is_drawn = legend.pick == "random"
    which = "the framed one was drawn at random (control)" if is_drawn else "the pick is framed"
    images = "one image a guidance scale" if legend.is_drawn else "pictures of the user's own"
    below = f"{images}; below each its score by {legend.scorer}; {which}"
    sheet.text(MARGIN, 0.13, "Candidates and picks", fontsize=12, fontweight="bold")
    sheet.text(MARGIN, 0.38, below, fontsize=8, color=QUIET)
    mark, right = demo_mark(legend.label), sheet.width - MARGIN
    sheet.text(right, 0.13, mark, fontsize=8, color=QUIET, ha="right")


def draw_picture(
    sheet: Sheet, x: float, top: float, candidate: ShownCandidate, image: "Image"
) -> None:
    """A candidate, framed where it is the pick."""
    is_picked = candidate["picked"]
    sheet.picture(
        image,
        (x, top, TILE, TILE),
        frame=GREEN if is_picked else FAINT,
        frame_width=3 if is_picked else 0.8,
    )


def draw_caption(
    sheet: Sheet, x: float, top: float, candidate: ShownCandidate, score: str, legend: Legend
) -> None:
    """A candidate's score as it is shown, and what the candidate is."""
    words = score.replace("-", "−")
    style: dict[str, Any] = {"color": INK}
    if candidate["picked"]:
        words += "  ✓ drawn" if legend.pick == "random" else "  ✓ picked"
        style = {"color": GREEN, "fontweight": "bold"}
    if candidate["blank"]:
        words += "  blank"
    sheet.text(x + TILE / 2, top + TILE + 0.06, words, fontsize=8, ha="center", **style)


def shown_prompt(image: ImagesRow, ranking: ImageRankingRow, pick: Pick, seed: int) -> ShownPrompt:
    """What is drawn of one prompt: its rows of stage images and of image ranking as one, with the
    pick that the run went on with.
    """
    picked = pick_of(image["candidates"], ranking["winner"], pick, seed, image["id"])
    return {
        "id": image["id"],
        "topic": image["topic"],
        "prompt": image["prompt"],
        "candidates": [
            {**candidate, "score": ranking["scores"][index], "picked": index == picked}
            for index, candidate in enumerate(image["candidates"])
        ],
    }


def read_images(
    job: Job[Any], paths: Iterable[str], prompt_ids: Sequence[str]
) -> dict[str, ImagesRow]:
    """The prompts' rows of stage images."""
    rows: dict[str, ImagesRow] = {}
    for path in paths:
        for row in present(read_whole_shard(job, path, ImagesRow).values()):
            if row["id"] in prompt_ids:
                rows[row["id"]] = row
    return rows


def read_thumbnails(prompts: Sequence[ShownPrompt], root: Path) -> dict[str, "Image"]:
    """The pictures of all candidates by their files' sha256. Errors: UserError for a file that is
    not the one that was ranked.
    """
    pictures = {}
    for prompt in prompts:
        for candidate in prompt["candidates"]:
            file = root / candidate["file"]
            check_image(file, candidate["sha256"])
            pictures[candidate["sha256"]] = thumbnail(file, TILE)
    return pictures


def main(snakemake: Any) -> None:
    with Job(snakemake, CandidatesFigureJob, VERSION) as job:
        settings, inputs = job.settings, snakemake.input
        rankings = read_whole_shards(job, inputs.rankings, ImageRankingRow)
        ranked = {row["id"]: row for row in present(rankings.values())}
        chosen = choose_prompts(rankings, settings.prompts, job.seed)
        images = read_images(job, inputs.images, chosen)
        prompts = [
            shown_prompt(images[one], ranked[one], settings.pick, job.seed) for one in chosen
        ]
        pictures = read_thumbnails(prompts, job.root)
        about = {
            "rows": prompts,
            "drawn_from": len(ranked),
            "seed": job.seed,
            "scorer": resolve_scorer(settings.scorer, settings.scorer_model, job.root),
            "image_model": resolve_image_model(settings.image_model, job.root),
            **({"pick": DRAWN} if settings.pick == "random" else {}),
        }
        columns = max((len(prompt["candidates"]) for prompt in prompts), default=4)
        width = 0.2 + TEXT + columns * (TILE + GAP) + 0.1
        height = 1.05 + max(1, len(prompts)) * (TILE + 0.38)
        with new_figure(width, height) as figure:
            legend = Legend(
                settings.scorer, settings.pick, settings.label, settings.image_model is not None
            )
            draw(Sheet(figure), prompts, pictures, legend)
            title = "Prompts with their candidates, scores and picks"
            files = [*inputs.images, *inputs.rankings]
            write_figure(figure, title, snakemake.output, files, about, "pillow")
        job.count(len(prompts))


if __name__ == "__main__":
    run_script(main)
