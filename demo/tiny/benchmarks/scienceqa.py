"""ScienceQA: questions with lettered choices and, at times, a hint."""

from typing import Any

from tiny.benchmarks.scenes import picture

KINDS = ["circle", "square", "triangle"]
#: Scene, question, choices, number of the right one, hint.
QUESTIONS = (
    ("two_shapes", "Which shape is red?", KINDS, 0, ""),
    (
        "triangle",
        "Which shape has three sides?",
        KINDS,
        2,
        "A polygon has as many sides as corners.",
    ),
    ("cross", "Which of these colors is in the picture?", ["red", "yellow"], 1, ""),
    ("sum", "What is the sum?", ["4", "5", "6"], 1, ""),
)

COLUMNS = {
    "image": "image",
    "question": "string",
    "choices": "strings",
    "answer": "int64",
    "hint": "string",
}


def make_rows() -> list[dict[str, Any]]:
    """Four questions with lettered choices; `answer` is the number of the right one."""
    return [
        {
            "image": picture(scene),
            "question": question,
            "choices": choices,
            "answer": answer,
            "hint": hint,
        }
        for scene, question, choices, answer, hint in QUESTIONS
    ]
