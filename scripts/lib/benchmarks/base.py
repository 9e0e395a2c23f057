"""What a benchmark is. A file holds all that is known of one: also how its questions are put
(questions.py), whether it asks a judge (judged.py) and counts mentions (mentions.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

from lib.benchmarks.answers import Answers
from lib.benchmarks.scores import Score
from lib.data.evaluation_files import QuestionScore

R = TypeVar("R")  # what a benchmark reads from its reference files
Better = Literal["higher", "lower"]
LanguageChoice = Literal["auto", "reference", "stand-in", "exact"]


class Benchmark(ABC, Generic[R]):
    """A benchmark; its scores equal those of its authors' own script (docs/evaluation.md).

    VERSION     raised where the same answers would get another score
    name        as configurations and tables have it; `title`: as papers do
    names       score -> what it is and its unit, in the order of `Score.scores`, headline first
    better      score -> "higher" or "lower", which is better; a score where neither is, is left out
    formats     what its files look like, for people
    kept_tasks  lmms-eval's tasks (patterns) whose kept answers it scores, too
    no_score    why a score can be missing though there are answers
    reading     how a model's free answers are read before they are scored, in words
    """

    VERSION: ClassVar[int]
    name: ClassVar[str]
    title: ClassVar[str]
    names: ClassVar[Mapping[str, str]]
    better: ClassVar[Mapping[str, Better]] = {}
    formats: ClassVar[str]
    kept_tasks: ClassVar[tuple[str, ...]] = ()
    no_score: ClassVar[str] = "these answers have no such part"
    reading: ClassVar[str | None] = None

    def __init__(self, language: LanguageChoice = "auto") -> None:
        self.language = language

    @abstractmethod
    def read_answers(self, path: Path) -> Answers:
        """A file of answers, as published or as `{"id", "response"}` lines. Errors: UserError."""

    @abstractmethod
    def read_reference(self, *paths: Path) -> R:
        """The files or folders of what the answers are held against. Errors: UserError."""

    @abstractmethod
    def score(self, answers: Answers, reference: R, *, samples: int = 1000, seed: int = 0) -> Score:
        """The scores, with intervals from so many resamples; nothing is asked or written."""

    def by_question(self, answers: Answers, reference: R) -> list[QuestionScore]:
        """What each answer that `score` scores was given, by which two models are compared question
        by question; here, nothing is known of a single answer.
        """
        return []

    def read_free_answers(self, answers: Answers) -> Answers:
        """A model's answers as the authors' script wants them; here, as they are."""
        return answers

    def doubts(self, answers: Answers) -> dict[str, int]:
        """What to know of how `read_free_answers` read them: name -> number of answers."""
        return {}
