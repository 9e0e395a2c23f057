"""MMBench: questions with lettered choices, one a category."""

from typing import Any

from tiny.benchmarks.scenes import picture

#: Scene, question, letter of the right choice, choices, category.
QUESTIONS = (
    (
        "two_shapes",
        "What is on the left?",
        "A",
        ("circle", "square", "cross", "nothing"),
        "object_localization",
    ),
    (
        "triangle",
        "Which color is the shape?",
        "C",
        ("red", "blue", "green", "black"),
        "attribute_recognition",
    ),
    ("cross", "How many shapes are there?", "B", ("1", "2", "3", "4"), "spatial_relationship"),
    ("sum", "What is written?", "D", ("2+3", "3-2", "1+2", "3+2"), "ocr"),
)

COLUMNS = {
    "index": "int64",
    "image": "image",
    "question": "string",
    "hint": "string",
    "answer": "string",
    "A": "string",
    "B": "string",
    "C": "string",
    "D": "string",
    "category": "string",
    "L2-category": "string",
    "source": "string",
    "split": "string",
}


def make_rows() -> list[dict[str, Any]]:
    """Four questions with lettered choices, one a category."""
    return [
        {
            "index": number,
            "image": picture(scene),
            "question": question,
            "hint": "nan",
            "answer": answer,
            **dict(zip("ABCD", choices, strict=True)),
            "category": category,
            "L2-category": "coarse_perception",
            "source": "shapes",
            "split": "dev",
        }
        for number, (scene, question, answer, choices, category) in enumerate(QUESTIONS)
    ]
