"""What a training's processes say to the rule's: events as lines of their output, and what stopped
one of them as a file.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import format_exception
from typing import Self

from pydantic import ConfigDict, TypeAdapter

from lib.blocks import Block
from lib.errors import UserError
from lib.files import write_json
from lib.jobs.memory import is_out_of_memory

LAST_LINES = 8
PREFIX = "train_dpo event: "


class Note(Block):
    """Something unusual, for the record."""

    note: str


class Begin(Block):
    """The model is loaded: updates done before, updates in all, pairs that are trained on."""

    begin: int
    steps: int
    pairs: int


class Update(Block):
    """An update is done: its number, updates in all, its loss and reward margin (may be NaN)."""

    model_config = ConfigDict(allow_inf_nan=True)

    step: int
    steps: int
    loss: float
    margin: float


class Asked(Block):
    """How often the first process asked the reference model, and how often that was not needed,
    since it was known what it says.
    """

    computed: int
    found: int


Event = Note | Begin | Update | Asked
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def tell(event: Event) -> None:
    """Reports to the rule's process."""
    print(f"{PREFIX}{json.dumps(event.model_dump())}", flush=True)


def event_in(line: str) -> Event | None:
    """The event that a line of a process's output reports, or None."""
    _, prefix, event = line.partition(PREFIX)
    return _EVENT.validate_python(json.loads(event)) if prefix else None


class WorkerError(Block):
    """What stopped one process. `is_user_error`: its message says all (UserError)."""

    rank: int
    type: str
    message: str
    is_user_error: bool
    out_of_memory: bool
    trace: list[str]

    @classmethod
    def of(cls, error: Exception, rank: int) -> Self:
        """What an exception says, and the last lines of its traceback."""
        trace = [line.rstrip() for line in format_exception(error)[-LAST_LINES:]]
        return cls(
            rank=rank,
            type=type(error).__name__,
            message=str(error),
            is_user_error=isinstance(error, UserError),
            out_of_memory=is_out_of_memory(error),
            trace="\n".join(trace).split("\n")[-LAST_LINES:],
        )

    def write(self, folder: Path) -> None:
        """Leaves it in a training's folder."""
        write_json(folder / f"error-{self.rank}.json", self.model_dump(mode="json"))


@contextmanager
def leaving_errors(folder: Path, rank: int) -> Iterator[None]:
    """Leaves what stops this process in the training's folder."""
    try:
        yield
    except Exception as error:
        WorkerError.of(error, rank).write(folder)
        raise


def error_files(folder: Path) -> list[Path]:
    """What stopped processes of a training, the first one first."""
    return sorted(folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)


def first_error(folder: Path) -> WorkerError | None:
    """What stopped the first of a training's processes, or None."""
    files = error_files(folder)
    return WorkerError.model_validate_json(files[0].read_text(encoding="utf-8")) if files else None
