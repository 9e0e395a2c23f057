"""Rule answers_figure: pictures of a benchmark with the base model's and an experiment's answer to
the same question, side by side.

Every mention that the benchmark's scorer counts is marked: a hallucinated one bold, red and
underlined, one of an object that is there with dots. The questions are drawn with the run's seed
from those whose answers of both models are scored; what the answers say has no part in it, and a
question keeps its place in the draw whatever other questions there are.
"""

import io
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.benchmarks.base import Benchmark
from lib.benchmarks.coco_objects import image_id
from lib.benchmarks.mentions import Mentions, MentionsBenchmark
from lib.benchmarks.questions import PublishedQuestion, read_questions
from lib.benchmarks.registry import load_benchmark, load_questions_benchmark
from lib.data.prompts import seed_of
from lib.errors import UserError
from lib.files import read_jsonl
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report.figures import (
    FAINT,
    GREEN,
    INK,
    PIXELS_AN_INCH,
    QUIET,
    RED,
    demo_mark,
    new_figure,
    thumbnail,
    write_figure,
)
from lib.report.marked_text import Mark, Piece, lay_out, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

VERSION = 1
PICTURE, COLUMN = 1.45, 3.35  # inches: a picture's longer side; the width of an answer
GAP, MARGIN = 0.24, 0.15  # inches
SIZE, SMALL = 8.0, 7.0  # points
LEADING = 0.15  # inches from line to line
#: An answer of more lines is cut, and says what of it is not shown.
LINES = 36
HEAD = 1.22  # inches above the first picture
WIDTH = MARGIN + PICTURE + GAP + COLUMN + GAP + COLUMN + MARGIN
COLUMNS = (MARGIN + PICTURE + GAP, MARGIN + PICTURE + GAP + COLUMN + GAP)
#: Styles of marks.
HALLUCINATED, THERE = "hallucinated", "there"

Row = dict[str, Any]


def drawn(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """Up to `count` of the questions, in the benchmark's order."""
    chosen = set(sorted(ids, key=lambda one: (seed_of(seed, "answers", one), one))[:count])
    return [one for one in ids if one in chosen]


def read_mentions(
    scorer: MentionsBenchmark[Any],
    scored: Path,
    scores: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Row]:
    """Each scored answer's text and mentions, by its image's id.

    `scored`, `scores`: what rule score_answers wrote. Errors: UserError where the mentions are not
    those that were counted.
    """
    answers = scorer.read_answers(scored)
    reference = scorer.read_reference(*map(Path, settings["reference"]))
    found = scorer.mentions(answers, reference)
    now = [
        sum(len(one.each) for one in found.values()),
        sum(one.hallucinated for one in found.values()),
    ]
    counted = [scores["doubts"].get(name) for name in ("mentions", "hallucinated_mentions")]
    if now != counted:
        raise UserError(
            f"{scored.parent / 'scores.json'}: it counts {counted[0]} mentions, {counted[1]} of"
            f" them hallucinated; here there are {now[0]} and {now[1]}. Other language tools made"
            f" it (it has: {scores['computed_by']['language_tools']}). Delete it and run again: the"
            " answers are scored anew, no model runs."
        )
    texts = answers.by_id()
    return {name: {"response": texts[name].text, "mentions": one} for name, one in found.items()}


def image_of(question: PublishedQuestion, sha256_asked: set[str], benchmark: str) -> "Image":
    """The picture of a question. Errors: UserError if it is not the one that the models were asked
    about.
    """
    content = question.embedded if question.image is None else question.image.read_bytes()
    content = content or b""
    if {sha256(content).hexdigest()} != sha256_asked:
        raise UserError(
            f"{question.image or f'the picture of question {question.id}'}: benchmark {benchmark}"
            " has another picture here than both models were asked about. Put the first one back,"
            " or delete the benchmark's answers.jsonl and run again."
        )
    return thumbnail(io.BytesIO(content), PICTURE)


def marks_of(mentions: Mentions) -> list[Mark]:
    """The places of mentions, hallucinated ones last, so that none of these is covered."""
    placed = [(each.there, each.place) for each in mentions.each if each.place]
    return [
        Mark(*place, THERE if there else HALLUCINATED)
        for there, place in sorted(placed, key=lambda one: (not one[0], one[1]))
    ]


def measure(text: str, style: str) -> float:
    """The width of an answer's text in inches."""
    return width_of(text, SIZE, "bold" if style == HALLUCINATED else "normal")


def note_of(mentions: Mentions, hidden_lines: int) -> str:
    """What stands below an answer: how many of its mentions are hallucinated, and what of it is not
    to be seen.
    """
    count, wrong = len(mentions.each), mentions.hallucinated
    told = [
        (
            f"{wrong} of {count} mentions hallucinated"
            if count
            else "mentions no object that the benchmark knows"
        )
    ]
    if unplaced := sum(each.place is None for each in mentions.each):
        told.append(f"{unplaced} named by the judge in other words")
    if hidden_lines:
        told.append(f"the last {hidden_lines} lines are not shown")
    return "; ".join(told)


def score_line(scorer: Benchmark[Any], scores: Mapping[str, Any]) -> str:
    """A model's scores over all questions: those that the benchmark is known for."""
    told = [
        f"{name} {scores['scores'][name]:.1f} %"
        for name in list(scorer.names)[:2]
        if name in scores["scores"]
    ]
    return ", ".join(told) or "no scores"


class Sheet:
    """A figure to write on, in inches from its upper left corner."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        self.width, self.height = figure.get_figwidth(), figure.get_figheight()

    def text(self, x: float, y: float, words: str, **more: Any) -> None:
        """Words whose upper left corner (or what `va` and `ha` say) is there."""
        self.figure.text(
            x / self.width, 1 - y / self.height, words, va=more.pop("va", "top"), **more
        )

    def line(self, x: float, y: float, length: float, **more: Any) -> None:
        """A level line."""
        from matplotlib.lines import Line2D

        ends = [x / self.width, (x + length) / self.width], [1 - y / self.height] * 2
        self.figure.add_artist(Line2D(*ends, transform=self.figure.transFigure, **more))

    def pieces(self, x: float, y: float, pieces: Sequence[Piece], marks: Sequence[Mark]) -> None:
        """A line of an answer; `y` is its base line. What one mark covers has one line below it,
        blanks included.
        """
        for number, piece in enumerate(pieces):
            style = "" if piece.mark is None else marks[piece.mark].style
            wrong = style == HALLUCINATED
            letters = {"color": RED, "fontweight": "bold"} if wrong else {"color": INK}
            self.text(x + piece.x, y, piece.text, va="baseline", fontsize=SIZE, **letters)
            if style:
                before = pieces[number - 1] if number else piece
                begin = (
                    before.x + before.width
                    if before.mark == piece.mark and before is not piece
                    else piece.x
                )
                drawn_as = (
                    {"color": RED, "linewidth": 1.3}
                    if wrong
                    else {"color": GREEN, "linewidth": 1.1, "linestyle": (0, (1, 1.2))}
                )
                self.line(x + begin, y + 0.034, piece.x + piece.width - begin, **drawn_as)

    def picture(self, x: float, y: float, image: "Image") -> float:
        """A picture with its own proportions, as large as there is room for, in the middle; gives
        its height.
        """
        scale = PICTURE / max(image.size)
        width, height = image.width * scale, image.height * scale
        left = x + (PICTURE - width) / 2
        axes = self.figure.add_axes(
            (
                left / self.width,
                1 - (y + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )
        small = max(image.size) < round(PICTURE * PIXELS_AN_INCH)
        axes.imshow(image, interpolation="nearest" if small else "antialiased", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set(visible=True, color=FAINT, linewidth=0.8)
        return height


def wrapped(text: str, width: float) -> list[str]:
    """A small text in lines of at most this width, in inches."""
    lines = lay_out(text, (), width, lambda words, style: width_of(words, SMALL, "normal"))
    return [" ".join(piece.text for piece in line) for line in lines]


def block_of(row: Mapping[str, Any], image: "Image") -> dict[str, Any]:
    """What is drawn of one question, broken into lines, with the height that it takes in inches."""
    shown = ", ".join(sorted(row["shown"])) or "nothing that the benchmark knows"
    answers: list[dict[str, Any]] = []
    for answer in row["answers"]:
        marks = marks_of(answer["mentions"])
        lines = lay_out(answer["response"], marks, COLUMN, measure)
        hidden = max(0, len(lines) - LINES)
        note = wrapped(note_of(answer["mentions"], hidden), COLUMN)
        answers.append({"marks": marks, "lines": lines[: len(lines) - hidden], "note": note})
    below = wrapped(f"in the picture: {shown}", PICTURE)
    question = wrapped(row["question"], 2 * COLUMN + GAP)
    if len(question) > 3:
        question = [*question[:2], question[2] + " …"]
    left = PICTURE * image.height / max(image.size) + 0.08 + LEADING * len(below)
    right = (
        LEADING * len(question)
        + 0.1
        + max(LEADING * (max(1, len(one["lines"])) + len(one["note"])) + 0.08 for one in answers)
    )
    return {
        "image": image,
        "below": below,
        "question": question,
        "answers": answers,
        "height": max(left, right) + 0.1,
    }


def draw(figure: "Figure", blocks: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> None:
    """A line a question: the picture, then the answers beside each other."""
    sheet = Sheet(figure)
    sheet.text(
        MARGIN, 0.13, f"{told['title']}: two models' answers", fontsize=12, fontweight="bold"
    )
    sheet.text(WIDTH - MARGIN, 0.13, demo_mark(told["label"]), fontsize=8, color=QUIET, ha="right")
    sheet.text(MARGIN, 0.38, told["caption"], fontsize=8, color=QUIET)
    legend = "mentions that the score counts: hallucinated (not in the picture), there"
    marks = [
        Mark(legend.index(name), legend.index(name) + len(name), name)
        for name in (HALLUCINATED, THERE)
    ]
    for line in lay_out(legend, marks, WIDTH, measure):
        sheet.pieces(MARGIN, 0.68, line, marks)
    for x, (name, scores) in zip(COLUMNS, told["columns"], strict=True):
        sheet.text(x, 0.83, name, fontsize=9, fontweight="bold")
        sheet.text(x, 1.0, scores, fontsize=SMALL, color=QUIET)
    if not blocks:
        sheet.text(
            MARGIN, HEAD, "No question has scored answers of both models.", fontsize=9, color=QUIET
        )
    top = HEAD
    for block in blocks:
        sheet.line(MARGIN, top, WIDTH - 2 * MARGIN, color=FAINT, linewidth=0.8)
        y = top + 0.1
        height = sheet.picture(MARGIN, y, block["image"])
        for number, line in enumerate(block["below"]):
            sheet.text(
                MARGIN, y + height + 0.08 + number * LEADING, line, fontsize=SMALL, color=QUIET
            )
        for number, line in enumerate(block["question"]):
            sheet.text(
                COLUMNS[0],
                y + number * LEADING,
                line,
                fontsize=SMALL,
                color=QUIET,
                fontstyle="italic",
            )
        y += LEADING * len(block["question"]) + 0.1
        for x, answer in zip(COLUMNS, block["answers"], strict=True):
            for number, line in enumerate(answer["lines"]):
                sheet.pieces(x, y + 0.1 + number * LEADING, line, answer["marks"])
            if not answer["lines"]:
                sheet.text(
                    x,
                    y + 0.1,
                    "(an empty answer)",
                    fontsize=SIZE,
                    color=QUIET,
                    va="baseline",
                    fontstyle="italic",
                )
            under = y + LEADING * max(1, len(answer["lines"])) + 0.08
            for number, line in enumerate(answer["note"]):
                sheet.text(x, under + number * LEADING, line, fontsize=SMALL, color=QUIET)
        top += block["height"] + 0.1


def rows_of(
    ids: Sequence[str],
    asked: Sequence[Mapping[str, Row]],
    answers: Sequence[Mapping[str, Row]],
    models: Sequence[str],
) -> list[dict[str, Any]]:
    """What is drawn: of each question its text, its picture's digest, what that shows, and both
    answers with their mentions.
    """
    return [
        {
            "id": one,
            "question": asked[0][one]["question"],
            "image_sha256": asked[0][one]["image_sha256"],
            "shown": sorted(answers[0][one]["mentions"].shown),
            "answers": [
                {"model": model, **given[one]} for model, given in zip(models, answers, strict=True)
            ],
        }
        for one in ids
    ]


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for the sidecar."""
    answers = [
        {**answer, "mentions": [vars(each) for each in answer["mentions"].each]}
        for answer in row["answers"]
    ]
    return {**row, "answers": answers}


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    scorer = load_benchmark(settings["scorer"], settings["language"])
    assert isinstance(scorer, MentionsBenchmark)
    models = ["base", settings["experiment"]]
    scores = [json.loads(Path(path).read_text(encoding="utf-8")) for path in snakemake.input.scores]
    answers = [
        read_mentions(scorer, Path(path), about, settings)
        for path, about in zip(snakemake.input.scored, scores, strict=True)
    ]
    asked = [
        {image_id(row["id"]): row for row in read_jsonl(Path(path))}
        for path in snakemake.input.answers
    ]
    both = [one for one in asked[0] if all(one in given for given in (*answers, asked[1]))]
    rows = rows_of(drawn(both, settings["count"], job.seed), asked, answers, models)
    questions = {
        image_id(each.id): each
        for each in read_questions(
            load_questions_benchmark(scorer.name), settings["questions"], settings["images"]
        )
    }
    blocks = []
    for row in rows:
        digests = {given[row["id"]]["image_sha256"] for given in asked}
        blocks.append(block_of(row, image_of(questions[row["id"]], digests, settings["benchmark"])))
    left_out = len(asked[0]) - len(both)
    caption = (
        f"{len(rows)} of {len(both)} questions, drawn by the seed ({job.seed}) and not by their"
        " answers"
    )
    caption += f"; not among them {left_out} without scored answers of both" if left_out else ""
    told = {
        "title": scorer.title,
        "label": settings["label"],
        "caption": caption,
        "columns": [
            (name, f"all its answers: {score_line(scorer, about)}")
            for name, about in zip(settings["names"], scores, strict=True)
        ],
    }
    about = {
        "rows": [as_json(row) for row in rows],
        "caption": caption,
        "drawn_from": len(both),
        "seed": job.seed,
        "benchmark": settings["benchmark"],
        "models": [
            {
                "model": model,
                "name": name,
                **{
                    key: each[key]
                    for key in ("model_identity", "scores", "computed_by", "environment")
                },
            }
            for model, name, each in zip(models, settings["names"], scores, strict=True)
        ],
        "reference": scores[0]["reference"],
    }
    with new_figure(
        WIDTH, HEAD + max(0.4, sum(block["height"] + 0.1 for block in blocks)) + 0.05
    ) as figure:
        draw(figure, blocks, told)
        inputs = [
            *snakemake.input.scores,
            *snakemake.input.scored,
            *snakemake.input.answers,
            *settings["questions"],
        ]
        write_figure(
            figure,
            f"{scorer.title}: two models' answers",
            snakemake.output,
            inputs,
            about,
            "pillow",
        )
    job.record.items = job.record.computed = len(rows)
    job.write_record()


if __name__ == "__main__":
    run_script(main)
