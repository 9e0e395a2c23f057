"""Object HalBench's scorer. Its arithmetic lands next; names and signatures stand."""

from pathlib import Path
from typing import Any

from lib.scorers.base import Answers, Score, Scorer

VERSION = 1
NAMES = {
    "response": "answers with a hallucinated object, of those with a COCO object, percent (headline)",
    "mention": "hallucinated mentions of all mentions, percent",
}


def read_answers(path: Path) -> Answers:
    """A file of answers."""
    raise NotImplementedError


def read_reference(*paths: Path) -> Any:
    """The reference data."""
    raise NotImplementedError


def score(answers: Answers, reference: Any, *, samples: int = 1000, seed: int = 0) -> Score:
    """The scores of `NAMES`."""
    raise NotImplementedError


SCORER = Scorer("object_halbench", "Object HalBench", NAMES, read_answers, read_reference, score, formats="", uses_language=True)
