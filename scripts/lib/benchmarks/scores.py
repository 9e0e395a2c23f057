"""A benchmark's score of a file of answers, and how answers are matched with what is expected."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.benchmarks.answers import Answer, Answers, Problem
from lib.data.evaluation_files import QuestionScore
from lib.errors import UserError

#: A larger share of ids that the reference does not know means that the files do not belong
#: together.
MOST_FOREIGN = 0.9


@dataclass(frozen=True)
class Score:
    """The score of a file of answers.

    scores      the reference's own numbers, headline first; their units and meanings are in the
                benchmark's `names`
    extra       what answers the usual doubts: unparsed answers, yes ratio, counts; always
                `answers`, `expected` and `missing`
    per_type    the same by the benchmark's own types
    intervals   95 % bootstrap intervals (low, high) of the headline scores
    problems    bad rows, each with its line
    parser      how the answers were read, in words
    version     the benchmark's VERSION
    language_tools, judge   the names of what was used, or None
    not_comparable          the scores that are not comparable with published ones, and why
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
    not_comparable: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The score as a JSON document."""
        return {
            **vars(self),
            "intervals": self.intervals_as_lists(),
            "problems": [vars(problem) for problem in self.problems],
        }

    def intervals_as_lists(self) -> dict[str, list[float]]:
        """The intervals as JSON has them."""
        return {name: list(interval) for name, interval in self.intervals.items()}


def scorer_name(benchmark: object, version: int | None) -> str:
    """What scores.json calls a benchmark's scorer: its file; no version if nothing was scored."""
    file = type(benchmark).__module__.replace(".", "/")
    return f"scripts/{file}.py, version {version or '-'}"


def question_score(
    answer: Answer, score: float, picture: str = "", target: str = ""
) -> QuestionScore:
    """What one answer was given (`QuestionScore`)."""
    return {
        "id": answer.id,
        "line": answer.line or 0,
        "score": float(score),
        "picture": picture or answer.id,
        "target": target,
    }


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
    foreign = [answer for answer in answers.rows if answer.id not in wanted]
    if not answers.rows or len(foreign) > MOST_FOREIGN * len(answers.rows):
        raise _of_another_benchmark(answers, foreign, expected, benchmark)
    matched = {name: given[name] for name in expected if name in given}
    missing = [name for name in expected if name not in given]
    problems = [*answers.problems, *(_foreign_id(answers.file, answer) for answer in foreign)]
    if missing:
        problems.append(_missing_ids(answers.file, missing, len(expected)))
    counts = {"answers": len(matched), "expected": len(expected), "missing": len(missing)}
    return matched, problems, counts


def _of_another_benchmark(
    answers: Answers, foreign: Sequence[Answer], expected: Sequence[str], benchmark: str
) -> UserError:
    first = f"they begin with {answers.rows[0].id!r}" if answers.rows else "there are none"
    return UserError(
        f"{answers.file}: {len(foreign)} of its {len(answers.rows)} ids are not in the"
        f" reference ({first}, the reference's with {next(iter(expected), None)!r}). Are these"
        f" answers to {benchmark}, and is this the reference that belongs to them?"
    )


def _foreign_id(file: str, answer: Answer) -> Problem:
    return Problem(file, answer.line, f"id {answer.id!r} is not in the reference; not scored")


def _missing_ids(file: str, missing: Sequence[str], expected: int) -> Problem:
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    what = f"{len(missing)} of {expected} ids have no answer and are left out: {shown}"
    return Problem(file, None, what)


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Scores as plain numbers, without the NaN ones (zero denominator)."""
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
