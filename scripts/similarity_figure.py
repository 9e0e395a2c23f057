"""Rule similarity_figure: how similar responses are to each other, and prompts to each other (the
paper's Figure 6).

The paper shows "inter-response and inter-prompt distributions" of similarity and says no more of
them. Here a similarity is the cosine of two sentence embeddings, and four distributions are shown,
so that either reading is there:
- responses: the chosen responses of every two prompts; and the valid responses of different policy
  models to the same prompt;
- prompts: the instructions of every two prompts; and the text-to-image prompts themselves, every
two of them. Lower is more varied.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from lib.config.figures import SimilarityFigureJob
from lib.data.rows import EmbeddingsRow, MissingRow, PairRow
from lib.data.shards import present, read_whole_shards
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.digits import told_apart
from lib.report.figures import BLUE, GREEN, INK, ORANGE, QUIET, demo_mark, new_figure, write_figure
from lib.report.sidecar import resolve_model
from lib.vectors import unpack

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERSION = 2
BINS = 200  # from -1 to 1: the finest width, 0.01, which is kept in the sidecar
WIDTHS = (1, 2, 5, 10)
BLOCK = 1024  # rows of one matrix product


class Distribution(TypedDict):
    """How similar texts are: how many there are, how many pairs of them, the mean of the pairs'
    similarities, and their histogram: a bin's lower edge -> how many pairs are in it.
    """

    texts: int
    pairs: int
    mean: float | None
    histogram: dict[str, int]


class Distributions(TypedDict):
    """The four that are drawn."""

    responses_of_two_prompts: Distribution
    responses_to_one_prompt: Distribution
    instructions_of_two_prompts: Distribution
    prompts: Distribution


class Curve(NamedTuple):
    """A distribution as it is drawn."""

    name: str
    colour: str
    of: Distribution


def histogram(similarities: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """How many similarities fall into each of the bins from -1 to 1. Rounded first, so that no
    bin's edge is decided by a last bit.
    """
    import numpy as np

    return np.histogram(np.clip(np.round(similarities, 6), -1, 1), bins=BINS, range=(-1, 1))[0]


def compare_all(vectors: "np.ndarray[Any, Any]") -> Distribution:
    """The distribution of the similarity of every two of these vectors, (count, dimensions)."""
    import numpy as np

    counts, total, pairs = np.zeros(BINS, dtype=np.int64), 0.0, 0
    for start in range(0, len(vectors), BLOCK):
        products = vectors[start : start + BLOCK] @ vectors[start:].T
        each = products[np.triu_indices(len(products), 1, products.shape[1])]
        counts += histogram(each)
        total += float(np.round(each, 6).sum())
        pairs += each.size
    return describe(counts, total, pairs, len(vectors))


def compare_in_groups(groups: Sequence["np.ndarray[Any, Any]"]) -> Distribution:
    """The distribution of the similarity of every two vectors of the same group."""
    import numpy as np

    each = np.array(
        [
            float(group[one] @ group[other])
            for group in groups
            for one, other in combinations(range(len(group)), 2)
        ]
    )
    total = float(np.round(each, 6).sum())
    return describe(histogram(each), total, each.size, sum(map(len, groups)))


def describe(counts: "np.ndarray[Any, Any]", total: float, pairs: int, texts: int) -> Distribution:
    """A distribution from the counts of all bins and the sum of all similarities."""
    filled = {
        f"{-1 + 2 * number / BINS:.2f}": int(count) for number, count in enumerate(counts) if count
    }
    mean = round(total / pairs, 4) if pairs else None
    return {"texts": texts, "pairs": pairs, "mean": mean, "histogram": filled}


def distributions(
    embeddings: Mapping[str, EmbeddingsRow | MissingRow], pairs: Mapping[str, PairRow | MissingRow]
) -> Distributions:
    """All four distributions. Prompts that the stages have nothing of are left out."""
    rows = {row["id"]: row["embeddings"] for row in present(embeddings.values())}
    chosen = [
        rows[row["id"]][f"responses/{row['pair']['chosen']['policy']}"]
        for row in present(pairs.values())
        if "pair" in row and row["id"] in rows
    ]
    groups = [
        unpack([text for name, text in row.items() if name.startswith("responses/")])
        for row in rows.values()
    ]
    instructions = unpack([row["instruction"] for row in rows.values()])
    return {
        "responses_of_two_prompts": compare_all(unpack(chosen)),
        "responses_to_one_prompt": compare_in_groups(groups),
        "instructions_of_two_prompts": compare_all(instructions),
        "prompts": compare_all(unpack([row["prompt"] for row in rows.values()])),
    }


def counts_of(distribution: Distribution) -> "np.ndarray[Any, Any]":
    """The counts of all bins from the sidecar's histogram, which holds the filled ones."""
    import numpy as np

    counts = np.zeros(BINS)
    for edge, count in distribution["histogram"].items():
        counts[round((float(edge) + 1) * BINS / 2)] = count
    return counts


def bin_width(distribution: Distribution) -> int:
    """How many of the finest bins make one that is drawn: the fewer pairs there are in a
    distribution's range, the more.
    """
    import numpy as np

    filled = np.flatnonzero(counts_of(distribution))
    wanted = min(60.0, max(6.0, math.sqrt(distribution["pairs"])))
    return next(
        (width for width in WIDTHS if (filled[-1] - filled[0] + 1) / width <= wanted), WIDTHS[-1]
    )


def steps_of(distribution: Distribution, width: int) -> tuple[list[float], list[float]]:
    """(edges, densities) of a distribution as steps over its own range, `width` of the finest bins
    together.
    """
    import numpy as np

    heights = counts_of(distribution).reshape(-1, width).sum(1) / (
        distribution["pairs"] * 2 * width / BINS
    )
    filled = np.flatnonzero(heights)
    first, last = filled[0], filled[-1] + 1
    return list(np.linspace(-1, 1, BINS // width + 1)[first : last + 1]), list(heights[first:last])


def panels_of(similarities: Distributions) -> dict[str, list[Curve]]:
    """The curves of each panel."""
    return {
        "Responses": [
            Curve("of two prompts (chosen)", BLUE, similarities["responses_of_two_prompts"]),
            Curve("of two models to one prompt", ORANGE, similarities["responses_to_one_prompt"]),
        ],
        "Prompts": [
            Curve("instructions", BLUE, similarities["instructions_of_two_prompts"]),
            Curve("text-to-image prompts", GREEN, similarities["prompts"]),
        ],
    }


def draw_panel(axes: "Axes", title: str, curves: Sequence[Curve], left: float) -> None:
    """The distributions of one panel, filled and named, each with its mean."""
    axes.set_title(title, fontweight="bold")
    axes.set(xlim=(left, 1.0), xlabel="cosine similarity", yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(length=3)
    top = draw_curves(axes, curves)
    axes.set_ylim(0, 1.5 * (top or 1))
    means = [curve.of["mean"] for curve in curves]
    shown = iter(told_apart([mean for mean in means if mean is not None], 2))
    for number, (curve, mean) in enumerate(zip(curves, means, strict=True)):
        draw_name(axes, curve, None if mean is None else next(shown), number)
        if mean is not None:
            dotted = (0, (2, 2))
            axes.plot([mean] * 2, [0, 1.06 * top], color=curve.colour, lw=1.0, ls=dotted)


def draw_curves(axes: "Axes", curves: Sequence[Curve]) -> float:
    """The curves, all with bins of the same width; gives the highest density."""
    filled = [curve for curve in curves if curve.of["pairs"]]
    width = max((bin_width(curve.of) for curve in filled), default=1)
    top = 0.0
    for curve in filled:
        edges, heights = steps_of(curve.of, width)
        axes.stairs(heights, edges, fill=True, color=curve.colour, alpha=0.22, linewidth=0)
        axes.stairs(heights, edges, color=curve.colour, linewidth=1.4)
        top = max(top, *heights)
    return top


def draw_name(axes: "Axes", curve: Curve, mean: str | None, number: int) -> None:
    """A curve's name with its mean as it is shown, and below it how many pairs there are; `number`:
    its line.
    """
    pairs = curve.of["pairs"]
    words = f"{curve.name}: no two to compare" if mean is None else f"{curve.name}: mean {mean}"
    axes.text(
        0.0,
        0.98 - 0.135 * number,
        words,
        transform=axes.transAxes,
        color=curve.colour,
        fontsize=8.5,
        fontweight="bold",
        va="top",
    )
    axes.text(
        0.0,
        0.925 - 0.135 * number,
        f"{pairs:,} pairs",
        transform=axes.transAxes,
        color=QUIET,
        fontsize=7.5,
        va="top",
    )


def draw(figure: "Figure", similarities: Distributions, model: str, label: str) -> None:
    """A panel for responses and one for prompts, on one scale."""
    panels = panels_of(similarities)
    edges = [
        float(edge)
        for curves in panels.values()
        for curve in curves
        for edge in curve.of["histogram"]
    ]
    left = max(-1.0, math.floor(min(edges, default=0.0) * 10) / 10)
    for axes, (title, curves) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        draw_panel(axes, title, curves, left)
    figure.subplots_adjust(left=0.035, right=0.965, bottom=0.15, top=0.76, wspace=0.15)
    title = "How similar texts are to each other"
    below = f"cosine of sentence embeddings ({model}); lower is more varied; dotted: mean"
    mark = demo_mark(label)
    figure.text(0.035, 0.965, title, fontsize=12, fontweight="bold", color=INK, va="top")
    figure.text(0.035, 0.895, below, fontsize=8, color=QUIET, va="top")
    figure.text(0.965, 0.965, mark, fontsize=8, color=QUIET, va="top", ha="right")


def main(snakemake: Any) -> None:
    with Job(snakemake, SimilarityFigureJob, VERSION) as job:
        settings, inputs = job.settings, snakemake.input
        embeddings = read_whole_shards(job, inputs.embeddings, EmbeddingsRow)
        similarities = distributions(embeddings, read_whole_shards(job, inputs.pairs, PairRow))
        about = {
            "distributions": similarities,
            "similarity": (
                "cosine of sentence embeddings; a histogram's bin is named by its lower edge and is"
                " 0.01 wide"
            ),
            "embedding": resolve_model(settings.embedding, job.root, "embed_texts"),
        }
        with new_figure(8.6, 3.7) as figure:
            model = settings.embedding.model.rstrip("/").rsplit("/", 1)[-1]
            draw(figure, similarities, model, settings.label)
            title = "Similarity of prompts and of responses"
            files = [*inputs.embeddings, *inputs.pairs]
            write_figure(figure, title, snakemake.output, files, about)
        job.count(len(embeddings))


if __name__ == "__main__":
    run_script(main)
