"""Scenes: one to three coloured shapes in a grid of two by two cells, on a plain background.

A scene says what is there, not how it is drawn: size and place inside a cell are the picture's (see
`pictures`). Every combination of background and things has a place on one side of a line drawn by
its hash: nine in ten are for training, one in ten is held out, so that what is measured is measured
on combinations that no training has seen.
"""

from collections import Counter
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

COLOURS = ("red", "green", "blue", "yellow", "purple")
KINDS = ("circle", "square", "triangle", "cross")
BACKGROUNDS = ("white", "grey", "black")
#: The cells in reading order, by the words for them.
CELLS = ("top left", "top right", "bottom left", "bottom right")
MOST_THINGS = 3
HELD_OUT = 10  # one combination in so many


@dataclass(frozen=True, order=True)
class Thing:
    """One shape: its cell as an index of `CELLS`, its colour and its kind."""

    cell: int
    colour: str
    kind: str

    @property
    def name(self) -> tuple[str, str]:
        """Its colour and kind, without its place."""
        return self.colour, self.kind


@dataclass(frozen=True)
class Scene:
    """A background and the things on it, in reading order, at most one a cell."""

    background: str
    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        cells = [thing.cell for thing in self.things]
        if cells != sorted(set(cells)):
            raise ValueError(
                "the things of a scene stand in reading order, one a cell, not in the cells"
                f" {cells}"
            )

    def names(self) -> Counter[tuple[str, str]]:
        """How often each colour and kind is there."""
        return Counter(thing.name for thing in self.things)


def held_out(scene: Scene) -> bool:
    """Whether this combination of background, colours and kinds is kept from all training, wherever
    the things stand.
    """
    text = " ".join(
        [
            scene.background,
            *(f"{colour}-{kind}" for colour, kind in sorted(scene.names().elements())),
        ]
    )
    return sha256(text.encode()).digest()[0] % HELD_OUT == 0


def random_scene(
    random: np.random.Generator, *, unseen: bool = False, twins: float = 0.25, fewest: int = 1
) -> Scene:
    """A scene drawn at random.

    Args:
        random: what is drawn from.
        unseen: whether the scene is one of those kept from training, or one of the others.
        twins: how often a thing after the first repeats the one before it, so that there is
            something to count.
        fewest: things; there are at most `MOST_THINGS`.
    """
    while True:
        count = int(random.integers(fewest, MOST_THINGS + 1))
        names: list[tuple[str, str]] = []
        for _ in range(count):
            if names and random.random() < twins:
                names.append(names[-1])
            else:
                names.append(
                    (COLOURS[random.integers(len(COLOURS))], KINDS[random.integers(len(KINDS))])
                )
        random.shuffle(names)
        cells = sorted(int(cell) for cell in random.choice(len(CELLS), size=count, replace=False))
        things = tuple(Thing(cell, *name) for cell, name in zip(cells, names, strict=True))
        scene = Scene(BACKGROUNDS[random.integers(len(BACKGROUNDS))], things)
        if held_out(scene) == unseen:
            return scene


def altered(scene: Scene, random: np.random.Generator) -> Scene:
    """A scene that is like another but for one thing: a colour, a kind, a thing less or more, a
    place, or the background.

    Whether it is held out is not asked: that would tell the scene's own side of the line.
    """
    while True:
        things = list(scene.things)
        background = scene.background
        place = int(random.integers(len(things)))
        thing = things[place]
        free = sorted(set(range(len(CELLS))) - {each.cell for each in things})
        change = ("colour", "kind", "less", "more", "place", "background")[int(random.integers(6))]
        if change == "colour":
            things[place] = Thing(
                thing.cell, COLOURS[int(random.integers(len(COLOURS)))], thing.kind
            )
        elif change == "kind":
            things[place] = Thing(thing.cell, thing.colour, KINDS[int(random.integers(len(KINDS)))])
        elif change == "less" and len(things) > 1:
            del things[place]
        elif change == "more" and len(things) < MOST_THINGS:
            colour, kind = (
                COLOURS[int(random.integers(len(COLOURS)))],
                KINDS[int(random.integers(len(KINDS)))],
            )
            things.append(Thing(free[int(random.integers(len(free)))], colour, kind))
        elif change == "place":
            things[place] = Thing(free[int(random.integers(len(free)))], thing.colour, thing.kind)
        elif change == "background":
            background = BACKGROUNDS[int(random.integers(len(BACKGROUNDS)))]
        other = Scene(background, tuple(sorted(things)))
        if other != scene:
            return other
