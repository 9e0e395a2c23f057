"""Benchmarks that ask a judge about answers, before anything is scored."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from lib.benchmarks.answers import Answer, Answers
from lib.benchmarks.base import Benchmark, R
from lib.judge import Judge, Judgement

NOT_NAMED = "not named in the file"


class JudgedBenchmark(Benchmark[R]):
    """A benchmark that asks a judge.

    needs_judge  whether there is no score without judgements
    gradings     how often the authors have an answer judged
    """

    needs_judge: ClassVar[bool] = True
    gradings: ClassVar[int] = 1

    @abstractmethod
    def add_judgements(
        self, answers: Answers, reference: R, judge: Judge, gradings: int | None = None
    ) -> Answers:
        """The answers with a judge's judgements, those that carry some already as they are.

        `gradings`: another number than the benchmark's own, where that is more than one.
        """


def judges_in(answers: Answers, kept: str) -> str | None:
    """Who gave the judgements that rows of a file carry under `kept`; None if none does."""
    named = {
        answer.details["judge"]
        for answer in answers.rows
        if isinstance(answer.details.get("judge"), str)
    }
    are_kept = any(kept in answer.details for answer in answers.rows)
    return ", ".join(sorted(named)) or (NOT_NAMED if are_kept else None)


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
    details: dict[str, Mapping[str, Any]] = {
        name: details_of(one) if one.reason is None else {"reason": one.reason, "raw": one.text}
        for name, one in judged.items()
    } | dict(more or {})
    rows = [_with_details(answer, details.get(answer.id), judge.name) for answer in answers.rows]
    names = [answers.judge, judge.name] if details else [answers.judge]
    return replace(
        answers, rows=rows, judge=", ".join(dict.fromkeys(name for name in names if name)) or None
    )


def _with_details(answer: Answer, details: Mapping[str, Any] | None, judge: str) -> Answer:
    if details is None:
        return answer
    return replace(answer, details={**answer.details, "judge": judge, **details})
