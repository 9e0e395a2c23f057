"""Benchmarks that count which objects an answer mentions, and where it does."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lib.benchmarks.answers import Answers
from lib.benchmarks.base import Benchmark, R
from lib.benchmarks.scores import question_score
from lib.data.evaluation_files import QuestionScore


@dataclass(frozen=True)
class Mention:
    """An answer names an object once.

    thing   the benchmark's name of it
    there   whether the image shows it; where not, the mention is hallucinated
    place   (start, end) in the answer's text; None where a judge named the object in words that are
            not in the answer
    """

    thing: str
    there: bool
    place: tuple[int, int] | None


@dataclass(frozen=True)
class Mentions:
    """All mentions of one answer in the order in which they are counted, and the objects that its
    image shows.
    """

    each: tuple[Mention, ...]
    shown: frozenset[str]

    @property
    def hallucinated(self) -> int:
        """How many mentions are of objects that the image does not show."""
        return sum(not mention.there for mention in self.each)

    @property
    def found(self) -> int:
        """How many objects of the image are mentioned."""
        return len(self.shown.intersection(mention.thing for mention in self.each))


class MentionsBenchmark(Benchmark[R]):
    """A benchmark that counts mentions of objects."""

    no_score: ClassVar[str] = "no answer mentions an object that the benchmark knows"

    @abstractmethod
    def mentions(self, answers: Answers, reference: R) -> dict[str, Mentions]:
        """The mentions that `score` counts, with their places, of every answer that is scored, by
        id.
        """

    def by_question(self, answers: Answers, reference: R) -> list[QuestionScore]:
        """Less one for each mention of an object that the picture does not show."""
        given = answers.by_id()
        return [
            question_score(given[name], -found.hallucinated, name, ", ".join(sorted(found.shown)))
            for name, found in self.mentions(answers, reference).items()
        ]
