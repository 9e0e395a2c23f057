"""Which responses can be part of a pair, and why the others cannot."""

import re
from collections import Counter
from collections.abc import Sequence
from operator import eq

LONGEST_REPEATED_PHRASE = 12
SHORTEST_REPEATED_SENTENCE = 4


def repeats(words: Sequence[str], times: int) -> bool:
    """Whether a phrase of 1 to 12 words stands more than `times` times in a row."""
    if len(words) - len(set(words)) < times:
        return False  # each further time would add a word that is there already
    for length in range(1, min(LONGEST_REPEATED_PHRASE, len(words) // (times + 1)) + 1):
        is_as_before = bytes(map(eq, words[length:], words))
        if b"\1" * (length * times) in is_as_before:
            return True
    return False


def repeats_sentences(text: str, times: int) -> bool:
    """Whether a sentence of 4 words or more stands more than `times` times anywhere. Digits are
    ignored when comparing sentences.

    Models caught in a loop often number its turns ("16. Dry brushing: ... 17. Paint wash: ... 18.
    Dry brushing: ...").
    """
    pieces = re.split(r"[.!?。！？\n]", text)
    if len(pieces) <= times:
        return False
    sentences = Counter(tuple(re.findall(r"[^\W\d]+", piece)) for piece in pieces)
    return any(
        count > times
        for sentence, count in sentences.items()
        if len(sentence) >= SHORTEST_REPEATED_SENTENCE
    )


def invalid_reason(text: str, finish_reason: str, max_repeats: int) -> str | None:
    """Why a response cannot be ranked: "empty", "repeating" or "truncated"; None for a valid one.

    `finish_reason`: "stop" where the model ended its answer, "length" where the limit did.
    """
    folded = text.casefold()
    words = re.findall(r"\w+", folded)
    if not words:
        return "empty"
    if repeats(words, max_repeats) or repeats_sentences(folded, max_repeats):
        return "repeating"
    if finish_reason != "stop":
        return "truncated"
    return None
