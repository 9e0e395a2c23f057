"""MM-Vet: open questions that a judge marks, by the abilities that they take."""

from typing import Any

from tiny.benchmarks.scenes import picture

#: Scene, question, answer, abilities.
QUESTIONS = (
    ("two_shapes", "Which shapes are there?", "circle<AND>square", "rec"),
    ("sum", "What is the result?", "5", "ocr,math"),
    ("cross", "Which shape is below the other?", "circle", "rec,spat"),
    ("triangle", "What road sign has this shape?", "yield<OR>warning", "rec,know"),
)

COLUMNS = {
    "question_id": "string",
    "image": "image",
    "question": "string",
    "answer": "string",
    "capability": "string",
}


def make_rows() -> list[dict[str, Any]]:
    """Four open questions with the abilities that they take."""
    return [
        {
            "question_id": f"v1_{number}",
            "image": picture(scene),
            "question": question,
            "answer": answer,
            "capability": capability,
        }
        for number, (scene, question, answer, capability) in enumerate(QUESTIONS)
    ]
