"""Checks that hold a pair against those before it. Each is made anew for each set of pairs; it
keeps a digest of each pair, a few dozen bytes.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np

from lib.data.texts import visible
from lib.pair_checks.base import Check, LookedAt, shown

#: Pictures look alike whose hashes differ in no more of their 64 bits.
LOOK_ALIKE_BITS = 4


class FirstOf:
    """Where each content was first seen."""

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def see(self, looked_at: LookedAt, *content: str) -> str | None:
        """The pair that had this content before, by its id; None where this is the first."""
        key = _key(content)
        if (first := self._first.get(key)) is None:
            self._first[key] = looked_at.pair.id
        return first

    def had(self, *content: str) -> str | None:
        """The pair that had this content, without seeing it now."""
        return self._first.get(_key(content))


def _key(content: Iterable[str]) -> bytes:
    joined = "\0".join(content).encode("utf-8", "replace")
    return blake2b(joined, digest_size=16).digest()


def pictures_of(looked_at: LookedAt) -> str | None:
    """What a pair's pictures are known by: how they look, or else their names; None where neither
    is known.
    """
    hashes = [facts.hash for facts in looked_at.pictures or ()]
    names = [picture.name for picture in looked_at.pair.images]
    known = hashes if hashes and all(hashes) else names
    return "\0".join(known) if all(known) else None


class DuplicateIds:
    """Pairs that are called the same."""

    def __init__(self) -> None:
        self._ids = FirstOf()

    def __call__(self, looked_at: LookedAt) -> Iterator[str]:
        """A pair whose id was seen."""
        if self._ids.see(looked_at, looked_at.pair.id) is not None:
            yield f"at {looked_at.pair.where}"


class DuplicatePairs:
    """Pairs of the same picture, question and answers."""

    def __init__(self) -> None:
        self._pairs = FirstOf()

    def __call__(self, looked_at: LookedAt) -> Iterator[str]:
        """A pair that was seen."""
        pair, pictures = looked_at.pair, pictures_of(looked_at)
        if pictures is not None:
            texts = map(visible, (pair.question, pair.chosen, pair.rejected))
            if (first := self._pairs.see(looked_at, pictures, *texts)) is not None:
                yield f"as {first}"


class Contradictions:
    """Pairs whose chosen answer another pair of the same picture and question rejects."""

    def __init__(self) -> None:
        self._preferred = FirstOf()

    def __call__(self, looked_at: LookedAt) -> Iterator[str]:
        """A pair that was seen the other way round."""
        pair, pictures = looked_at.pair, pictures_of(looked_at)
        if pictures is None or pair.chosen == pair.rejected:
            return
        asked = (pictures, visible(pair.question))
        sides = (pair.chosen, pair.rejected)
        self._preferred.see(looked_at, *asked, *sides)
        if (first := self._preferred.had(*asked, *reversed(sides))) is not None:
            yield f"{first} has them the other way round"


class DuplicateQuestions:
    """Questions that are asked again of the same picture."""

    def __init__(self) -> None:
        self._questions = FirstOf()

    def __call__(self, looked_at: LookedAt) -> Iterator[str]:
        """A question that was seen."""
        pictures = pictures_of(looked_at)
        if pictures is not None:
            question = visible(looked_at.pair.question)
            if (first := self._questions.see(looked_at, pictures, question)) is not None:
                yield f"as {first}: {shown(question)}"


class LookAlikes:
    """Pictures of different names that look the same, by their perceptual hashes."""

    def __init__(self) -> None:
        self._hashes = np.zeros(1024, dtype=np.uint64)
        self._of: list[tuple[str, str]] = []

    def __call__(self, looked_at: LookedAt) -> Iterator[str]:
        """A picture whose like was seen."""
        pair = looked_at.pair
        for picture, facts in zip(pair.images, looked_at.pictures or (), strict=False):
            if not facts.hash:
                continue
            value = np.uint64(int(facts.hash, 16))
            bits = np.bitwise_count(self._hashes[: len(self._of)] ^ value)
            near = int(bits.argmin()) if len(bits) else -1
            if near >= 0 and bits[near] <= LOOK_ALIKE_BITS:
                name, other = self._of[near]
                if not (picture.name and picture.name == name):
                    yield f"as the picture of {other} ({bits[near]} of 64 bits differ)"
            else:
                self._keep(value, picture.name, pair.id)

    def _keep(self, value: np.uint64, name: str, pair_id: str) -> None:
        if len(self._of) == len(self._hashes):
            self._hashes = np.resize(self._hashes, 2 * len(self._hashes))
        self._hashes[len(self._of)] = value
        self._of.append((name, pair_id))


def checks_across() -> tuple[Check, ...]:
    """The checks for a set of pairs."""
    return (
        Check("duplicate id", "an id that a pair before has", 0.0, DuplicateIds()),
        Check("duplicate pair", "the same picture, question and answers", 0.0, DuplicatePairs()),
        Check("contradiction", "what another pair prefers the other way", 0.0, Contradictions()),
        Check(
            "duplicate question",
            "the same question to the same picture",
            None,
            DuplicateQuestions(),
        ),
        Check("look-alike pictures", "a picture that looks like one before", None, LookAlikes()),
    )
