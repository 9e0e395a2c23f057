"""The pictures that a benchmark's questions are about, where both are files."""

from collections.abc import Sequence
from pathlib import Path

from lib.benchmarks.coco_objects import image_id
from lib.benchmarks.questions import read_questions
from lib.benchmarks.registry import load_questions_benchmark
from lib.errors import UserError


def question_pictures(
    scorer: str, questions: Sequence[str], images: str | None
) -> dict[str, Path | bytes]:
    """The picture of each question by the question's id, as scorers may have it: its file, or its
    content where the questions' file holds it. Nothing where the benchmark's files are no longer
    what was asked: its answers can be shown without them.
    """
    try:
        asked = read_questions(load_questions_benchmark(scorer), questions, images)
    except (UserError, OSError):
        return {}
    return {
        name: picture
        for each in asked
        if (picture := each.image or each.embedded)
        for name in (each.id, image_id(each.id))
    }
