"""Items as a stream: they are taken when there is a place for them, and given back as they end."""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeGuard, TypeVar

from lib.errors import UserError
from lib.files import FULL_DISK, READ_ONLY
from lib.jobs.memory import halving

Input = TypeVar("Input")
T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Item(Generic[Input]):
    """The unit of work. `key` is a hash of everything that determines the result; `inputs` is
    whatever the stage computes it from.
    """

    id: str
    key: str
    inputs: Input


#: Hands out up to so many items: none where there are none at this moment. What is given back may
#: bring others.
Take = Callable[[int], Sequence[T]]
#: Items that ended together, each with its result or what it failed of.
Ended = Sequence[tuple[T, R | Exception]]
#: Computes items for as long as any are handed out.
Stream = Callable[[Take[T]], Iterator[Ended[T, R]]]


def handing_out(items: Iterable[T]) -> Take[T]:
    """Hands out items in their order."""
    left = iter(items)
    return lambda number: list(islice(left, number))


def neighbours(items: Iterable[T], group_of: Callable[[T], Hashable]) -> list[T]:
    """The items with those of a group one after the other, otherwise in their order."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(group_of(item), []).append(item)
    return [item for members in groups.values() for item in members]


class HandedOut(Generic[Input]):
    """Items on their way: which of them are being computed, and the time that each takes. Those
    that are computed at once share it.
    """

    def __init__(
        self,
        items: Iterable[Item[Input]],
        begin: Callable[[Sequence[Item[Input]]], None],
        is_stopped: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`begin`: is told what is handed out, nothing included; `is_stopped`: whether nothing is
        to be, any more; `clock`: the time in seconds.
        """
        self._left = iter(items)
        self._begin, self._is_stopped, self._clock = begin, is_stopped, clock
        self._since: dict[str, float] = {}  # item's id -> the share of time when it was handed out
        self._share, self._last = 0.0, clock()

    def take(self, number: int) -> list[Item[Input]]:
        """Up to so many items more."""
        taken = [] if self._is_stopped() else list(islice(self._left, number))
        self._begin(taken)
        self._pass_time()
        self._since |= {item.id: self._share for item in taken}
        return taken

    def end(self, items: Sequence[Item[Input]]) -> list[float]:
        """The seconds that each of the items took, which ended together."""
        self._pass_time()
        return [self._share - self._since.pop(item.id) for item in items]

    def _pass_time(self) -> None:
        now = self._clock()
        if self._since:
            self._share += (now - self._last) / len(self._since)
        self._last = now


def inputs_of(batch: Sequence[Item[T]]) -> list[T]:
    """The inputs of items, where these are their results already."""
    return [item.inputs for item in batch]


def in_batches(
    compute: Callable[[Sequence[T]], Sequence[R | Exception]],
    size: int,
    note: Callable[[str], None] = lambda text: None,
) -> Stream[T, R]:
    """A stream of what computes several items at once, which end together. What it raises fails
    its items, one by one if the batch had several, unless it stops the job; where memory does not
    suffice, the batch is halved, and `note` is told.
    """

    def results_of(batch: Sequence[T]) -> Sequence[R | Exception]:
        try:
            return halving(batch, compute, note)
        except Exception as error:
            if stops_the_job(error):
                raise
            if len(batch) == 1:
                return [error]
        return [results_of([item])[0] for item in batch]

    def stream(take: Take[T]) -> Iterator[Ended[T, R]]:
        while batch := take(size):
            yield list(zip(batch, results_of(batch), strict=True))

    return stream


def with_the_next_prepared(prepare: Callable[[T], P], compute: Callable[[T, P], R]) -> Stream[T, R]:
    """A stream of what computes one item at a time. `prepare` begins what each needs, one item
    ahead, so that it may be ready when its turn comes; it raises nothing. What `compute` raises
    fails the item, unless it stops the job.
    """

    def result_of(item: T, prepared: P) -> R | Exception:
        try:
            return compute(item, prepared)
        except Exception as error:
            if stops_the_job(error):
                raise
            return error

    def stream(take: Take[T]) -> Iterator[Ended[T, R]]:
        waiting = deque((item, prepare(item)) for item in take(2))
        while waiting:
            item, prepared = waiting.popleft()
            yield [(item, result_of(item, prepared))]
            waiting.extend((each, prepare(each)) for each in take(1))

    return stream


def stops_the_job(error: BaseException) -> bool:
    """Whether it is no fault of an item: a user's mistake, or files that cannot be written."""
    return isinstance(error, UserError) or is_of_storage(error)


def is_of_storage(error: BaseException) -> TypeGuard[OSError]:
    """Whether the disk is full, or cannot be written to."""
    return isinstance(error, OSError) and error.errno in (*FULL_DISK, *READ_ONLY)
