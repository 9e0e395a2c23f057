"""Stands in for the scoring of a task of lmms-eval that would ask a judge which it is not given:
the questions are answered, and nothing is scored.

lmms-eval loads it by its path, beside the task's file; without it the task would call a judge and
take each failed call for a zero.
"""

from collections.abc import Sequence
from typing import Any


def process_results(doc: Any, results: Any) -> dict[str, dict[str, Any]]:
    """No score: only that there is an answer, and what a scorer of kept answers has to know of the
    question.
    """
    return {
        "answered": (
            {name: doc[name] for name in ("question_id", "capability") if name in doc}
            | ({"bare_question": doc["question"]} if "question" in doc else {})
        )
    }


def count(answers: Sequence[Any]) -> int:
    """How many there are."""
    return len(answers)
