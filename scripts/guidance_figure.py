"""Rule guidance_figure: how often the images of each guidance scale are picked, by topic (the
paper's Figure 4).

A pick is the winner of `image_ranking.select_by`. Beside each share stands its 95 % interval
(Wilson's score interval for a proportion), and in the heading of each panel the number of picks; a
line shows where all shares would lie if the scale made no difference.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib.data.shards import Row, is_missing, read_shard
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report.figures import BLUE, INK, ORANGE, QUIET, demo_mark, new_figure, pretty, write_figure
from lib.report.sidecar import model_origin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERSION = 1
ALL = "all topics"
Z = 1.959964  # the normal distribution's two-sided 95 %
COLUMNS = 4


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, as fractions; the whole range where nothing was tried."""
    if tries == 0:
        return 0.0, 1.0
    share, square = hits / tries, Z * Z
    centre = (share + square / (2 * tries)) / (1 + square / tries)
    half = (
        Z
        * math.sqrt(share * (1 - share) / tries + square / (4 * tries * tries))
        / (1 + square / tries)
    )
    return max(0.0, centre - half), min(1.0, centre + half)


def count_picks(
    images: Mapping[str, Row], rankings: Mapping[str, Row]
) -> dict[str, Counter[float]]:
    """Topic -> guidance scale -> how many picked images were made with it; all topics first.
    Prompts without a pick do not count.
    """
    picks: dict[str, Counter[float]] = {ALL: Counter()}
    for prompt_id, row in rankings.items():
        if not is_missing(row):
            scale = float(images[prompt_id]["candidates"][row["winner"]]["guidance_scale"])
            for topic in (ALL, row["topic"]):
                picks.setdefault(topic, Counter())[scale] += 1
    return {
        topic: picks[topic] for topic in [ALL, *sorted(topic for topic in picks if topic != ALL)]
    }


def panels_of(picks: Mapping[str, Counter[float]], scales: Sequence[float]) -> list[dict[str, Any]]:
    """The numbers that are drawn: for each topic its picks, and for each scale count, percent and
    interval in percent.
    """
    panels = []
    for topic, counts in picks.items():
        total = counts.total()
        bars = []
        for scale in scales:
            low, high = wilson(counts[scale], total)
            share = 100 * counts[scale] / total if total else None
            bars.append(
                {
                    "guidance_scale": scale,
                    "picks": counts[scale],
                    "percent": share,
                    "interval": [100 * low, 100 * high],
                }
            )
        panels.append({"topic": topic, "picks": total, "scales": bars})
    return panels


def draw_panel(axes: "Axes", panel: Mapping[str, Any], top: float) -> None:
    """One topic: a dot and its interval for each scale."""
    colour = ORANGE if panel["topic"] == ALL else BLUE
    bars = panel["scales"]
    places = range(len(bars))
    axes.axhline(100 / len(bars), color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    if panel["picks"]:
        axes.vlines(
            places,
            [bar["interval"][0] for bar in bars],
            [bar["interval"][1] for bar in bars],
            color=colour,
            linewidth=5,
            alpha=0.25,
        )
        axes.plot(
            places,
            [bar["percent"] for bar in bars],
            color=colour,
            linewidth=1.2,
            alpha=0.6,
            zorder=3,
        )
        axes.plot(
            places,
            [bar["percent"] for bar in bars],
            color=colour,
            marker="o",
            markersize=6,
            linestyle="none",
            zorder=4,
            clip_on=False,
        )
    axes.set_title(
        f"{pretty(panel['topic'])}  ",
        fontweight="bold" if panel["topic"] == ALL else "normal",
        color=INK,
    )
    axes.set_title(f"n = {panel['picks']:,}", loc="right", fontsize=8, color=QUIET)
    axes.set_xticks(list(places), [f"{bar['guidance_scale']:g}" for bar in bars])
    axes.set_xlim(-0.5, len(bars) - 0.5)
    axes.set_ylim(0, top)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", pad=6)  # a dot at zero does not touch the labels
    axes.spines["left"].set_visible(False)


def draw(
    figure: "Figure", panels: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> None:
    """All topics first, then each by itself, on one scale."""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    # Room for every interval, in whole tens.
    top = min(
        100.0,
        10
        * math.ceil(
            max(
                (
                    bar["interval"][1]
                    for panel in panels
                    if panel["picks"]
                    for bar in panel["scales"]
                ),
                default=100,
            )
            / 10
        ),
    )
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= len(panels):
            axes.set_visible(False)
            continue
        draw_panel(axes, panels[number], top)
        if number % columns == 0:
            axes.set_ylabel("picked, %")
        if number >= len(panels) - columns:
            axes.set_xlabel("guidance scale")
    height = figure.get_figheight()
    figure.subplots_adjust(
        left=0.62 / figure.get_figwidth(),
        right=0.985,
        bottom=0.55 / height,
        top=1 - 0.95 / height,
        hspace=0.5,
        wspace=0.12,
    )
    figure.text(
        0.12 / figure.get_figwidth(),
        1 - 0.13 / height,
        "Which guidance scale is picked",
        fontsize=12,
        fontweight="bold",
        va="top",
    )
    below = (
        f"share of prompts whose pick (by {settings['scorer']}) has this guidance scale; band: 95 %"
        " interval; dashed: no preference"
    )
    figure.text(
        0.12 / figure.get_figwidth(), 1 - 0.38 / height, below, fontsize=8, color=QUIET, va="top"
    )
    figure.text(
        0.985,
        1 - 0.13 / height,
        demo_mark(settings["label"]),
        fontsize=8,
        color=QUIET,
        va="top",
        ha="right",
    )


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    images = {key: row for path in snakemake.input.images for key, row in read_shard(path).items()}
    rankings = {
        key: row for path in snakemake.input.rankings for key, row in read_shard(path).items()
    }
    panels = panels_of(count_picks(images, rankings), settings["guidance_scales"])
    columns = min(COLUMNS, len(panels))
    about = {
        "panels": panels,
        "interval": "95 % score interval of a proportion (Wilson)",
        "prompts": len(rankings),
        "prompts_without_a_pick": sum(map(is_missing, rankings.values())),
        "scorer": {
            "name": settings["scorer"],
            **model_origin(
                settings["models"]["scorer"], job.root, "rank_images", settings["scorer"]
            ),
        },
        "image_model": model_origin(settings["models"]["images"], job.root, "generate_images"),
    }
    with new_figure(2.1 * columns + 0.7, 1.75 * math.ceil(len(panels) / columns) + 1.2) as figure:
        draw(figure, panels, settings)
        write_figure(
            figure,
            "How often each guidance scale is picked",
            snakemake.output,
            [*snakemake.input.images, *snakemake.input.rankings],
            about,
        )
    job.record.items = job.record.computed = len(rankings)
    job.write_record()


if __name__ == "__main__":
    run_script(main)
