"""Scenes as pictures: arrays of 48 x 48 pixels, uint8, red, green and blue.

Edges are hard: a pixel has the colour of a thing or of the background and nothing between, which is
why the oracle can be exact.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from world.scenes import CELLS, KINDS, Scene

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIDE = 48  # of a picture, in pixels
CELL = SIDE // 2  # of a cell
SIZES = range(15, 20)  # of a thing, in pixels
MARGIN = 1  # between a thing and the border of its cell, in pixels
#: Red, green and blue of every word for a colour.
PALETTE = {
    "red": (214, 40, 40),
    "green": (46, 139, 60),
    "blue": (38, 84, 204),
    "yellow": (240, 200, 20),
    "purple": (130, 50, 160),
    "white": (255, 255, 255),
    "grey": (190, 190, 190),
    "black": (20, 20, 20),
}


@functools.cache
def shape(kind: str, size: int) -> Mask:
    """The pixels of a shape, as a mask of size x size; not to be changed.

    Args:
        kind: one of `KINDS`.
        size: in pixels.
    """
    across = np.arange(size) + 0.5  # the middle of each pixel
    x, y = across[None, :] - size / 2, across[:, None] - size / 2
    if kind == "circle":
        mask = x**2 + y**2 <= (size / 2) ** 2
    elif kind == "square":
        mask = np.ones((size, size), dtype=bool)
    elif kind == "triangle":
        mask = np.abs(x) <= across[:, None] / 2
    elif kind == "cross":
        mask = np.minimum(np.abs(x), np.abs(y)) <= size / 6
    else:
        raise ValueError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    mask.setflags(write=False)
    return mask


def draw(scene: Scene, random: np.random.Generator) -> Picture:
    """A scene as a picture (48, 48, 3); size and place of each thing in its cell are drawn at
    random.
    """
    picture = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    picture[:] = PALETTE[scene.background]
    for thing in scene.things:
        size = int(random.integers(SIZES.start, SIZES.stop))
        free = CELL - size - 2 * MARGIN
        row, column = divmod(thing.cell, 2)
        top = row * CELL + MARGIN + int(random.integers(free + 1))
        left = column * CELL + MARGIN + int(random.integers(free + 1))
        picture[top : top + size, left : left + size][shape(thing.kind, size)] = PALETTE[
            thing.colour
        ]
    return picture


def cells_of(pictures: Picture) -> Picture:
    """Pictures (n, 48, 48, 3) cut into their cells in reading order: (n, 4, 24, 24, 3)."""
    count = len(pictures)
    return (
        pictures.reshape(count, 2, CELL, 2, CELL, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(count, len(CELLS), CELL, CELL, 3)
    )
