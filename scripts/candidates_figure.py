"""Rule candidates_figure: prompts with their candidates, guidance scales and image rewards, the
pick marked (the paper's Figure 2).

The prompts are drawn with the run's seed, topic by topic in turn, from those that have a pick; a
prompt keeps its place in the draw whatever other prompts there are.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.data.controls import Pick, pick_of
from lib.data.image_files import check_image
from lib.data.prompts import seed_of
from lib.data.shards import Row, is_missing, read_shard
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report.figures import (
    FAINT,
    GREEN,
    INK,
    PIXELS_AN_INCH,
    QUIET,
    demo_mark,
    new_figure,
    pretty,
    thumbnail,
    write_figure,
)
from lib.report.sidecar import model_origin
from lib.report.tables import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

VERSION = 1
TILE = 1.45  # inches
THUMBNAIL = round(TILE * PIXELS_AN_INCH)  # pixels, longer side
TEXT = 2.5  # inches for the prompt
LETTERS_A_LINE = 34
LINES = 8


def drawn(rankings: Mapping[str, Row], count: int, seed: int) -> list[str]:
    """The ids of up to `count` prompts: one of each topic, then a second of each and so on, the
    topics' turn decided by the seed too.
    """
    by_topic: dict[str, list[str]] = {}
    for prompt_id, row in rankings.items():
        if not is_missing(row):
            by_topic.setdefault(row["topic"], []).append(prompt_id)
    places = {}
    for topic, ids in by_topic.items():
        for turn, prompt_id in enumerate(
            sorted(ids, key=lambda one: (seed_of(seed, "sheet", one), one))
        ):
            places[prompt_id] = (turn, seed_of(seed, "sheet", topic), topic)
    chosen = sorted(places, key=lambda one: places[one])[:count]
    return sorted(chosen, key=lambda one: (places[one][2], places[one][0]))


def shortened(text: str) -> str:
    """A prompt in at most so many lines as there is room for; what does not fit is left out at its
    end.
    """
    lines = textwrap.wrap(one_line(text), LETTERS_A_LINE) or [""]
    return "\n".join(
        lines
        if len(lines) <= LINES
        else [*lines[: LINES - 1], lines[LINES - 1][: LETTERS_A_LINE - 2] + " …"]
    )


def draw(
    figure: "Figure",
    rows: Sequence[Mapping[str, Any]],
    images: Mapping[str, "Image"],
    settings: Mapping[str, Any],
) -> None:
    """A line a prompt: its text, then its candidates by guidance scale, each with its score; the
    pick is framed.

    `settings`: with `pick` where it was drawn and is not the best one.
    """
    width, height = figure.get_figwidth(), figure.get_figheight()
    gap, left, head, caption = 0.12, 0.15, 0.95, 0.26

    def text(x: float, y: float, words: str, **more: Any) -> None:
        figure.text(x / width, 1 - y / height, words, va=more.pop("va", "top"), **more)

    text(left, 0.13, "Candidates and picks", fontsize=12, fontweight="bold")
    is_drawn = settings.get("pick") == "random"
    which = "the framed one was drawn at random (control)" if is_drawn else "the pick is framed"
    text(
        left,
        0.38,
        f"one image a guidance scale; below each its score by {settings['scorer']}; {which}",
        fontsize=8,
        color=QUIET,
    )
    text(width - left, 0.13, demo_mark(settings["label"]), fontsize=8, color=QUIET, ha="right")
    if not rows:
        text(left, head, "No prompt has a pick.", fontsize=9, color=QUIET)
    for number, row in enumerate(rows):
        top = head + number * (TILE + caption + gap)
        text(left, top, pretty(row["topic"]), fontsize=8, color=QUIET)
        text(left, top + 0.2, shortened(row["prompt"]), fontsize=8, linespacing=1.25)
        for place, candidate in enumerate(row["candidates"]):
            x = left + TEXT + place * (TILE + gap)
            axes = figure.add_axes(
                (x / width, 1 - (top + TILE) / height, TILE / width, TILE / height)
            )
            axes.imshow(
                images[candidate["sha256"]],
                interpolation=(
                    "nearest" if images[candidate["sha256"]].width < THUMBNAIL else "antialiased"
                ),
            )
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            for spine in axes.spines.values():
                spine.set(
                    visible=True,
                    color=GREEN if candidate["picked"] else FAINT,
                    linewidth=3 if candidate["picked"] else 0.8,
                )
            if number == 0:
                text(
                    x + TILE / 2,
                    top - 0.08,
                    f"guidance {candidate['guidance_scale']:g}",
                    fontsize=8,
                    ha="center",
                    va="bottom",
                )
            words = (
                f"{candidate['score']:.2f}".replace("-", "−")
                + (f"  ✓ {'drawn' if is_drawn else 'picked'}" if candidate["picked"] else "")
                + ("  blank" if candidate["blank"] else "")
            )
            style = (
                {"color": GREEN, "fontweight": "bold"} if candidate["picked"] else {"color": INK}
            )
            text(x + TILE / 2, top + TILE + 0.06, words, fontsize=8, ha="center", **style)


def row_of(image: Row, ranking: Row, pick: Pick, seed: int) -> dict[str, Any]:
    """What is drawn of one prompt: its rows of stage images and of image ranking as one, with the
    pick that the run went on with.
    """
    picked = pick_of(image["candidates"], ranking["winner"], pick, seed, image["id"])
    candidates = []
    for index, candidate in enumerate(image["candidates"]):
        about = {
            name: candidate[name] for name in ("guidance_scale", "seed", "file", "sha256", "blank")
        }
        candidates.append(about | {"score": ranking["scores"][index], "picked": index == picked})
    return {
        "id": image["id"],
        "topic": image["topic"],
        "prompt": image["prompt"],
        "candidates": candidates,
    }


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    scorer = settings["scorer"]
    images, shard_of = {}, {}
    for path in snakemake.input.images:
        for prompt_id, row in read_shard(path).items():
            images[prompt_id], shard_of[prompt_id] = row, Path(path)
    rankings = {
        key: row for path in snakemake.input.rankings for key, row in read_shard(path).items()
    }
    pick: Pick = settings.get("pick", "best")
    rows = [
        row_of(images[one], rankings[one], pick, job.seed)
        for one in drawn(rankings, settings["prompts"], job.seed)
    ]
    pictures = {}
    for row in rows:
        for candidate in row["candidates"]:
            check_image(job.root / candidate["file"], candidate["sha256"], shard_of[row["id"]])
            pictures[candidate["sha256"]] = thumbnail(job.root / candidate["file"], TILE)
    about = {
        "rows": rows,
        "drawn_from": sum(not is_missing(row) for row in rankings.values()),
        "seed": job.seed,
        "scorer": {
            "name": scorer,
            **model_origin(settings["models"]["scorer"], job.root, "rank_images", scorer),
        },
        "image_model": model_origin(settings["models"]["images"], job.root, "generate_images"),
        **(
            {
                "pick": (
                    "random: a candidate that is not blank, drawn with the run's seed and the"
                    " prompt id"
                )
            }
            if pick == "random"
            else {}
        ),
    }
    columns = max((len(row["candidates"]) for row in rows), default=4)
    with new_figure(
        0.2 + TEXT + columns * (TILE + 0.12) + 0.1, 1.05 + max(1, len(rows)) * (TILE + 0.38)
    ) as figure:
        draw(figure, rows, pictures, settings)
        inputs = [*snakemake.input.images, *snakemake.input.rankings]
        write_figure(
            figure,
            "Prompts with their candidates, scores and picks",
            snakemake.output,
            inputs,
            about,
            "pillow",
        )
    job.record.items = job.record.computed = len(rows)
    job.write_record()


if __name__ == "__main__":
    run_script(main)
