"""What ends a job with a message, and what fails one item of it."""

from urllib.parse import urlsplit


class UserError(Exception):
    """A mistake outside the code: its message says what is wrong, where (file, line, key) and how
    to mend it.

    Whoever catches it at the top prints the message alone, without a traceback.
    """


class ItemError(Exception):
    """Why one item could not be computed; it is recorded as failed and tried again on the next
    run.
    """


class OutOfReachError(UserError):
    """A server on another machine cannot be reached from this one."""


def cannot_be_reached(url: str, message: str) -> UserError:
    """The error for a server that cannot be reached: an OutOfReachError, unless the server would be
    on this machine, where it is known to be down.
    """
    here = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    return UserError(message) if here else OutOfReachError(message)
