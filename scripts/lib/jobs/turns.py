"""Several jobs of a rule in one of Snakemake's: each with its own parameters, journal, record and
results, as if it were alone, and in turns with the others, so that they can share what they read.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from lib.blocks import Block
from lib.errors import UserError
from lib.jobs.batches import Items, Outcome
from lib.jobs.job import Job
from lib.jobs.processes import calling_on_stop_signals
from lib.jobs.streams import Item

S = TypeVar("S", bound=Block)
#: The parameter of a rule whose jobs do what several jobs of another rule of its script do: of each
#: of these its `wildcards`, and the parameters that are its own, as `params`. The outputs are in
#: their order, as many of each.
TOGETHER = "together"


class Parameters(dict[str, Any]):
    """A job's parameters, by name and by attribute, as Snakemake gives them."""

    __getattr__ = dict.__getitem__


class Wildcards(list[str]):
    """A job's wildcards, in their order and by attribute, as Snakemake gives them."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values.values())
        vars(self).update(values)


@dataclass(frozen=True)
class Part:
    """What Snakemake would hand to one of the jobs alone, as far as our scripts read it; the inputs
    are those of all.
    """

    rule: str
    wildcards: Wildcards
    input: Any
    output: Sequence[str]
    params: Parameters


def parts_of(snakemake: Any) -> list[Any]:
    """What each of the jobs is handed that one job of Snakemake's is; itself where it is alone."""
    params = dict(snakemake.params.items())
    if (together := params.pop(TOGETHER, None)) is None:
        return [snakemake]
    outputs = list(snakemake.output)
    of_each = len(outputs) // len(together)
    places = range(0, len(outputs), of_each)
    return [
        Part(
            rule=snakemake.rule,
            wildcards=Wildcards(part["wildcards"]),
            input=snakemake.input,
            output=outputs[place : place + of_each],
            params=Parameters({**params, **part["params"]}),
        )
        for part, place in zip(together, places, strict=True)
    ]


@contextmanager
def open_jobs(
    snakemake: Any, settings: type[S], version: int
) -> Iterator[list[tuple[Any, Job[S]]]]:
    """`parts_of`, each with its job as `Job` opens it; the clock of one that is not alone runs in
    its turns only. Those that ended well have their record, also where others did not.

    Errors: UserError with what the others failed of (`Job.fail`).
    """
    with ExitStack() as stack:
        parts = parts_of(snakemake)
        jobs = [stack.enter_context(Job(part, settings, version)) for part in parts]
        if len(jobs) > 1:
            for job in jobs:
                job.clock.pause()
        yield list(zip(parts, jobs, strict=True))
    failures = dict.fromkeys(job.failure for job in jobs if job.failure)
    if failures:
        raise UserError("\n".join(failures))


@contextmanager
def turn_of(job: Job[Any]) -> Iterator[None]:
    """The turn of a job that is done as a whole before the next one begins: its clock runs, and a
    UserError fails it alone (`Job.fail`).
    """
    try:
        with job.clock.running():
            yield
    except UserError as error:
        job.fail(error)


def run_in_turns(
    parts: Sequence[tuple[Items[Any, Any, Any], Sequence[Item[Any]]]],
    hold: Callable[[Item[Any]], object] = lambda item: None,
) -> list[Mapping[str, Outcome[Any]] | None]:
    """Computes the items of several jobs in turns: of those whose next item comes first, the first
    job's. So jobs with the same items are at the same one, and what they share of it is there for
    all of them.

    hold  gives what is to stay there while the jobs have their turns with an item

    Returns the outcomes of each job's items by id, or None for a job that has failed (`Job.fail`),
    which keeps no other from its turns.
    """
    places = {item.id: place for _, items in parts for place, item in enumerate(items)}
    outcomes: list[Mapping[str, Outcome[Any]] | None] = [None] * len(parts)
    waiting: dict[int, Item[Any]] = {}  # the next item of each job that has not ended
    begun: set[int] = set()  # the jobs that have loaded their models
    held: deque[object] = deque(maxlen=1)
    stopped: list[int] = []

    def stop(signal: int) -> None:
        stopped.append(signal)
        for part, _ in parts:
            part.stop(signal)

    with ExitStack() as stack, calling_on_stop_signals(stop):
        steps = [
            stack.enter_context(closing(part.steps(items, in_turns=len(parts) > 1)))
            for part, items in parts
        ]

        def advance(number: int) -> None:
            waiting.pop(number, None)
            job = parts[number][0].job
            try:
                with job.clock.running():
                    waiting[number] = next(steps[number])
            except StopIteration as ended:
                outcomes[number] = ended.value
            except UserError as error:
                job.fail(error)
            except SystemExit:
                if not stopped:
                    raise

        for number in range(len(parts)):
            advance(number)
        while waiting:
            number = min(waiting, key=lambda each: (places[waiting[each].id], each))
            if stopped and number not in begun:
                del waiting[number]
                continue
            begun.add(number)
            held.append(hold(waiting[number]))
            advance(number)
    if stopped:
        raise SystemExit(128 + stopped[0])
    return outcomes
