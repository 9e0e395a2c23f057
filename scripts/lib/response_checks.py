"""Which responses can be part of a pair, and why the others cannot."""

import re
from collections.abc import Sequence

LONGEST_REPEATED_PHRASE = 12


def repeats(words: Sequence[str], times: int) -> bool:
    """Whether a phrase of 1 to 12 words stands more than `times` times in a row."""
    for length in range(1, LONGEST_REPEATED_PHRASE + 1):
        run = 0
        for position in range(length, len(words)):
            run = run + 1 if words[position] == words[position - length] else 0
            if run >= length * times:
                return True
    return False


def invalid_reason(text: str, finish_reason: str, max_repeats: int) -> str | None:
    """Why a response cannot be ranked: "empty", "truncated" or "repeating"; None for a valid one.

    `finish_reason`: "stop" where the model ended its answer, "length" where the limit did.
    """
    words = re.findall(r"\w+", text.casefold())
    if not words:
        return "empty"
    if repeats(words, max_repeats):
        return "repeating"
    if finish_reason != "stop":
        return "truncated"
    return None
