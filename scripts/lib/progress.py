"""How far a job is, in plain lines of its log."""

import logging
import time

from lib.errors import printable

SECONDS_BETWEEN_PROGRESS_LINES = 10
log = logging.getLogger("workflow")


def clock() -> str:
    """The time of day, `HH:MM:SS`."""
    return time.strftime("%H:%M:%S")


class PrintableFormatter(logging.Formatter):
    """Lines of a log that no server, model or file can make a terminal obey."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging's own, in printable characters."""
        return printable(super().format(record))


def duration(seconds: float) -> str:
    """A time in words, e.g. `3 min 20 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
