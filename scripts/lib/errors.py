"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake outside the code: its message says what is wrong, where (file, line, key) and how
    to mend it.

    Whoever catches it at the top prints the message alone, without a traceback.
    """
