"""Rule guidance_figure: how often the images of each guidance scale are picked, by topic (the
paper's Figure 4).

A pick is the winner of `image_ranking.select_by`. Beside each share stands its 95 % interval
(Wilson's score interval for a proportion), and in the heading of each panel the number of picks; a
line shows where all shares would lie if the scale made no difference.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from lib.config.figures import GuidanceFigureJob
from lib.data.rows import ImageRankingRow, ImagesRow, MissingRow
from lib.data.shards import is_missing, present, read_whole_shards
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.figures import BLUE, INK, ORANGE, QUIET, demo_mark, new_figure, pretty, write_figure
from lib.report.sidecar import resolve_image_model, resolve_scorer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERSION = 1
ALL = "all topics"
Z = 1.959964  # the normal distribution's two-sided 95 %
COLUMNS = 4


class ScaleShare(TypedDict):
    """A guidance scale in a panel: how many picks have it, and of how many percent of the picks
    that is, with its interval.
    """

    guidance_scale: float
    picks: int
    percent: float | None
    interval: list[float]


class TopicPanel(TypedDict):
    """A topic, its number of picks, and their guidance scales."""

    topic: str
    picks: int
    scales: list[ScaleShare]


def wilson_interval(hits: int, tries: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, as fractions; the whole range where nothing was tried."""
    if tries == 0:
        return 0.0, 1.0
    share, square = hits / tries, Z * Z
    centre = (share + square / (2 * tries)) / (1 + square / tries)
    deviation = math.sqrt(share * (1 - share) / tries + square / (4 * tries * tries))
    half = Z * deviation / (1 + square / tries)
    return max(0.0, centre - half), min(1.0, centre + half)


def count_picks(
    images: Mapping[str, ImagesRow | MissingRow],
    rankings: Mapping[str, ImageRankingRow | MissingRow],
) -> dict[str, Counter[float]]:
    """Topic -> guidance scale -> how many picked images were made with it; all topics first.
    Prompts without a pick do not count.
    """
    drawn_from = {row["id"]: row["candidates"] for row in present(images.values())}
    picks: dict[str, Counter[float]] = {ALL: Counter()}
    for row in present(rankings.values()):
        scale = float(drawn_from[row["id"]][row["winner"]]["guidance_scale"] or 0)
        for topic in (ALL, row["topic"]):
            picks.setdefault(topic, Counter())[scale] += 1
    topics = [ALL, *sorted(topic for topic in picks if topic != ALL)]
    return {topic: picks[topic] for topic in topics}


def panels_of(picks: Mapping[str, Counter[float]], scales: Sequence[float]) -> list[TopicPanel]:
    """The numbers that are drawn: for each topic its picks, and for each scale count, percent and
    interval in percent.
    """
    return [
        {
            "topic": topic,
            "picks": counts.total(),
            "scales": [share_of(scale, counts[scale], counts.total()) for scale in scales],
        }
        for topic, counts in picks.items()
    ]


def share_of(scale: float, picks: int, total: int) -> ScaleShare:
    """A guidance scale's share of all picks."""
    low, high = wilson_interval(picks, total)
    return {
        "guidance_scale": scale,
        "picks": picks,
        "percent": 100 * picks / total if total else None,
        "interval": [100 * low, 100 * high],
    }


def highest_shown(panels: Sequence[TopicPanel]) -> float:
    """The upper end of the percents: room for every interval, in whole tens."""
    ends = [share["interval"][1] for panel in panels if panel["picks"] for share in panel["scales"]]
    return min(100.0, 10 * math.ceil(max(ends, default=100) / 10))


def draw_panel(axes: "Axes", panel: TopicPanel, top: float) -> None:
    """One topic: a dot and its interval for each scale."""
    shares, is_all = panel["scales"], panel["topic"] == ALL
    even = 100 / len(shares)
    axes.axhline(even, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    if panel["picks"]:
        draw_shares(axes, shares, ORANGE if is_all else BLUE)
    weight = "bold" if is_all else "normal"
    axes.set_title(f"{pretty(panel['topic'])}  ", fontweight=weight, color=INK)
    axes.set_title(f"n = {panel['picks']:,}", loc="right", fontsize=8, color=QUIET)
    axes.set_xticks(range(len(shares)), [f"{share['guidance_scale']:g}" for share in shares])
    axes.set_xlim(-0.5, len(shares) - 0.5)
    axes.set_ylim(0, top)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", pad=6)  # a dot at zero does not touch the labels
    axes.spines["left"].set_visible(False)


def draw_shares(axes: "Axes", shares: Sequence[ScaleShare], colour: str) -> None:
    """The intervals, a line through the shares, and a dot for each."""
    places = range(len(shares))
    percents = [share["percent"] or 0.0 for share in shares]
    lows, highs = zip(*(share["interval"] for share in shares), strict=True)
    axes.vlines(places, lows, highs, color=colour, linewidth=5, alpha=0.25)
    axes.plot(places, percents, color=colour, linewidth=1.2, alpha=0.6, zorder=3)
    axes.plot(places, percents, "o", color=colour, markersize=6, zorder=4, clip_on=False)


def draw(figure: "Figure", panels: Sequence[TopicPanel], scorer: str, label: str) -> None:
    """All topics first, then each by itself, on one scale."""
    columns = min(COLUMNS, len(panels))
    top = highest_shown(panels)
    grid = figure.subplots(math.ceil(len(panels) / columns), columns, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= len(panels):
            axes.set_visible(False)
            continue
        draw_panel(axes, panels[number], top)
        if number % columns == 0:
            axes.set_ylabel("picked, %")
        if number >= len(panels) - columns:
            axes.set_xlabel("guidance scale")
    draw_heading(figure, scorer, label)


def draw_heading(figure: "Figure", scorer: str, label: str) -> None:
    """What the figure shows, above its panels."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    figure.subplots_adjust(
        left=0.62 / width,
        right=0.985,
        bottom=0.55 / height,
        top=1 - 0.95 / height,
        hspace=0.5,
        wspace=0.12,
    )
    left, upper, lower = 0.12 / width, 1 - 0.13 / height, 1 - 0.38 / height
    title = "Which guidance scale is picked"
    below = (
        f"share of prompts whose pick (by {scorer}) has this guidance scale; band: 95 %"
        " interval; dashed: no preference"
    )
    figure.text(left, upper, title, fontsize=12, fontweight="bold", va="top")
    figure.text(left, lower, below, fontsize=8, color=QUIET, va="top")
    figure.text(0.985, upper, demo_mark(label), fontsize=8, color=QUIET, va="top", ha="right")


def main(snakemake: Any) -> None:
    with Job(snakemake, GuidanceFigureJob, VERSION) as job:
        settings, inputs = job.settings, snakemake.input
        images = read_whole_shards(job, inputs.images, ImagesRow)
        rankings = read_whole_shards(job, inputs.rankings, ImageRankingRow)
        panels = panels_of(count_picks(images, rankings), settings.guidance_scales)
        about = {
            "panels": panels,
            "interval": "95 % score interval of a proportion (Wilson)",
            "prompts": len(rankings),
            "prompts_without_a_pick": sum(map(is_missing, rankings.values())),
            "scorer": resolve_scorer(settings.scorer, settings.scorer_model, job.root),
            "image_model": resolve_image_model(settings.image_model, job.root),
        }
        columns = min(COLUMNS, len(panels))
        height = 1.75 * math.ceil(len(panels) / columns) + 1.2
        with new_figure(2.1 * columns + 0.7, height) as figure:
            draw(figure, panels, settings.scorer, settings.label)
            title = "How often each guidance scale is picked"
            files = [*inputs.images, *inputs.rankings]
            write_figure(figure, title, snakemake.output, files, about)
        job.count(len(rankings))


if __name__ == "__main__":
    run_script(main)
