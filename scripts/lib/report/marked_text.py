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


#: Gives the width in inches of a text in a style, "" for plain text.
Measure = Callable[[str, str], float]


class Run(NamedTuple):
    """Letters of a word that belong to the same mark."""

    text: str
    mark: int | None


def lay_out(text: str, marks: Sequence[Mark], width: float, measure: Measure) -> list[list[Piece]]:
    """The lines of a text that is to be no wider than `width`.

    The text's own line ends stay, but for empty lines; words are never joined, and one that is
    wider than a line is broken. Where marks overlap, the later one counts.
    """
    layout = _Layout(text, marks, width, measure)
    readable = _CONTROL.sub(" ", text)
    for paragraph in re.finditer(r"[^\n]*\S[^\n]*", readable):
        layout.begin_line()
        for word in re.finditer(r"\S+", paragraph[0]):
            layout.add_word(word[0], paragraph.start() + word.start())
    return layout.lines


class _Layout:
    """Lines that words are put into, one after the other."""

    def __init__(self, text: str, marks: Sequence[Mark], width: float, measure: Measure) -> None:
        self.width = width
        self.measure = measure
        self.styles = [mark.style for mark in marks]
        self.blank = measure("a a", "") - measure("aa", "")
        self.lines: list[list[Piece]] = []
        # The mark of each letter.
        self.owners: list[int | None] = [None] * len(text)
        for number, mark in enumerate(marks):
            self.owners[mark.start : mark.end] = [number] * (mark.end - mark.start)

    def begin_line(self) -> None:
        """What follows stands on a new line."""
        self.lines.append([])

    def add_word(self, word: str, start: int) -> None:
        """Puts a word behind what is there, on a new line where it does not fit; `start`: its place
        in the text.
        """
        runs = [
            Run("".join(letter for letter, _ in letters), mark)
            for mark, letters in groupby(
                zip(word, self.owners[start : start + len(word)], strict=True),
                key=lambda letter: letter[1],
            )
        ]
        for number, part in enumerate(self._broken(runs)):
            x = self._next_place()
            is_too_wide = x + sum(map(self._width_of, part)) > self.width
            if self.lines[-1] and (number or is_too_wide):
                self.begin_line()
                x = 0.0
            for run in part:
                piece = Piece(run.text, x, self._width_of(run), run.mark)
                self.lines[-1].append(piece)
                x += piece.width

    def _next_place(self) -> float:
        """Where the next word of the line begins."""
        line = self.lines[-1]
        return line[-1].x + line[-1].width + self.blank if line else 0.0

    def _width_of(self, run: Run) -> float:
        return self.measure(run.text, "" if run.mark is None else self.styles[run.mark])

    def _broken(self, runs: Sequence[Run]) -> Iterator[list[Run]]:
        """A word's runs: as a whole if a line can hold it, else in parts that it can."""
        if sum(map(self._width_of, runs)) <= self.width:
            yield list(runs)
            return
        part: list[Run] = []
        room = self.width
        for run in runs:
            rest = run.text
            while rest:
                head = run._replace(text=rest[: self._fitting_letters(rest, run.mark, room)])
                if self._width_of(head) > room and part:
                    yield part
                    part, room = [], self.width
                    continue
                part.append(head)
                room -= self._width_of(head)
                rest = rest[len(head.text) :]
        yield part

    def _fitting_letters(self, text: str, mark: int | None, room: float) -> int:
        """How many letters of a text fit into so many inches; at least one."""
        counts = range(1, len(text) + 1)
        return max(
            1, bisect_right(counts, room, key=lambda count: self._width_of(Run(text[:count], mark)))
        )
