"""What a check is, and what it finds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lib.data.pair_forms.base import PreferencePair

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")
#: Of what is found, so many characters are shown.
SHOWN = 60


class PictureFacts(NamedTuple):
    """What looking at a picture says.

    problem  "missing", "unreadable" or "elsewhere" (an address on the web); empty where it is whole
    detail   the file, and what is wrong
    hash     its perceptual hash as 16 hex digits; empty where it cannot be read
    """

    problem: str
    detail: str
    hash: str


class LookedAt(NamedTuple):
    """A pair and its pictures; None where these were not to be looked at."""

    pair: PreferencePair
    pictures: tuple[PictureFacts, ...] | None


#: What is found in a pair, in words; nothing where nothing is.
Find = Callable[[LookedAt], Iterable[str]]


@dataclass(frozen=True)
class Check:
    """A check.

    name       as reports and configurations name it
    what       what it counts, as a line for people
    allowed    the share of pairs that may have it by default; None where it is only told
    find       looks at a pair; a check of all pairs together makes a new one for each set
    """

    name: str
    what: str
    allowed: float | None
    find: Find


class Finding(NamedTuple):
    """What a check found in a pair."""

    id: str
    where: str
    topic: str
    detail: str


def texts_of(pair: PreferencePair) -> Mapping[Side, str]:
    """Both answers by side."""
    return {"chosen": pair.chosen, "rejected": pair.rejected}


def shown(text: str) -> str:
    """The beginning of a text as a finding shows it."""
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")
