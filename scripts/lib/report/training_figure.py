"""The figure of a training: loss, reward margin and reward accuracy of each update."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib.files import mendable_storage_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE = {
    "svg.hashsalt": "train_dpo",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


@dataclass(frozen=True)
class Panel:
    """One metric over the updates. `level`: the value to compare it with, and what that is;
    `held_out`: the same of the held-out pairs.
    """

    title: str
    metric: str
    held_out: str
    colour: str
    level: float
    level_text: str = ""
    limits: tuple[float, float] | None = None


PANELS = (
    Panel("Loss", "loss", "held_out/loss", "#1f5fa8", math.log(2), "ln 2: policy = reference"),
    Panel(
        "Reward margin, chosen − rejected",
        "rewards/margins",
        "held_out/margins",
        "#2a7f4f",
        0.0,
    ),
    Panel(
        "Share of pairs with chosen above rejected",
        "rewards/accuracies",
        "held_out/accuracies",
        "#b3541e",
        0.5,
        limits=(-0.04, 1.04),
    ),
)


def draw_training(
    metrics: Sequence[Mapping[str, float]], title: str, files: Sequence[Path]
) -> None:
    """Draws a training's metrics, one row an update; each file is a function of them alone."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.1), layout="constrained", dpi=150)
        FigureCanvasAgg(figure)
        for axes, panel in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            draw_panel(axes, panel, metrics)
        figure.suptitle(title, fontsize=10, x=0.005, ha="left", color="#444444")
        for file in files:
            undated = {"Date": None} if file.suffix == ".svg" else {"Software": None}
            with mendable_storage_errors(file):
                figure.savefig(file, metadata=undated)


def draw_panel(axes: "Axes", panel: Panel, metrics: Sequence[Mapping[str, float]]) -> None:
    """Draws one metric; that of a long training with its running mean."""
    steps = [row["step"] for row in metrics]
    values = [row[panel.metric] for row in metrics]
    window = max(1, len(steps) // 20)
    draw_level(axes, panel)
    if window > 1:
        axes.plot(steps, values, color=panel.colour, linewidth=0.6, alpha=0.3)
        axes.plot(steps, running_means(values, window), color=panel.colour, linewidth=1.6)
    else:
        axes.plot(steps, values, color=panel.colour, linewidth=1.6, marker="o", markersize=3.5)
    draw_held_out(axes, panel, metrics)
    if panel.limits:
        axes.set_ylim(*panel.limits)
    axes.set_title(panel.title)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("update" if window == 1 else f"update (bold: mean of {window})")


def draw_held_out(axes: "Axes", panel: Panel, metrics: Sequence[Mapping[str, float]]) -> None:
    """Draws what the held-out pairs gave, where there are such."""
    asked = [row for row in metrics if panel.held_out in row]
    if asked:
        axes.plot(
            [row["step"] for row in asked],
            [row[panel.held_out] for row in asked],
            color="#222222",
            linewidth=1.2,
            linestyle=(0, (1, 1.5)),
            marker="D",
            markersize=3.5,
            label="held-out pairs",
        )
        axes.legend(fontsize=7, frameon=False)


def draw_level(axes: "Axes", panel: Panel) -> None:
    """Draws the value to compare a metric with."""
    axes.axhline(panel.level, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)))
    if panel.level_text:
        axes.annotate(
            panel.level_text,
            (1, panel.level),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7,
            color="#666666",
        )


def running_means(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and the ones before it, `window` in all where there are so many."""
    parts = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]
