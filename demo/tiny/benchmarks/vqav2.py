"""VQAv2: a short answer, held against those of ten people."""

from typing import Any

from tiny.benchmarks.scenes import picture

#: Scene, question, its short answer.
QUESTIONS = (
    ("two_shapes", "What color is the circle?", "red"),
    ("two_shapes", "How many shapes are there?", "2"),
    ("triangle", "What shape is in the image?", "triangle"),
    ("cross", "Is the cross above the circle?", "yes"),
)
ANSWERS_A_QUESTION = 10

COLUMNS = {
    "question_id": "int64",
    "image": "image",
    "question": "string",
    "answer": "string",
    "multiple_choice_answer": "string",
    "answers": "answers",
}


def make_rows() -> list[dict[str, Any]]:
    """Four questions with the ten human answers that VQA's accuracy is made of."""
    return [
        {
            "question_id": 1000 + number,
            "image": picture(scene),
            "question": question,
            "answer": answer,
            "multiple_choice_answer": answer,
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": human + 1}
                for human in range(ANSWERS_A_QUESTION)
            ],
        }
        for number, (scene, question, answer) in enumerate(QUESTIONS)
    ]
