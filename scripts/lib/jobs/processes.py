"""Processes that a job starts, and signals that it is sent."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent dies (Linux; elsewhere nothing).

    A process with a session of its own (torchrun's workers, a harness) would otherwise run on,
    unseen, after the run's process group was killed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def close_standard_input() -> None:
    """Has this process, and those that it starts, read nothing: what a library asks on the terminal
    is not answered by whatever stands there.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


@contextmanager
def calling_on_stop_signals(remember: Callable[[int], object]) -> Iterator[None]:
    """Has SIGTERM and SIGUSR1, by which schedulers announce the end, call `remember(number)`."""

    def handle(number: int, frame: FrameType | None) -> None:
        remember(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
