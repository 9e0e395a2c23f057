"""What ends a job with a message, and what fails one item of it."""

import re
from urllib.parse import urlsplit

#: What a terminal would obey, or no file can hold: control characters but for tab and line feed,
#: marks that turn the direction of writing, separators of lines and paragraphs, lone surrogates.
_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text as a terminal, a log or a record may hold it: control characters, lone surrogates and
    the like stand as escapes (`\x1b`). Texts come from servers, models and files of others.
    """
    return _RAW.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _PrintableError(Exception):
    """An error whose text is shown to people."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class UserError(_PrintableError):
    """A mistake outside the code: its message says what is wrong, where (file, line, key) and how
    to mend it.

    Whoever catches it at the top prints the message alone, without a traceback.
    """


class ItemError(_PrintableError):
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
