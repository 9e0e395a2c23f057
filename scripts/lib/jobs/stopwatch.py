"""The seconds that a job takes, where several take turns in a process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from its making on, until it is paused."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = time.monotonic()

    def seconds(self) -> float:
        """The seconds that it ran."""
        return self._spent + (0.0 if self._since is None else time.monotonic() - self._since)

    def pause(self) -> None:
        """Stops it until `running`."""
        self._spent, self._since = self.seconds(), None

    def count(self, seconds: float) -> None:
        """Counts seconds that were measured otherwise, if it is paused."""
        if self._since is None:
            self._spent += seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Has it run; afterwards it runs or is paused as before."""
        if self._since is not None:
            yield
            return
        self._since = time.monotonic()
        try:
            yield
        finally:
            self.pause()
