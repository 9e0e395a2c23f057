"""A text with marked places, broken into lines of a given width: where each piece stands and which
mark it belongs to.

Widths are those of the font's outlines, so that a text is broken at the same places in every
format. Nothing is drawn here.
"""

import re
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import NamedTuple

#: What is no letter: control characters, and the line ends that are not "\n".
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Mark(NamedTuple):
    """text[start:end] is marked; `style` says how."""

    start: int
    end: int
    style: str


class Piece(NamedTuple):
    """Part of a line: `x` and `width` in inches from the line's begin; `mark` is the number of its
    mark, None for plain text.
    """

    text: str
    x: float
    width: float
    mark: int | None


@cache
def width_of(text: str, size: float, weight: str) -> float:
    """The width in inches of a text in the figures' font; `size` in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        width, _, _ = text_to_path.get_text_width_height_descent(
            text, FontProperties(size=size, weight=weight), False
        )
    return float(width) / 72


def lay_out(
    text: str, marks: Sequence[Mark], width: float, measure: Callable[[str, str], float]
) -> list[list[Piece]]:
    """The lines of a text that is to be no wider than `width`; `measure(text, style)` gives widths,
    with the style "" for plain text.

    The text's own line ends stay, but for empty lines; words are never joined, and one that is
    wider than a line is broken. Where marks overlap, the later one counts.
    """
    owners: list[int | None] = [None] * len(text)
    for number, mark in enumerate(marks):
        owners[mark.start : mark.end] = [number] * (mark.end - mark.start)
    styles = [mark.style for mark in marks]
    blank = measure("a a", "") - measure("aa", "")
    lines = []
    readable = _CONTROL.sub(" ", text)
    for paragraph in re.finditer(r"[^\n]*\S[^\n]*", readable):
        line: list[Piece] = []
        for word in re.finditer(r"\S+", paragraph[0]):
            begin = paragraph.start() + word.start()
            runs = [
                (word[0][run[0] : run[-1] + 1], owner)
                for owner, places in groupby(
                    range(len(word[0])), key=lambda place: owners[begin + place]
                )
                if (run := list(places))
            ]
            for number, part in enumerate(
                _fitting(
                    runs,
                    width,
                    lambda run: measure(run[0], "" if run[1] is None else styles[run[1]]),
                )
            ):
                x = line[-1].x + line[-1].width + blank if line else 0.0
                if line and (number or x + sum(wide for *_, wide in part) > width):
                    lines.append(line)
                    line, x = [], 0.0
                for content, owner, wide in part:
                    line.append(Piece(content, x, wide, owner))
                    x += wide
        lines.append(line)
    return lines


Run = tuple[str, int | None]


def _fitting(
    runs: Sequence[Run], width: float, measure: Callable[[Run], float]
) -> Iterator[list[tuple[str, int | None, float]]]:
    """A word's runs with their widths: as a whole if a line can hold it, else in parts that do."""
    whole = [(*run, measure(run)) for run in runs]
    if sum(wide for *_, wide in whole) <= width:
        yield whole
        return
    part: list[tuple[str, int | None, float]] = []
    room = width
    for content, owner in runs:
        rest = content
        while rest:
            length = max(
                1,
                bisect_right(
                    range(1, len(rest) + 1), room, key=lambda count: measure((rest[:count], owner))
                ),
            )
            wide = measure((rest[:length], owner))
            if wide > room and part:
                yield part
                part, room = [], width
                continue
            part.append((rest[:length], owner, wide))
            room -= wide
            rest = rest[length:]
    yield part
