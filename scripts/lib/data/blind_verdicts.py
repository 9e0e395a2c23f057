"""What people said in the report's blind mode: which of two pictures, or of two answers, is better.
They saw no names, and the sides in an order drawn at random.
"""

from collections.abc import Iterable, Mapping

from typing_extensions import TypedDict

from lib.data.prompts import seed_of
from lib.data.review_tables import name_of_seen
from lib.data.rows import ImageRankingRow, ImagesRow

#: The columns of a file, as the report's page writes them (lib/report/page/blind.js).
VERDICT_COLUMNS = (
    *("run", "kind", "prompt_id", "shown", "first", "second", "verdict", "reviewer", "judged_at"),
)
PICTURES, ANSWERS = "pictures", "answers"
KINDS = (PICTURES, ANSWERS)
TIE = "tie"
#: The sides of a pair, as verdicts on answers name them.
CHOSEN, REJECTED = "chosen", "rejected"


class BlindVerdict(TypedDict):
    """A verdict.

    kind     `PICTURES` or `ANSWERS`
    shown    what was shown is known by: of pictures `pictures_name`, of answers `pair_name`
    verdict  the better one's name: of pictures the scorer that picks it, of answers `CHOSEN` or
             `REJECTED` as the response reward has them; or `TIE`
    """

    kind: str
    prompt_id: str
    shown: str
    verdict: str
    reviewer: str


class ShownPictures(TypedDict):
    """Two scorers' picks of a prompt: the scorers, the candidates' places, and what the two are
    known by.
    """

    names: list[str]
    candidates: list[int]
    shown: str


def pictures_name(digests: Iterable[str]) -> str:
    """What two pictures are known by in verdicts, whichever is shown first. `digests`: sha256
    (hex).
    """
    return name_of_seen(sorted(digests))


def shown_pictures(
    images: ImagesRow, rankings: Mapping[str, ImageRankingRow], names: Iterable[str]
) -> ShownPictures | None:
    """The picks of two scorers where they differ; None where they do not, or one has none."""
    wanted = list(names)
    picks = [rankings[name]["winner"] for name in wanted if name in rankings]
    if len(picks) < len(wanted) or len(set(picks)) < 2:
        return None
    digests = (images["candidates"][pick]["sha256"] for pick in picks)
    return {"names": wanted, "candidates": picks, "shown": pictures_name(digests)}


def comparison_place(name: str, seed: int) -> tuple[int, str]:
    """The place of a prompt among those whose picks are compared: that of rule compare_picks."""
    return seed_of(seed, "comparison", name), name


def is_turned(kind: str, name: str, seed: int) -> bool:
    """Whether the second of the two is shown first."""
    return seed_of(seed, "blind", kind, name) % 2 == 1
