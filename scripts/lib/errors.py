"""What ends a job with a message, and what fails one item of it."""


class UserError(Exception):
    """A mistake outside the code: its message says what is wrong, where (file, line, key) and how
    to mend it.

    Whoever catches it at the top prints the message alone, without a traceback.
    """


class ItemError(Exception):
    """Why one item could not be computed; it is recorded as failed and tried again on the next
    run.
    """
