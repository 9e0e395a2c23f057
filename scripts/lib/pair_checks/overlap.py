"""The check of what pairs and benchmarks have in common."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from lib.contamination import Index, Overlap
from lib.data.evaluation_files import IndexedQuestion
from lib.errors import UserError
from lib.files import read_jsonl
from lib.pair_checks.base import Check, LookedAt, shown


class Overlaps:
    """Finds the benchmarks' questions and pictures in pairs."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __call__(self, looked_at: LookedAt) -> Iterator[str]:
        """What a pair has in common with them."""
        found = self._index.of_text("question", looked_at.pair.question)
        for facts in looked_at.pictures or ():
            found += self._index.of_image(facts.hash) if facts.hash else []
        yield from map(_told, found)


def _told(overlap: Overlap) -> str:
    what = shown(overlap.text) if overlap.text else f"{overlap.value:.0f} bits differ"
    return f"{overlap.of}: {overlap.benchmark} {overlap.question} ({overlap.measure}, {what})"


def read_index(path: Path) -> Index:
    """The index of a run's benchmarks, `contamination/benchmarks.jsonl`. Errors: UserError."""
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file. It is `contamination/benchmarks.jsonl` of a run with"
            " `evaluation.contamination.check: true`."
        )
    rows = read_jsonl(path)
    if lacking := [key for key in IndexedQuestion.__annotations__ if rows and key not in rows[0]]:
        raise UserError(
            f"{path}, line 1: has no `{lacking[0]}`. It is to be `contamination/benchmarks.jsonl`"
            " of a run."
        )
    questions = cast("list[IndexedQuestion]", rows)
    return Index(questions, ngram=13, short_similarity=0.8, min_words=5, image_distance=4)


def overlap_check(index: Index) -> Check:
    """The check."""
    return Check("benchmark overlap", "a benchmark's question or picture", 0.0, Overlaps(index))
