"""The pictures that questions of lmms-eval's tasks are about, in the parquet files of its data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from lib import weights
from lib.data.parquet_images import (
    PictureInGroup,
    RowGroup,
    digest_of_pictures,
    pictures_in,
    row_groups,
)


def data_files(local: Sequence[str], on_hub: Mapping[str, str]) -> list[list[Path]]:
    """The files of a task's data, those of a split together, in its order. `on_hub`: the commit by
    the name of the hub's data set, where no files are `local`; nothing where it is not in the
    cache.
    """
    if local:
        return [[Path(file)] for file in local]
    files: list[Path] = []
    for name, commit in on_hub.items():
        if folder := weights.cached_folder(name, commit, "dataset"):
            files += sorted(folder.rglob("*.parquet"))
    return [list(split) for _, split in groupby(files, key=_split_of)]


def _split_of(file: Path) -> tuple[Path, str]:
    """The folder and the split of a file that the hub names `test-00000-of-00003.parquet`."""
    return file.parent, file.stem.split("-")[0]


def task_pictures(
    splits: Sequence[Sequence[Path]], wanted: Mapping[int, str]
) -> dict[int, PictureInGroup]:
    """The pictures of rows, the first where a row has several. `wanted`: by the row's number in its
    split, what its pictures are known by (`digest_of_pictures`), which is of one split alone; a
    row is left out where none has it.
    """
    import pyarrow

    found: dict[int, PictureInGroup] = {}
    for files in splits:
        # Of files that are gone or damaged there are none: answers can be shown without them.
        with suppress(pyarrow.ArrowException, OSError):
            for number, group, row in _places(files, sorted(wanted)):
                pictures = pictures_in(group)[row]
                is_it = digest_of_pictures(pictures) == wanted[number]
                if is_it and isinstance(first := pictures[0], bytes):
                    found[number] = PictureInGroup(group, row, sha256(first).hexdigest())
    return found


def _places(files: Sequence[Path], numbers: Sequence[int]) -> Iterator[tuple[int, RowGroup, int]]:
    """The group of each of these rows of a split, and the row's number there."""
    first = 0
    for group in (group for file in files for group in row_groups(file)):
        for number in numbers:
            if first <= number < first + group.rows:
                yield number, group, number - first
        first += group.rows
