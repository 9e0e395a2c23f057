"""What all scorers share: answers, what is wrong with rows, the reference, and the score."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.judge import Judge, Judgement, encodable

#: What a scorer reads from its reference files; each scorer has a class of its own for it.
Reference = Any
#: A larger share of ids that the reference does not know means that the files do not belong
#: together.
MOST_FOREIGN = 0.9


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row, and what became of it. `line` counts from 1; None where it is
    about the whole file.
    """

    file: str
    line: int | None
    what: str

    def __str__(self) -> str:
        return (
            f"{self.file}, line {self.line}: {self.what}"
            if self.line
            else f"{self.file}: {self.what}"
        )


@dataclass(frozen=True)
class Answer:
    """One answer of a model. `details`: whatever else of its row the benchmark reads (a category,
    kept judgements, ...).
    """

    id: str
    text: str
    line: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """The answers of a file in its order, ids unique, and its bad rows. `judge`: who gave the
    judgements that the rows carry.
    """

    file: str
    rows: Sequence[Answer]
    problems: Sequence[Problem] = ()
    judge: str | None = None

    def by_id(self) -> dict[str, Answer]:
        """The answers by id."""
        return {answer.id: answer for answer in self.rows}


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


@dataclass(frozen=True)
class Score:
    """What a scorer found.

    scores      the reference's own numbers, headline first; their units and meanings are in the
                scorer's `names`
    extra       what answers the usual doubts: unparsed answers, yes ratio, counts; always
                `answers`, `expected` and `missing`
    per_type    the same by the benchmark's own types
    intervals   95 % bootstrap intervals (low, high) of the headline scores
    problems    bad rows, each with its line
    parser      how the answers were read, in words
    version     of our scorer: raised when the same answers would get another score
    language_tools, judge   the names of what was used, or None
    """

    benchmark: str
    scores: dict[str, float]
    extra: dict[str, Any]
    per_type: dict[str, dict[str, float]]
    intervals: dict[str, tuple[float, float]]
    problems: list[Problem]
    parser: str
    version: int
    language_tools: str | None = None
    judge: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The score as a JSON document."""
        return {
            **vars(self),
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "problems": [vars(problem) for problem in self.problems],
        }


@dataclass(frozen=True)
class Scorer:
    """A benchmark's scorer.

    names           score -> what it is and its unit, in the order of `Score.scores`, headline first
    read_answers    `read_answers(path)`: a file of answers, as published or as `{"id", "response"}`
                    lines
    read_reference  `read_reference(*paths)`: the files or folders of what the answers are held
                    against
    score           `score(answers, reference, *, samples=1000, seed=0) -> Score`, and
                    `language=...` (lib/benchmarks/language.py) where `uses_language`. Pure: nothing is
                    asked of anybody, nothing is written
    ask             `ask(answers, reference, judge, ...) -> Answers`: the answers with the
                    judgements of a judge (lib/judge.py), for benchmarks that need one; None for the
                    others
    mentions        `mentions(answers, reference, language) -> {id: Mentions}`: the mentions that
                    `score` counts, with their places, of every answer that is scored; None for
                    benchmarks that count no mentions
    formats         what the files look like, for people
    """

    name: str
    title: str
    names: Mapping[str, str]
    read_answers: Callable[[Path], Answers]
    read_reference: Callable[..., Reference]
    score: Callable[..., Score]
    formats: str
    uses_language: bool = False
    ask: Callable[..., Answers] | None = None
    mentions: Callable[..., dict[str, Mentions]] | None = None


def match(
    answers: Answers, expected: Sequence[str], benchmark: str
) -> tuple[dict[str, Answer], list[Problem], dict[str, int]]:
    """The answers to the expected ids, in the order of `expected`; all problems, foreign and
    missing ids included; and the counts.

    Errors: UserError where (almost) no answer belongs to the reference: then a file is another one
    than meant.
    """
    given = answers.by_id()
    wanted = set(expected)
    problems = list(answers.problems)
    foreign = [answer for answer in answers.rows if answer.id not in wanted]
    if not answers.rows or len(foreign) > MOST_FOREIGN * len(answers.rows):
        first = f"they begin with {answers.rows[0].id!r}" if answers.rows else "there are none"
        raise UserError(
            f"{answers.file}: {len(foreign)} of its {len(answers.rows)} ids are not in the"
            f" reference ({first}, the reference's with {next(iter(expected), None)!r}). Are these"
            f" answers to {benchmark}, and is this the reference that belongs to them?"
        )
    problems += [
        Problem(answers.file, each.line, f"id {each.id!r} is not in the reference; not scored")
        for each in foreign
    ]
    missing = [name for name in expected if name not in given]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        problems.append(
            Problem(
                answers.file,
                None,
                f"{len(missing)} of {len(expected)} ids have no answer and are left out: {shown}",
            )
        )
    matched = {name: given[name] for name in expected if name in given}
    return (
        matched,
        problems,
        {"answers": len(matched), "expected": len(expected), "missing": len(missing)},
    )


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Scores that have a value, as plain numbers: one with nothing to divide by has none, and is
    left out.
    """
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def with_judgements(
    answers: Answers,
    judged: Mapping[str, Judgement[Any]],
    details_of: Callable[[Judgement[Any]], Mapping[str, Any]],
    judge: Judge,
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> Answers:
    """The answers with what a judge found: `details_of` a judgement that has a value, its `reason`
    (and the raw reply) where it has none.

    `more`: details of further answers by id.
    """
    found: dict[str, Mapping[str, Any]] = {
        name: details_of(one) if one.reason is None else {"reason": one.reason, "raw": one.text}
        for name, one in judged.items()
    } | dict(more or {})
    rows = [
        (
            replace(answer, details={**answer.details, "judge": judge.name, **found[answer.id]})
            if answer.id in found
            else answer
        )
        for answer in answers.rows
    ]
    names = [answers.judge, judge.name] if found else [answers.judge]
    return replace(
        answers, rows=rows, judge=", ".join(dict.fromkeys(name for name in names if name)) or None
    )


def to_rows(answers: Answers) -> list[dict[str, Any]]:
    """Answers as `{"id", "response", ...}` rows for lib.files.write_jsonl, judgements and all;
    `read_answers` reads them back.
    """
    return [
        {"id": encodable(answer.id), "response": encodable(answer.text), **answer.details}
        for answer in answers.rows
    ]
