"""One job: its shard's items, what of them is done already, and the record of what it did.

A stage's script builds its items, calls `ShardJob.run` with a function that loads the model and one
that computes a batch, and publishes the shard. Only items whose key is not in the journal are
computed, and the model is loaded only if there are any.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from lib.errors import UserError
from lib.files import FULL_DISK, READ_ONLY, digest, mendable_storage_errors, write_json, write_jsonl
from lib.journal import Journal
from lib.loading import quick_imports

SECONDS_BETWEEN_PROGRESS_LINES = 10
log = logging.getLogger("workflow")

T = TypeVar("T")
R = TypeVar("R")
Model = TypeVar("Model")


class ItemError(Exception):
    """Why one item could not be computed; it is recorded as failed and tried again on the next run."""


@dataclass(frozen=True)
class Item:
    """The unit of work. `key` is a hash of everything that determines the result; `inputs` is
    whatever the stage computes it from.
    """

    id: str
    key: str
    inputs: Any = None


@dataclass(frozen=True)
class Outcome:
    """What became of an item: its result, or the reason why there is none."""

    id: str
    result: dict[str, Any] | None = None
    reason: str | None = None


@dataclass
class _InFlight:
    """An item whose result is there, or whose files are being written by another thread."""

    item: Item
    result: Any
    seconds: float
    settled: threading.Event = field(default_factory=threading.Event)
    problem: Exception | None = None


@dataclass
class Record:
    """What one job did; written to `results/<run>/work/<rule>/<job>.json` and shown as a table at
    the end of a run.
    """

    rule: str
    job: str
    retry: str
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )
    finished: str = ""
    items: int = 0
    computed: int = 0
    reused: int = 0
    failed: int = 0
    load_seconds: float = 0.0
    compute_seconds: float = 0.0
    wall_seconds: float = 0.0
    models: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _is_out_of_memory(error: BaseException) -> bool:
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
    )


def halving(
    batch: Sequence[T], compute: Callable[[Sequence[T]], Sequence[R]], note: Callable[[str], None]
) -> list[R]:
    """`compute(batch)`, with the batch halved for as long as the device's memory does not suffice;
    each halving is noted.

    Results of different batch sizes can differ in their lowest bits, which is why it is put on
    record.
    """
    try:
        return list(compute(batch))
    except Exception as error:
        if not _is_out_of_memory(error) or len(batch) == 1:
            raise
    half = (len(batch) + 1) // 2
    note(f"out of memory: batch of {len(batch)} halved to {half}")
    free_device_memory()
    return halving(batch[:half], compute, note) + halving(batch[half:], compute, note)


def free_device_memory() -> None:
    """Gives memory that torch caches back to the device, where torch is loaded at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


class ShardJob:
    """A job of one rule on one shard (or on whatever else the rule's wildcards name)."""

    def __init__(self, snakemake: Any, version: int) -> None:
        """`version`: the stage's version, part of every key. Raise it when a change of code changes
        results.
        """
        self.rule: str = snakemake.rule
        self.version = version
        self.name = "/".join(snakemake.wildcards) or self.rule
        self.settings: dict[str, Any] = snakemake.params.settings
        common = snakemake.params.common
        self.root = Path(common["root"])
        self.device: str = common["device"]
        self.seed: int = common["seed"]
        self.max_failed_fraction: float = common["max_failed_fraction"]
        self.work = self.root / "work" / self.rule
        self.record = Record(self.rule, self.name, retry=snakemake.params.get("retry", ""))
        self._began = time.monotonic()
        self._stop_signal: int | None = None

    def key(self, **inputs: Any) -> str:
        """The key of an item: a hash of the stage, its version, the device and `inputs`, which must
        hold all that determines the result.
        """
        return digest({"rule": self.rule, "version": self.version, "device": self.device, **inputs})

    def note(self, text: str) -> None:
        """Puts something unusual on record (a halved batch, a dropped journal line), once, and into
        the log.
        """
        log.warning("%s %s: %s", self.rule, self.name, text)
        if text not in self.record.notes:
            self.record.notes.append(text)

    @contextmanager
    def _finish_batch_on_sigterm(self) -> Iterator[None]:
        def remember(number: int, frame: FrameType | None) -> None:
            self._stop_signal = number
            log.warning(
                "%s %s: asked to stop (signal %d); finishing the batch",
                self.rule,
                self.name,
                number,
            )

        before = {
            number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGUSR1)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(
        self,
        items: Sequence[Item],
        load: Callable[[], Model],
        compute: Callable[
            [Model, Sequence[Item]], Sequence[dict[str, Any] | Future[dict[str, Any]] | ItemError]
        ],
        batch_size: int = 1,
        still_valid: Callable[[Item, dict[str, Any]], bool] = lambda item, result: True,
        check: Callable[[Item], None] = lambda item: None,
    ) -> dict[str, Outcome]:
        """The outcome of every item by id, computing only those that the journal does not hold.

        `load` is called once, and only if something is to be computed. `compute` gives one result
        an item, in order; a result may be a Future (files still being written), and an ItemError in
        place of a result fails that item. Whatever `compute` raises fails its items, one by one if
        the batch had several, except a UserError or a full disk, which stops the job. `check` looks
        at each item that is to be computed, before the model is loaded; a UserError from it stops
        the job. `still_valid` says whether a finished item's files are still what the journal says;
        if not, the item is computed again.
        """
        self.record.items += len(items)
        path = self.work / f"{self.name}.journal.jsonl"
        with Journal(path, self.rule) as journal, self._finish_batch_on_sigterm():
            if journal.dropped_lines:
                self.note(
                    f"{journal.dropped_lines} damaged line(s) of {path} dropped; their items are"
                    " computed again"
                )
            missing = []
            outcomes: dict[str, Outcome] = {}
            for item in items:
                result = journal.finished(item.key)
                if result is not None and still_valid(item, result):
                    outcomes[item.id] = Outcome(item.id, result)
                else:
                    missing.append(item)
            self.record.reused += len(outcomes)
            for item in missing:
                check(item)
            if missing:
                started = time.monotonic()
                model = self._loaded(load)
                self.record.load_seconds += time.monotonic() - started
                self._compute(missing, model, compute, batch_size, journal, outcomes)
        self._refuse_too_many_failures(outcomes)
        return outcomes

    def _loaded(self, load: Callable[[], Model]) -> Model:
        try:
            with quick_imports():
                return load()
        except Exception as error:
            if isinstance(error, UserError) or not (
                isinstance(error, OSError | ValueError) or type(error).__name__ == "SafetensorError"
            ):
                raise
            names = ", ".join(self.record.models) or "the model"
            raise UserError(
                f"{names}: cannot be loaded ({type(error).__name__}: {error}). Correct the model in"
                " the configuration, or fetch it anew, and run again; what is finished is kept."
            ) from error

    def _compute(
        self,
        missing: Sequence[Item],
        model: Any,
        compute: Callable[[Any, Sequence[Item]], Sequence[Any]],
        batch_size: int,
        journal: Journal,
        outcomes: dict[str, Outcome],
    ) -> None:
        started = last_line = time.monotonic()
        in_flight: list[_InFlight] = []

        def settle(entry: _InFlight) -> None:
            try:
                outcomes[entry.item.id] = self._settled(entry, journal)
            except Exception as error:
                entry.problem = error
            finally:
                entry.settled.set()

        def settle_later(entry: _InFlight, future: Future[Any]) -> None:
            settle(entry)

        def wait_for_files() -> None:
            for entry in in_flight:
                entry.settled.wait()
                if entry.problem:
                    raise entry.problem
            in_flight.clear()

        for position in range(0, len(missing), batch_size):
            if self._stop_signal:
                break
            batch = missing[position : position + batch_size]
            journal.begin([item.key for item in batch])
            batch_started = time.monotonic()
            results = self._results_of(batch, model, compute)
            seconds = (time.monotonic() - batch_started) / len(batch)
            wait_for_files()
            for item, result in zip(batch, results, strict=True):
                entry = _InFlight(item, result, seconds)
                in_flight.append(entry)
                if isinstance(result, Future):
                    result.add_done_callback(partial(settle_later, entry))
                else:
                    settle(entry)
            now = time.monotonic()
            done = position + len(batch)
            if now - last_line >= SECONDS_BETWEEN_PROGRESS_LINES or done == len(missing):
                left = (now - started) / done * (len(missing) - done)
                log.info(
                    "%s %s: %d of %d items, %s left",
                    self.rule,
                    self.name,
                    done,
                    len(missing),
                    duration(left),
                )
                last_line = now
        wait_for_files()
        self.record.compute_seconds += time.monotonic() - started
        if self._stop_signal:
            log.warning(
                "%s %s: stopped after the batch; the rest is computed on the next run",
                self.rule,
                self.name,
            )
            raise SystemExit(128 + self._stop_signal)

    def _results_of(
        self, batch: Sequence[Item], model: Any, compute: Callable[..., Sequence[Any]]
    ) -> Sequence[Any]:
        try:
            return halving(batch, lambda part: compute(model, part), self.note)
        except UserError:
            raise
        except Exception as error:
            self._stop_if_storage_failed(error)
            if len(batch) == 1:
                return [error]
        return [self._results_of([item], model, compute)[0] for item in batch]

    def _settled(self, entry: "_InFlight", journal: Journal) -> Outcome:
        item, result = entry.item, entry.result
        if isinstance(result, Future):
            result = result.exception() or result.result()
        if isinstance(result, BaseException):
            self._stop_if_storage_failed(result)
            if not isinstance(result, ItemError):
                log.warning("".join(traceback.format_exception(result)))
            reason = (
                str(result)
                if isinstance(result, ItemError)
                else f"{type(result).__name__}: {result}"
            )
            log.warning("%s %s: %s failed: %s", self.rule, self.name, item.id, reason)
            journal.add(item.key, item.id, seconds=entry.seconds, reason=reason)
            self.record.failed += 1
            return Outcome(item.id, reason=reason)
        journal.add(item.key, item.id, seconds=entry.seconds, result=result)
        self.record.computed += 1
        return Outcome(item.id, result)

    def _stop_if_storage_failed(self, error: BaseException) -> None:
        if isinstance(error, UserError):
            raise error
        if isinstance(error, OSError) and error.errno in (*FULL_DISK, *READ_ONLY):
            with mendable_storage_errors(Path(error.filename or self.work)):
                raise error

    def _refuse_too_many_failures(self, outcomes: dict[str, Outcome]) -> None:
        failures = [outcome for outcome in outcomes.values() if outcome.reason is not None]
        if outcomes and len(failures) / len(outcomes) > self.max_failed_fraction:
            reasons = "\n".join(f"  {outcome.id}: {outcome.reason}" for outcome in failures[:5])
            raise UserError(
                f"{self.rule} {self.name}: {len(failures)} of {len(outcomes)} items failed, over"
                f" `max_failed_fraction` ({self.max_failed_fraction}). The first"
                f" reasons:\n{reasons}\nFinished items are kept. Mend the cause and run again: only"
                " the failed ones are tried again."
            )

    def publish(self, path: str, rows: Sequence[dict[str, Any]]) -> None:
        """Writes the shard's file (one canonical JSON line a row, in the given order) and the job's
        record.
        """
        write_jsonl(Path(path), rows)
        self.write_record()

    def write_record(self) -> None:
        """Writes what this job did. Its times are of this machine and day, which is why it stands
        under `work/`.
        """
        self.record.finished = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.record.wall_seconds = time.monotonic() - self._began
        values = {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in vars(self.record).items()
        }
        write_json(self.work / f"{self.name}.json", values)
        log.info(
            "%s %s: %d computed, %d reused, %d failed; loading %.1f s, computing %.1f s",
            self.rule,
            self.name,
            self.record.computed,
            self.record.reused,
            self.record.failed,
            self.record.load_seconds,
            self.record.compute_seconds,
        )


def duration(seconds: float) -> str:
    """A time in words, e.g. `3 min 20 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {seconds} s"
        if minutes
        else f"{seconds} s"
    )


def run_script(main: Callable[[Any], None]) -> None:
    """Runs a rule's `main(snakemake)` with its log set up; a UserError ends it with its message
    alone and exit code 1.

    Snakemake puts the object `snakemake` (input, output, params, ...) before a script's first line,
    into the module `__main__`.
    """
    snakemake = vars(sys.modules["__main__"]).get("snakemake")
    if snakemake is None:
        sys.exit(
            f"{sys.argv[0]}: this is a rule's script; Snakemake runs it. See README.md for the"
            " command."
        )
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if snakemake.log:
        path = Path(str(snakemake.log[0]))
        try:
            with mendable_storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8"))
        except UserError as error:
            sys.exit(f"Error in {snakemake.rule}: {error}")
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
    )
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        main(snakemake)
    except UserError as error:
        log.error("Error in %s: %s", snakemake.rule, error)
        sys.exit(1)
    except Exception:
        # A job's output may be far away on a cluster; its log is what the user is shown.
        log.exception("Error in %s: a mistake of the program, not of yours", snakemake.rule)
        sys.exit(1)
