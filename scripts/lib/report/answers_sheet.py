"""The sheet of answers: pictures with two models' answers to the same question side by side, their
words marked. Here it is laid out and drawn; what is marked comes from scripts/answers_figure.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib.report.figures import FAINT, GREEN, INK, QUIET, RED, demo_mark
from lib.report.marked_text import Mark, Piece, lay_out, width_of
from lib.report.sheet import MARGIN, Sheet

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE, COLUMN = 1.45, 3.35  # inches: a picture's longer side; the width of an answer
GAP = 0.24  # inches
SIZE, SMALL = 8.0, 7.0  # points
LEADING = 0.15  # inches from line to line
#: An answer of more lines is cut, and says what of it is not shown.
LINES = 36
QUESTION_LINES = 3
HEAD = 1.02  # inches above the first picture, without the lines of the scores
WIDTH = MARGIN + PICTURE + GAP + COLUMN + GAP + COLUMN + MARGIN
COLUMNS = (MARGIN + PICTURE + GAP, MARGIN + PICTURE + GAP + COLUMN + GAP)
#: Styles of marks.
HALLUCINATED, THERE = "hallucinated", "there"
#: How a mark's line is drawn.
UNDERLINES: dict[str, dict[str, Any]] = {
    HALLUCINATED: {"color": RED, "linewidth": 1.3},
    THERE: {"color": GREEN, "linewidth": 1.1, "linestyle": (0, (1, 1.2))},
}
LEGEND = "mentions that the score counts: hallucinated (not in the picture), there"


@dataclass(frozen=True)
class SheetAnswer:
    """A model's answer: its text, the marked places, and what is said below it."""

    text: str
    marks: Sequence[Mark]
    remarks: Sequence[str]


@dataclass(frozen=True)
class SheetQuestion:
    """A question: its text, its picture, what that shows, and the answers of both models."""

    text: str
    image: "Image"
    shown: Sequence[str]
    answers: Sequence[SheetAnswer]


@dataclass(frozen=True)
class SheetHead:
    """What stands above the questions; `columns`: of each model its name and its scores."""

    title: str
    caption: str
    label: str
    columns: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class AnswerBlock:
    """An answer and the note below it, broken into lines."""

    marks: Sequence[Mark]
    lines: Sequence[Sequence[Piece]]
    note: Sequence[str]

    @property
    def text_height(self) -> float:
        """Inches that the answer takes, without its note."""
        return LEADING * max(1, len(self.lines))


@dataclass(frozen=True)
class QuestionBlock:
    """What is drawn of one question, broken into lines, with the height that it takes in inches.
    `below`: stands below the picture.
    """

    image: "Image"
    below: Sequence[str]
    question: Sequence[str]
    answers: Sequence[AnswerBlock]
    height: float


def measure(text: str, style: str) -> float:
    """The width of an answer's text in inches."""
    return width_of(text, SIZE, "bold" if style == HALLUCINATED else "normal")


def measure_small(text: str, style: str) -> float:
    """The width of a small text in inches."""
    return width_of(text, SMALL, "normal")


def wrap(text: str, width: float) -> list[str]:
    """A small text in lines of at most this width, in inches."""
    lines = lay_out(text, (), width, measure_small)
    return [" ".join(piece.text for piece in line) for line in lines]


def lay_out_answer(answer: SheetAnswer) -> AnswerBlock:
    """An answer in lines; a long one is cut, which its note says."""
    lines = lay_out(answer.text, answer.marks, COLUMN, measure)
    remarks = list(answer.remarks)
    if len(lines) > LINES:
        remarks.append(f"the last {len(lines) - LINES} lines are not shown")
    return AnswerBlock(answer.marks, lines[:LINES], wrap("; ".join(remarks), COLUMN))


def lay_out_question(question: SheetQuestion) -> QuestionBlock:
    """What is drawn of one question."""
    answers = [lay_out_answer(answer) for answer in question.answers]
    shown = ", ".join(sorted(question.shown)) or "nothing that the benchmark knows"
    below = wrap(f"in the picture: {shown}", PICTURE)
    lines = wrap(question.text, 2 * COLUMN + GAP)
    if len(lines) > QUESTION_LINES:
        lines = [*lines[: QUESTION_LINES - 1], lines[QUESTION_LINES - 1] + " …"]
    _, picture_height = picture_size(question.image)
    left = picture_height + 0.08 + LEADING * len(below)
    longest = max(one.text_height + LEADING * len(one.note) + 0.08 for one in answers)
    right = LEADING * len(lines) + 0.1 + longest
    return QuestionBlock(question.image, below, lines, answers, max(left, right) + 0.1)


def picture_size(image: "Image") -> tuple[float, float]:
    """Width and height in inches of a picture with its own proportions, as large as there is room
    for.
    """
    scale = PICTURE / max(image.size)
    return image.width * scale, image.height * scale


def head_height(head: SheetHead) -> float:
    """The height of what stands above the first picture, in inches."""
    lines = max(len(wrap(scores, COLUMN)) for _, scores in head.columns)
    return HEAD + 0.05 + LEADING * lines


def height_of(blocks: Sequence[QuestionBlock], head: SheetHead) -> float:
    """The height of the sheet in inches."""
    return head_height(head) + max(0.4, sum(block.height + 0.1 for block in blocks)) + 0.05


def draw(sheet: Sheet, blocks: Sequence[QuestionBlock], head: SheetHead) -> None:
    """A line a question: the picture, then the answers beside each other."""
    draw_head(sheet, head)
    top = head_height(head)
    if not blocks:
        words = "No question has scored answers of both models."
        sheet.text(MARGIN, top, words, fontsize=9, color=QUIET)
    for block in blocks:
        sheet.line(MARGIN, top, WIDTH - 2 * MARGIN, color=FAINT, linewidth=0.8)
        draw_question(sheet, block, top + 0.1)
        top += block.height + 0.1


def draw_head(sheet: Sheet, head: SheetHead) -> None:
    """The title, how words are marked, and above each column whose answers it has."""
    title = f"{head.title}: two models' answers"
    right, mark = WIDTH - MARGIN, demo_mark(head.label)
    sheet.text(MARGIN, 0.13, title, fontsize=12, fontweight="bold")
    sheet.text(right, 0.13, mark, fontsize=8, color=QUIET, ha="right")
    sheet.text(MARGIN, 0.38, head.caption, fontsize=8, color=QUIET)
    marks = [
        Mark(LEGEND.index(style), LEGEND.index(style) + len(style), style)
        for style in (HALLUCINATED, THERE)
    ]
    for line in lay_out(LEGEND, marks, WIDTH, measure):
        draw_pieces(sheet, MARGIN, 0.68, line, marks)
    for x, (name, scores) in zip(COLUMNS, head.columns, strict=True):
        sheet.text(x, 0.83, name, fontsize=9, fontweight="bold")
        draw_lines(sheet, x, 1.0, wrap(scores, COLUMN))


def draw_question(sheet: Sheet, block: QuestionBlock, y: float) -> None:
    """A question and its answers."""
    width, height = picture_size(block.image)
    middle = MARGIN + (PICTURE - width) / 2
    sheet.picture(block.image, (middle, y, width, height), aspect="auto")
    draw_lines(sheet, MARGIN, y + height + 0.08, block.below)
    draw_lines(sheet, COLUMNS[0], y, block.question, fontstyle="italic")
    y += LEADING * len(block.question) + 0.1
    for x, answer in zip(COLUMNS, block.answers, strict=True):
        draw_answer(sheet, x, y, answer)


def draw_answer(sheet: Sheet, x: float, y: float, answer: AnswerBlock) -> None:
    """An answer with its marks, and the note below it."""
    for number, line in enumerate(answer.lines):
        draw_pieces(sheet, x, y + 0.1 + number * LEADING, line, answer.marks)
    if not answer.lines:
        style = {"fontsize": SIZE, "color": QUIET, "fontstyle": "italic"}
        sheet.text(x, y + 0.1, "(an empty answer)", va="baseline", **style)
    draw_lines(sheet, x, y + answer.text_height + 0.08, answer.note)


def draw_lines(sheet: Sheet, x: float, y: float, lines: Sequence[str], **style: Any) -> None:
    """Small lines below each other."""
    for number, line in enumerate(lines):
        sheet.text(x, y + number * LEADING, line, fontsize=SMALL, color=QUIET, **style)


def draw_pieces(
    sheet: Sheet, x: float, y: float, pieces: Sequence[Piece], marks: Sequence[Mark]
) -> None:
    """A line of an answer; `y` is its base line. What one mark covers has one line below it, blanks
    included.
    """
    before: Piece | None = None
    for piece in pieces:
        style = "" if piece.mark is None else marks[piece.mark].style
        is_wrong = style == HALLUCINATED
        letters = {"color": RED, "fontweight": "bold"} if is_wrong else {"color": INK}
        sheet.text(x + piece.x, y, piece.text, va="baseline", fontsize=SIZE, **letters)
        if style:
            is_continued = before is not None and before.mark == piece.mark
            begin = before.x + before.width if before and is_continued else piece.x
            sheet.line(x + begin, y + 0.034, piece.x + piece.width - begin, **UNDERLINES[style])
        before = piece
