"""How far a job is, in plain lines of its log."""

import logging
import time

SECONDS_BETWEEN_PROGRESS_LINES = 10
log = logging.getLogger("workflow")


def clock() -> str:
    """The time of day, `HH:MM:SS`."""
    return time.strftime("%H:%M:%S")


def duration(seconds: float) -> str:
    """A time in words, e.g. `3 min 20 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
