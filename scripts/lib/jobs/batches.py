"""The items of a job: only those that the journal does not hold are computed, and the model is
loaded only if there are any.
"""

import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from lib.errors import ItemError, UserError
from lib.files import mendable_storage_errors
from lib.jobs.job import Job
from lib.jobs.journal import Journal, finished_elsewhere
from lib.jobs.processes import calling_on_stop_signals
from lib.jobs.streams import (
    Ended,
    HandedOut,
    Item,
    Stream,
    Take,
    in_batches,
    is_of_storage,
    stops_the_job,
)
from lib.jobs.versions import loaded_versions
from lib.patches.imports import quick_imports
from lib.progress import SECONDS_BETWEEN_PROGRESS_LINES, duration, log

Input = TypeVar("Input")
R = TypeVar("R", bound=Mapping[str, Any])  # an item's result, as journals hold it
M = TypeVar("M")  # a loaded model
#: What a stream gives of items; a result may be files that are still being written.
Computed = Iterator[Ended[Item[Input], R | Future[R]]]


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of an item: its result, or the reason why there is none."""

    id: str
    result: R | None = None
    reason: str | None = None


class _FilesBeingWritten:
    """An item whose files another thread writes. That thread settles it too, as soon as they are
    there, so that a job that is killed meanwhile has it in its journal.
    """

    def __init__(self, files: Future[Any], settle: Callable[[Any], None]) -> None:
        """`settle`: is given the item's result, or what its files failed of."""
        self._settle = settle
        self._is_settled = threading.Event()
        self._problem: Exception | None = None
        files.add_done_callback(self._settle_now)

    def _settle_now(self, files: Future[Any]) -> None:
        try:
            self._settle(files.exception() or files.result())
        except Exception as error:
            self._problem = error
        finally:
            self._is_settled.set()

    def wait(self) -> Exception | None:
        """Returns when the item is settled: what stops the job, if anything does."""
        self._is_settled.wait()
        return self._problem


@dataclass
class Items(ABC, Generic[Input, M, R]):
    """How the items of a job are computed.

    load         is called once, and only if something is to be computed; what is a context (a
                 connection) is entered, and left when all is computed
    still_valid  whether a finished item's files are still what the journal says; if not, the item
                 is computed again
    take_over    what an item's result is here that another journal holds, of this run or another,
                 after whatever it takes; given the item, the result and the folder of its run. None
                 where it cannot be had: the item is then computed
    check        looks at each item that is to be computed, before the model is loaded; a UserError
                 from it stops the job
    """

    job: Job[Any]
    load: Callable[[], M]
    still_valid: Callable[[Item[Input], R], bool] = field(
        default=lambda item, result: True, kw_only=True
    )
    take_over: Callable[[Item[Input], R, Path], R | None] = field(
        default=lambda item, result, root: result, kw_only=True
    )
    check: Callable[[Item[Input]], object] = field(default=lambda item: None, kw_only=True)

    def __post_init__(self) -> None:
        self._stop_signal: int | None = None

    @abstractmethod
    def compute_with(self, model: M, take: Take[Item[Input]]) -> Computed[Input, R]:
        """Computes the items that `take` hands out."""

    def run(self, items: Sequence[Item[Input]]) -> dict[str, Outcome[R]]:
        """The outcome of every item by id, computing only those that the journal does not hold."""
        with calling_on_stop_signals(self.stop):
            steps = self.steps(items, in_turns=False)
            while True:
                try:
                    next(steps)
                except StopIteration as ended:
                    return dict(ended.value)

    def steps(
        self, items: Sequence[Item[Input]], in_turns: bool = True
    ) -> Generator[Item[Input], None, dict[str, Outcome[R]]]:
        """`run` a step at a time, for jobs that take turns (`lib.jobs.turns`): all items are looked
        up and checked; the model is loaded, and what ends first is computed; and so on. Gives the
        first item, in their order, that waits for the next step.

        in_turns  whether others compute between the steps: what has ended is then written before
        """
        job = self.job
        job.record.items += len(items)
        path = job.work / f"{job.name}.journal.jsonl"
        with Journal(path, job.rule) as journal:
            if journal.dropped_lines:
                job.note(
                    f"{journal.dropped_lines} damaged line(s) of {path} dropped; their items are"
                    " computed again"
                )
            outcomes, missing = self._look_up(items, journal)
            for item in missing:
                self.check(item)
            if missing:
                yield missing[0]
                started = job.clock.seconds()
                model, versions = self._load(), loaded_versions()
                job.record.load_seconds += job.clock.seconds() - started
                is_open = model if isinstance(model, AbstractContextManager) else nullcontext()
                with is_open:
                    for item in self._compute(missing, model, versions, journal, outcomes):
                        if in_turns:
                            journal.flush()
                        yield item
            job.computed_under({})
            for item in items:
                if outcomes[item.id].reason is None:
                    job.computed_under(journal.versions.get(item.key, {}))
        refuse_too_many_failures(job, outcomes)
        return outcomes

    def _look_up(
        self, items: Sequence[Item[Input]], journal: Journal
    ) -> tuple[dict[str, Outcome[R]], list[Item[Input]]]:
        """The outcomes that the journal holds, and the items that it does not hold."""
        outcomes: dict[str, Outcome[R]] = {}
        missing = []
        for item in items:
            result: Any = journal.finished(item.key)
            if result is not None and self.still_valid(item, result):
                outcomes[item.id] = Outcome(item.id, result)
            else:
                missing.append(item)
        if missing:
            missing = self._take_over(missing, journal, outcomes)
        self.job.record.reused += len(outcomes)
        return outcomes, missing

    def _take_over(
        self,
        missing: Sequence[Item[Input]],
        journal: Journal,
        outcomes: dict[str, Outcome[R]],
    ) -> list[Item[Input]]:
        """Looks for items in other journals, and enters them in this one, so that the run stays
        whole when the other is deleted. Returns those that are nowhere.
        """
        wanted: dict[str, list[Item[Input]]] = {}
        for item in missing:  # the same content may be asked about under two ids
            wanted.setdefault(item.key, []).append(item)
        for source, path in self.job.journals_elsewhere(journal.path):
            for found in finished_elsewhere(path, wanted.__contains__):
                items = wanted[found.key]
                result: Any = self.take_over(items[0], found.result, source)
                if result is None or not self.still_valid(items[0], result):
                    continue
                del wanted[found.key]
                for item in items:
                    journal.take_over(found, item.id, result)
                    outcomes[item.id] = Outcome(item.id, result)
                self.job.took_over(source, len(items))
            if not wanted:
                break
        journal.flush()
        return [item for item in missing if item.key in wanted]

    def stop(self, number: int) -> None:
        """Has no more items handed out, since the process was sent this signal."""
        self._stop_signal = number
        log.warning(
            "%s %s: asked to stop (signal %d); finishing what was begun",
            self.job.rule,
            self.job.name,
            number,
        )

    def _load(self) -> M:
        try:
            with quick_imports():
                return self.load()
        except Exception as error:
            is_of_files = (
                isinstance(error, OSError | ValueError) or type(error).__name__ == "SafetensorError"
            )
            if isinstance(error, UserError) or not is_of_files:
                raise
            names = ", ".join(self.job.record.models) or "the model"
            raise UserError(
                f"{names}: cannot be loaded ({type(error).__name__}: {error}). Correct the model in"
                " the configuration, or fetch it anew, and run again; what is finished is kept."
            ) from error

    def _compute(
        self,
        missing: Sequence[Item[Input]],
        model: M,
        versions: dict[str, str],
        journal: Journal,
        outcomes: dict[str, Outcome[R]],
    ) -> Iterator[Item[Input]]:
        clock = self.job.clock.seconds
        began = clock()
        started = last_line = time.monotonic()
        being_written: list[_FilesBeingWritten] = []
        done = 0

        def begin(items: Sequence[Item[Input]]) -> None:
            if items:
                journal.begin([item.key for item in items], versions)
            else:
                journal.flush()

        handed_out = HandedOut(missing, begin, lambda: self._stop_signal is not None, clock)
        for ended in self._ended(model, handed_out.take):
            before, being_written = being_written, []
            shares = handed_out.end([item for item, _ in ended])
            for (item, result), seconds in zip(ended, shares, strict=True):
                settle = partial(self._settle, item, seconds, journal, outcomes)
                if isinstance(result, Future):
                    being_written.append(_FilesBeingWritten(result, partial(settle, at_once=True)))
                else:
                    settle(result, at_once=False)
            try:
                wait_for_all(before)
            except Exception:
                wait_for_all(being_written)  # what was begun meanwhile is kept, too
                raise
            now, done = time.monotonic(), done + len(ended)
            if now - last_line >= SECONDS_BETWEEN_PROGRESS_LINES or done == len(missing):
                left = duration((now - started) / done * (len(missing) - done))
                names = (self.job.rule, self.job.name)
                log.info("%s %s: %d of %d items, %s left", *names, done, len(missing), left)
                last_line = now
            if done < len(missing):
                yield missing[done]
        journal.flush()
        wait_for_all(being_written)
        self.job.record.compute_seconds += clock() - began
        if self._stop_signal:
            log.warning(
                "%s %s: stopped when that was finished; the rest is computed on the next run",
                self.job.rule,
                self.job.name,
            )
            raise SystemExit(128 + self._stop_signal)

    def _ended(self, model: M, take: Take[Item[Input]]) -> Computed[Input, R]:
        """What ends, one after the other; what stops the job in a message of ours."""
        try:
            yield from self.compute_with(model, take)
        except OSError as error:
            self._stop_if_storage_failed(error)
            raise

    def _settle(
        self,
        item: Item[Input],
        seconds: float,
        journal: Journal,
        outcomes: dict[str, Outcome[R]],
        result: Any,
        at_once: bool,
    ) -> None:
        """Journals an item: its result, or the exception that it failed of."""
        if not isinstance(result, BaseException):
            journal.add(item.key, item.id, seconds=seconds, result=result, at_once=at_once)
            self.job.record.computed += 1
            outcomes[item.id] = Outcome(item.id, result)
            return
        self._stop_if_storage_failed(result)
        is_told = isinstance(result, ItemError)
        if not is_told:
            log.warning("".join(traceback.format_exception(result)))
        reason = str(result) if is_told else f"{type(result).__name__}: {result}"
        log.warning("%s %s: %s failed: %s", self.job.rule, self.job.name, item.id, reason)
        journal.add(item.key, item.id, seconds=seconds, reason=reason, at_once=at_once)
        self.job.record.failed += 1
        outcomes[item.id] = Outcome(item.id, reason=reason)

    def _stop_if_storage_failed(self, error: BaseException) -> None:
        if is_of_storage(error):
            with mendable_storage_errors(Path(error.filename or self.job.work)):
                raise error
        if stops_the_job(error):
            raise error


@dataclass
class Batches(Items[Input, M, R]):
    """Items that are computed in batches.

    compute     gives one result an item, in order; a result may be a Future (files still being
                written), and an ItemError in place of a result fails that item. Whatever it raises
                fails its items, one by one if the batch had several, except a UserError or a full
                disk, which stops the job
    batch_size  items of one batch
    """

    compute: Callable[[M, Sequence[Item[Input]]], Sequence[R | Future[R] | ItemError]]
    batch_size: int = 1

    def compute_with(self, model: M, take: Take[Item[Input]]) -> Computed[Input, R]:
        """One batch after the other."""
        compute = partial(self.compute, model)
        stream: Stream[Item[Input], R | Future[R]]
        stream = in_batches(compute, self.batch_size, self.job.note)
        return stream(take)


@dataclass
class Streamed(Items[Input, Stream[Item[Input], R | Future[R]], R]):
    """Items of what is itself a stream, once it is loaded."""

    def compute_with(
        self, model: Stream[Item[Input], R | Future[R]], take: Take[Item[Input]]
    ) -> Computed[Input, R]:
        """The stream."""
        return model(take)


def each_at_once(
    compute: Callable[[Item[Input]], Any], batch: Sequence[Item[Input]]
) -> Sequence[Any]:
    """`compute` of each item of a batch, in threads where there are several: for what waits for
    servers.
    """
    if len(batch) == 1:
        return [compute(batch[0])]
    with ThreadPoolExecutor(len(batch)) as threads:
        return [threads.submit(compute, item) for item in batch]


def wait_for_all(being_written: list[_FilesBeingWritten]) -> None:
    """Empties the list, each of its items settled, whatever became of the others; raises what
    stops the job.
    """
    problems = [files.wait() for files in being_written]
    being_written.clear()
    for problem in filter(None, problems):
        raise problem


def refuse_too_many_failures(job: Job[Any], outcomes: Mapping[str, Outcome[Any]]) -> None:
    """A UserError if more than the configured share of a job's items failed."""
    failures = [outcome for outcome in outcomes.values() if outcome.reason is not None]
    if outcomes and len(failures) / len(outcomes) > job.max_failed_fraction:
        reasons = "\n".join(f"  {outcome.id}: {outcome.reason}" for outcome in failures[:5])
        raise UserError(
            f"{job.rule} {job.name}: {len(failures)} of {len(outcomes)} items failed, over"
            f" `max_failed_fraction` ({job.max_failed_fraction}). The first reasons:\n{reasons}\n"
            "Finished items are kept. Mend the cause and run again: only the failed ones are tried"
            " again."
        )
