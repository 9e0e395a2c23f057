"""What the figures share: their style, colours that colour-blind people tell apart, and files whose
bytes depend on what is drawn only.

A figure is written as SVG and PNG, with a sidecar that holds the numbers that are drawn and where
they come from. Texts of prompts are drawn as they are: nothing in them is mathematics or markup,
and in the SVG they are outlines, so that no viewer's fonts or parsers matter.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from lib.data.image_files import read_image
from lib.files import replacing, write_json
from lib.report.sidecar import built_with, file_digests, product_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

INK = "#222222"
QUIET = "#6b6b6b"
FAINT = "#d9d9d9"
#: Of Okabe and Ito's palette, whose colours are told apart by people with any kind of colour
#: blindness.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
#: What is wrong; never by its colour alone.
RED = "#B3001B"

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.axisbelow": True,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "svg.hashsalt": "pds-dpo",
    "svg.fonttype": "path",
    "figure.dpi": 100,
}
PIXELS_AN_INCH = 200


@contextmanager
def new_figure(width: float, height: float) -> "Iterator[Figure]":
    """An empty figure in the common style; `width`, `height` in inches. Nothing is shown on a
    screen.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(), warnings.catch_warnings():
        # A prompt may hold characters that the font has not: they are drawn as boxes.
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure


class FigureFiles(Protocol):
    """The files of a figure, as its rule names them."""

    svg: str
    png: str
    sidecar: str


def write_figure(
    figure: "Figure",
    title: str,
    outputs: FigureFiles,
    inputs: Sequence[str],
    about: Mapping[str, Any],
    *packages: str,
) -> None:
    """Writes a figure's `svg` and `png` and its `sidecar`, each whole or not at all.

    `inputs`: the files it was made from; `about`: the numbers that are drawn and where they come
    from; `packages`: what else drew it.
    """
    products = {"svg": Path(outputs.svg), "png": Path(outputs.png)}
    undated = {"svg": {"Date": None}, "png": {"Software": None}}
    for kind, path in products.items():
        metadata = {**undated[kind], "Title": title}
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=PIXELS_AN_INCH, metadata=metadata)
    sidecar = {
        "title": title,
        **about,
        "files": product_files(products),
        # figures/ lies in the run's folder.
        "inputs": file_digests(inputs, products["svg"].parent.parent),
        "built_with": built_with("matplotlib", "numpy", *packages),
    }
    write_json(Path(outputs.sidecar), sidecar)


def thumbnail(source: "Path | BinaryIO", inches: float) -> "Image":
    """An image's pixels as RGB, no more of them than a longer side of `inches` has in a figure."""
    image = read_image(source)
    image.thumbnail((round(inches * PIXELS_AN_INCH),) * 2)
    return image


def demo_mark(label: str) -> str:
    """What a demo's figure says of itself; nothing for a run of real models."""
    return "" if label == "ours" else f"{label}: small models"


def pretty(name: str) -> str:
    """A topic's name as text."""
    return name.replace("_", " ")
