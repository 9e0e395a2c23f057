"""Which of the prompts that an LLM proposes are taken: well-formed ones, unlike those that are
there.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

from lib.data.texts import SPECIAL_TOKEN, visible


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The word 3-shingles of a text, in lower case and without punctuation; a shorter text is one
    shingle.
    """
    words = re.findall(r"\w+", text.casefold())
    return frozenset(tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2)))


def jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    """The share of what two sets have in common in all that they have; 1 for two empty ones."""
    return len(one & other) / len(one | other) if one or other else 1.0


class Selection:
    """Accepts proposals that are well-formed and unlike everything accepted or present before;
    `dropped` counts the others by reason.
    """

    def __init__(
        self,
        present: Iterable[str],
        min_words: int,
        max_words: int,
        max_characters: int,
        max_similarity: float,
    ) -> None:
        self.min_words, self.max_words, self.max_characters = min_words, max_words, max_characters
        self.max_similarity = max_similarity
        self.accepted: list[str] = []
        self.dropped: Counter[str] = Counter()
        self._seen: list[frozenset[tuple[str, ...]]] = []
        self._with: dict[tuple[str, ...], list[int]] = {}
        self._looks: set[str] = set()
        for text in present:
            self._remember(text)

    def _remember(self, text: str) -> None:
        own = shingles(visible(text))
        for shingle in own:
            self._with.setdefault(shingle, []).append(len(self._seen))
        self._seen.append(own)
        self._looks |= _looks_of(text)

    def problem_with(self, text: str) -> str | None:
        """Why a proposal is dropped; None for a good one."""
        words = len(text.split())
        if not self.min_words <= words <= self.max_words:
            return f"not {self.min_words} to {self.max_words} words"
        if len(text) > self.max_characters:
            return f"over {self.max_characters} characters"
        if SPECIAL_TOKEN.search(text) or any(
            unicodedata.category(character)[0] == "C" for character in text
        ):
            return "special token or control character"
        if _looks_of(text) & self._looks:
            return "the same as a prompt"
        if self._is_like_one_before(shingles(visible(text))):
            return "too similar to a prompt"
        return None

    def _is_like_one_before(self, own: frozenset[tuple[str, ...]]) -> bool:
        """Whether a text has as much in common with one that was seen as is too much. Texts without
        a common shingle have nothing in common.
        """
        alike = {number for shingle in own for number in self._with.get(shingle, ())}
        if self.max_similarity == 0:
            return bool(self._seen)
        return any(jaccard(own, self._seen[number]) >= self.max_similarity for number in alike)

    def offer(self, text: str) -> bool:
        """Accepts a proposal, or counts why not."""
        if problem := self.problem_with(text):
            self.dropped[problem] += 1
            return False
        self.accepted.append(text)
        self._remember(text)
        return True


def _looks_of(text: str) -> set[str]:
    """By what a text is known again: what can be seen of it, and its words alone."""
    seen = visible(text)
    words = " ".join(re.findall(r"\w+", seen.casefold()))
    return {seen, words} if words else {seen}
