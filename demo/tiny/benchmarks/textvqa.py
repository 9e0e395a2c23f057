"""TextVQA: what is written in the image?"""

from typing import Any

from tiny.benchmarks.scenes import picture

ANSWERS_A_QUESTION = 10
#: Question, answer.
QUESTIONS = (
    ("What is the first number?", "3"),
    ("What is the second number?", "2"),
    ("What sign is it?", "+"),
    ("What is written?", "3+2"),
)

COLUMNS = {
    "question_id": "int64",
    "image": "image",
    "question": "string",
    "answers": "strings",
    "ocr_tokens": "strings",
}


def make_rows() -> list[dict[str, Any]]:
    """Four questions about what is written, with the tokens that a reader of texts found."""
    return [
        {
            "question_id": number,
            "image": picture("sum"),
            "question": question,
            "answers": [answer] * ANSWERS_A_QUESTION,
            "ocr_tokens": ["3", "+", "2"],
        }
        for number, (question, answer) in enumerate(QUESTIONS)
    ]
