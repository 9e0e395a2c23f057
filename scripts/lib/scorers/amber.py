"""AMBER's scorer. Its arithmetic lands next; names and signatures stand."""

from pathlib import Path
from typing import Any

from lib.scorers.base import Answers, Score, Scorer

VERSION = 1
NAMES = {
    "accuracy": "discriminative: accuracy, percent (headline)",
    "f1": "discriminative: F1 of no, percent",
    "precision": "discriminative: precision of no, percent",
    "recall": "discriminative: recall of no, percent",
    "chair": "generative: hallucinated objects, percent",
    "cover": "generative: objects of the image that are named, percent",
    "hal": "generative: captions with a hallucination, percent",
    "cog": "generative: likely hallucinations that came, percent",
    "amber_score": "(100 - chair + f1) / 2",
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


SCORER = Scorer("amber", "AMBER", NAMES, read_answers, read_reference, score, formats="", uses_language=True)
