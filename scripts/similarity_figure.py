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
from typing import TYPE_CHECKING, Any

from lib.data.shards import Row, is_missing, read_shard
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report.figures import BLUE, GREEN, INK, ORANGE, QUIET, demo_mark, new_figure, write_figure
from lib.report.sidecar import model_origin
from lib.vectors import unpack

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERSION = 1
BINS = 200  # from -1 to 1: the finest width, 0.01, which is kept in the sidecar
WIDTHS = (1, 2, 5, 10)
BLOCK = 1024  # rows of one matrix product
#: (key, panel, name, colour) of each distribution.
DISTRIBUTIONS = (
    ("responses_of_two_prompts", "Responses", "of two prompts (chosen)", BLUE),
    ("responses_to_one_prompt", "Responses", "of two models to one prompt", ORANGE),
    ("instructions_of_two_prompts", "Prompts", "instructions", BLUE),
    ("prompts", "Prompts", "text-to-image prompts", GREEN),
)


def histogram(similarities: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """How many similarities fall into each of the bins from -1 to 1. Rounded first, so that no
    bin's edge is decided by a last bit.
    """
    import numpy as np

    return np.histogram(np.clip(np.round(similarities, 6), -1, 1), bins=BINS, range=(-1, 1))[0]


def between(vectors: "np.ndarray[Any, Any]") -> dict[str, Any]:
    """The distribution of the similarity of every two of these vectors, (count, dimensions)."""
    import numpy as np

    counts, total, pairs = np.zeros(BINS, dtype=np.int64), 0.0, 0
    for start in range(0, len(vectors), BLOCK):
        products = vectors[start : start + BLOCK] @ vectors[start:].T
        each = products[np.triu_indices(len(products), 1, products.shape[1])]
        counts += histogram(each)
        total += float(np.round(each, 6).sum())
        pairs += each.size
    return described(counts, total, pairs, len(vectors))


def within(groups: Sequence["np.ndarray[Any, Any]"]) -> dict[str, Any]:
    """The distribution of the similarity of every two vectors of the same group."""
    import numpy as np

    each = np.array(
        [
            float(group[one] @ group[other])
            for group in groups
            for one, other in combinations(range(len(group)), 2)
        ]
    )
    return described(
        histogram(each), float(np.round(each, 6).sum()), each.size, sum(map(len, groups))
    )


def described(
    counts: "np.ndarray[Any, Any]", total: float, pairs: int, texts: int
) -> dict[str, Any]:
    """What the sidecar holds of a distribution: `histogram` of bin -> count (a bin is named by its
    lower edge), and the mean.
    """
    filled = {
        f"{-1 + 2 * number / BINS:.2f}": int(count) for number, count in enumerate(counts) if count
    }
    return {
        "texts": texts,
        "pairs": pairs,
        "mean": round(total / pairs, 4) if pairs else None,
        "histogram": filled,
    }


def distributions(
    embeddings: Mapping[str, Row], pairs: Mapping[str, Row]
) -> dict[str, dict[str, Any]]:
    """All four distributions, by key. Prompts that the stages have nothing of are left out."""
    rows = {key: row["embeddings"] for key, row in embeddings.items() if not is_missing(row)}
    chosen = [
        rows[key][f"responses/{row['pair']['chosen']['policy']}"]
        for key, row in pairs.items()
        if "pair" in row and key in rows
    ]
    groups = [
        unpack([text for name, text in row.items() if name.startswith("responses/")])
        for row in rows.values()
    ]
    return {
        "responses_of_two_prompts": between(unpack(chosen)),
        "responses_to_one_prompt": within(groups),
        "instructions_of_two_prompts": between(
            unpack([row["instruction"] for row in rows.values()])
        ),
        "prompts": between(unpack([row["prompt"] for row in rows.values()])),
    }


def counts_of(distribution: Mapping[str, Any]) -> "np.ndarray[Any, Any]":
    """The counts of all bins from the sidecar's histogram, which holds the filled ones."""
    import numpy as np

    counts = np.zeros(BINS)
    for edge, count in distribution["histogram"].items():
        counts[round((float(edge) + 1) * BINS / 2)] = count
    return counts


def bin_width(distribution: Mapping[str, Any]) -> int:
    """How many of the finest bins make one that is drawn: the fewer pairs there are in a
    distribution's range, the more.
    """
    import numpy as np

    filled = np.flatnonzero(counts_of(distribution))
    wanted = min(60.0, max(6.0, math.sqrt(distribution["pairs"])))
    return next(
        (width for width in WIDTHS if (filled[-1] - filled[0] + 1) / width <= wanted), WIDTHS[-1]
    )


def curve(distribution: Mapping[str, Any], width: int) -> tuple[list[float], list[float]]:
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


def draw_panel(
    axes: "Axes", title: str, shown: Sequence[tuple[str, str, Mapping[str, Any]]], left: float
) -> None:
    """The distributions of one panel, filled and named, each with its mean. `shown`: (name, colour,
    distribution).
    """
    axes.set_title(title, fontweight="bold")
    axes.set(xlim=(left, 1.0), xlabel="cosine similarity", yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(length=3)
    top = 0.0
    width = max(
        (bin_width(distribution) for _, _, distribution in shown if distribution["pairs"]),
        default=1,
    )
    for _, colour, distribution in shown:
        if distribution["pairs"]:
            edges, heights = curve(distribution, width)
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.22, linewidth=0)
            axes.stairs(heights, edges, color=colour, linewidth=1.4)
            top = max(top, *heights)
    axes.set_ylim(0, 1.5 * (top or 1))
    for number, (name, colour, distribution) in enumerate(shown):
        words = (
            f"{name}: mean {distribution['mean']:.2f}"
            if distribution["pairs"]
            else f"{name}: no two to compare"
        )
        axes.text(
            0.0,
            0.98 - 0.135 * number,
            words,
            transform=axes.transAxes,
            color=colour,
            fontsize=8.5,
            fontweight="bold",
            va="top",
        )
        axes.text(
            0.0,
            0.925 - 0.135 * number,
            f"{distribution['pairs']:,} pairs",
            transform=axes.transAxes,
            color=QUIET,
            fontsize=7.5,
            va="top",
        )
        if distribution["pairs"]:
            axes.plot(
                [distribution["mean"]] * 2,
                [0, 1.06 * top],
                color=colour,
                linewidth=1.0,
                linestyle=(0, (2, 2)),
            )


def draw(
    figure: "Figure",
    found: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    model: str,
) -> None:
    """A panel for responses and one for prompts, on one scale."""
    lowest = min(
        (float(edge) for each in found.values() for edge in each["histogram"]), default=0.0
    )
    left = max(-1.0, math.floor(lowest * 10) / 10)
    for axes, panel in zip(figure.subplots(1, 2), ("Responses", "Prompts"), strict=True):
        draw_panel(
            axes,
            panel,
            [
                (name, colour, found[key])
                for key, place, name, colour in DISTRIBUTIONS
                if place == panel
            ],
            left,
        )
    figure.subplots_adjust(left=0.035, right=0.965, bottom=0.15, top=0.76, wspace=0.15)
    figure.text(
        0.035,
        0.965,
        "How similar texts are to each other",
        fontsize=12,
        fontweight="bold",
        color=INK,
        va="top",
    )
    words = f"cosine of sentence embeddings ({model}); lower is more varied; dotted: mean"
    figure.text(0.035, 0.895, words, fontsize=8, color=QUIET, va="top")
    figure.text(
        0.965, 0.965, demo_mark(settings["label"]), fontsize=8, color=QUIET, va="top", ha="right"
    )


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    embeddings = {
        key: row for path in snakemake.input.embeddings for key, row in read_shard(path).items()
    }
    pairs = {key: row for path in snakemake.input.pairs for key, row in read_shard(path).items()}
    found = distributions(embeddings, pairs)
    model = settings["embedding"]["model"].rstrip("/").rsplit("/", 1)[-1]
    about = {
        "distributions": found,
        "similarity": (
            "cosine of sentence embeddings; a histogram's bin is named by its lower edge and is"
            " 0.01 wide"
        ),
        "embedding": model_origin(settings["embedding"], job.root, "embed_texts"),
    }
    with new_figure(8.6, 3.7) as figure:
        draw(figure, found, settings, model)
        inputs = [*snakemake.input.embeddings, *snakemake.input.pairs]
        write_figure(
            figure, "Similarity of prompts and of responses", snakemake.output, inputs, about
        )
    job.record.items = job.record.computed = len(embeddings)
    job.write_record()


if __name__ == "__main__":
    run_script(main)
