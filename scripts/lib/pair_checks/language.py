"""The check of languages: what a text is written in, by the letters that follow one another in it
(py3langid: a table of a few megabytes and no neural network).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import cast

from lib.pair_checks.base import Check, LookedAt, texts_of

#: What is less certain, or of fewer words, is not told.
CERTAIN = 0.9
FEWEST_WORDS = 3
UNCLEAR = "unclear"
#: A text's beginning says what the whole is written in.
_BEGINNING = 300

Identify = Callable[[str], tuple[str, float]]


@cache
def load_identifier() -> Identify | None:
    """What tells a text's language and how certain that is; None where it is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return cast("Identify", identifier.classify)


class Languages:
    """Counts what answers are written in, and finds those in another language than the question."""

    def __init__(self, identify: Identify) -> None:
        self._identify = identify
        self.counts: Counter[str] = Counter()

    def of(self, text: str) -> str:
        """The language of a text as ISO 639-1 has it, or `UNCLEAR`."""
        if len(text.split()) < FEWEST_WORDS and text.isascii():
            return UNCLEAR
        language, certainty = self._identify(text[:_BEGINNING])
        return language if certainty >= CERTAIN else UNCLEAR

    def __call__(self, looked_at: LookedAt) -> Iterator[str]:
        """Answers in another language."""
        asked = self.of(looked_at.pair.question)
        for side, text in texts_of(looked_at.pair).items():
            answered = self.of(text)
            self.counts[answered] += 1
            if UNCLEAR not in (asked, answered) and asked != answered:
                yield f"{side}: {answered}, the question is {asked}"


def language_check(languages: Languages) -> Check:
    """The check."""
    return Check("language", "an answer in another language than the question", 0.02, languages)
