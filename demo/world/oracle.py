"""The oracle: what is in a picture, read from its pixels, and what a picture or a text gets right.

It is exact on rendered scenes (a test holds it to that). On pictures that a model made it takes
each pixel for the nearest colour of the palette, and each cell's main colour for the shape that
covers it best; a cell that is neither empty nor clearly one shape is `unclear`. It knows nothing of
the models, and no part of the product knows of it.
"""

import functools
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from world.pictures import CELL, MARGIN, PALETTE, SIZES, Picture, cells_of, shape
from world.scenes import BACKGROUNDS, CELLS, COLOURS, KINDS, Scene, Thing
from world.words import Statement, mentions, read

Floats = NDArray[np.float32]

LEAST_PIXELS = 40  # of a colour in a cell, to be something; the smallest shape has 75
#: Overlap (intersection over union) with a drawn shape from which something is that shape.
CLEAR = 0.7


@dataclass(frozen=True)
class Reading:
    """What a picture shows: the scene, and how many of its cells hold something that is no clear
    shape.
    """

    scene: Scene
    unclear: int


@functools.cache
def templates() -> tuple[Floats, Floats, tuple[str, ...]]:
    """Every way in which a shape can stand in a cell: masks (ways, 576), their areas (ways,), and
    their kinds.
    """
    masks, kinds = [], []
    for kind in KINDS:
        for size in SIZES:
            for top in range(MARGIN, CELL - size - MARGIN + 1):
                for left in range(MARGIN, CELL - size - MARGIN + 1):
                    mask = np.zeros((CELL, CELL), dtype=np.float32)
                    mask[top : top + size, left : left + size] = shape(kind, size)
                    masks.append(mask.ravel())
                    kinds.append(kind)
    stacked = np.stack(masks)
    return stacked, stacked.sum(axis=1), tuple(kinds)


def nearest_colours(pictures: Picture) -> NDArray[np.int64]:
    """The index in `PALETTE` of the colour nearest to each pixel: (..., 3) to (...)."""
    flat = pictures.reshape(-1, 3).astype(np.float32)
    palette = np.array(list(PALETTE.values()), dtype=np.float32)
    # |p - c|^2 less |p|^2, which is the same for every colour
    distances = (palette**2).sum(axis=1) - 2 * flat @ palette.T
    nearest: NDArray[np.int64] = distances.argmin(axis=1).reshape(pictures.shape[:-1])
    return nearest


def read_pictures(pictures: Picture) -> list[Reading]:
    """What each picture shows.

    Args:
        pictures: (n, 48, 48, 3), uint8.
    """
    count = len(pictures)
    labels = nearest_colours(cells_of(pictures)).reshape(count, len(CELLS), -1)
    each = np.stack(
        [(labels == number).sum(axis=2) for number in range(len(PALETTE))], axis=2
    )  # (n, 4, colours)
    backgrounds = each[:, :, len(COLOURS) :].sum(axis=1).argmax(axis=1)
    main = each[:, :, : len(COLOURS)].argmax(axis=2)
    there = each[:, :, : len(COLOURS)].max(axis=2) >= LEAST_PIXELS
    masks, areas, kinds = templates()
    best_shapes: dict[tuple[int, int], tuple[str, float]] = {}
    rows, columns = np.nonzero(there)
    if len(rows):
        things = (labels[rows, columns] == main[rows, columns][:, None]).astype(np.float32)
        common = things @ masks.T
        overlap = common / (things.sum(axis=1)[:, None] + areas - common)
        best = overlap.argmax(axis=1)
        for row, column, way, score in zip(
            rows.tolist(),
            columns.tolist(),
            best.tolist(),
            overlap.max(axis=1).tolist(),
            strict=True,
        ):
            best_shapes[row, column] = kinds[way], score
    readings = []
    for row in range(count):
        seen = {
            column: best_shapes[row, column]
            for column in range(len(CELLS))
            if (row, column) in best_shapes
        }
        clear = [
            Thing(column, COLOURS[main[row, column]], kind)
            for column, (kind, score) in seen.items()
            if score >= CLEAR
        ]
        readings.append(
            Reading(Scene(BACKGROUNDS[backgrounds[row]], tuple(clear)), len(seen) - len(clear))
        )
    return readings


# --- verdicts


@dataclass(frozen=True)
class PictureVerdict:
    """How far a picture does what its prompt said.

    Attributes:
        right: things that were asked for and are there, in their place where a place was said.
        wanted: things that were asked for.
        whole: nothing is missing, unclear or too much, and the background is right.
    """

    right: int
    wanted: int
    whole: bool


def judge_picture(reading: Reading, statement: Statement) -> PictureVerdict:
    """What a picture gets right of what its prompt said."""
    placed = Counter((thing.colour, thing.kind, thing.cell) for thing in reading.scene.things)
    right = 0
    loose: Counter[tuple[str, str]] = Counter()
    for colour, kind, cell in statement.things:
        if cell is None:
            loose[colour, kind] += 1
        elif placed[colour, kind, cell]:
            placed[colour, kind, cell] -= 1
            right += 1
    left: Counter[tuple[str, str]] = Counter()
    for (colour, kind, _), number in placed.items():
        left[colour, kind] += number
    right += (loose & left).total()
    whole = (
        right == len(statement.things) == len(reading.scene.things)
        and not reading.unclear
        and statement.background in ("", reading.scene.background)
    )
    return PictureVerdict(right, len(statement.things), whole)


def truths(text: str, scene: Scene) -> list[bool]:
    """Of each mention in a text, whether the scene has as many such things, in the place that is
    said.
    """
    verdicts = []
    for mention in mentions(text):
        fitting = [
            thing
            for thing in scene.things
            if mention.colour in ("", thing.colour)
            and mention.kind == thing.kind
            and mention.cell in (None, thing.cell)
        ]
        verdicts.append(len(fitting) >= mention.number)
    return verdicts


def fit(text: str, reading: Reading) -> float:
    """How well a picture fits a prompt, from 0 to 1: things right of all that are asked for or
    there, and a tenth for the background.
    """
    statement = read(text)
    verdict = judge_picture(reading, statement)
    there = len(reading.scene.things) + reading.unclear
    return 0.9 * verdict.right / max(1, verdict.wanted, there) + 0.1 * (
        statement.background in ("", reading.scene.background)
    )


@dataclass(frozen=True)
class CaptionVerdict:
    """What a caption says of a scene, as colours and kinds: named right, said though not there,
    there though not said.

    Attributes:
        exact: nothing is hallucinated or missed, and the background is said rightly.
    """

    right: Counter[tuple[str, str]]
    hallucinated: Counter[tuple[str, str]]
    missed: Counter[tuple[str, str]]
    exact: bool


def judge_caption(text: str, scene: Scene) -> CaptionVerdict:
    """What a text gets right of the scene that it describes."""
    statement, there = read(text), scene.names()
    names = statement.names()
    hallucinated, missed = names - there, there - names
    return CaptionVerdict(
        names & there,
        hallucinated,
        missed,
        not hallucinated and not missed and statement.background == scene.background,
    )
