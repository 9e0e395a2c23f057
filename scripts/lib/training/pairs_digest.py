"""What a data set's files say, as far as training reads it. Nothing here imports torch."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from lib.data.controls import Control, is_exchanged
from lib.data.export_forms.trl_parquet import columns_of_pairs, text_of
from lib.errors import UserError
from lib.files import canonical_json


class PairsDigest(NamedTuple):
    """The digest of a data set's pairs, their number, and how many of them are exchanged."""

    digest: str
    pairs: int
    exchanged: int


def digest_pairs(
    files: Sequence[Path], control: Control | None = None, seed: int = 0
) -> PairsDigest:
    """The digest of the pairs in a data set's files.

    In a negative control (`control`, drawn with the training's `seed`) it is that of the pairs as
    they are trained on.

    Errors: UserError if a file is not a data set of this workflow, or there is no pair.
    """
    state, pairs, exchanged = sha256(), 0, 0
    for file in files:
        for pair in read_pairs(file):
            sides = [pair.chosen, pair.rejected]
            if control and is_exchanged(control, seed, pair.id):
                sides.reverse()
                exchanged += 1
            state.update(canonical_json([pair.images, pair.instruction, *sides]).encode())
            pairs += 1
    if not pairs:
        raise UserError(
            "The data set has no pair to train on. Lower `pairs.min_margin`, or give more prompts."
        )
    return PairsDigest(state.hexdigest(), pairs, exchanged)


class StoredPair(NamedTuple):
    """A pair of a data set, its images by the sha256 of their files."""

    images: list[str]
    instruction: str
    chosen: str
    rejected: str
    id: str


def read_pairs(file: Path) -> Iterator[StoredPair]:
    """The pairs of a parquet file. Errors: UserError if it is damaged, or lacks a column."""
    import pyarrow
    from pyarrow import parquet

    summary = file.parent.parent / "dataset.json"  # an output of merge_pairs, which `file` is not
    try:
        table = parquet.ParquetFile(file)
        names = columns_of_pairs(table.schema_arrow.names)
        columns = ["images", "id", *names.values()]
        if missing := set(columns) - set(table.schema_arrow.names):
            raise UserError(
                f"{file}: has no column {', '.join(sorted(missing))}. Delete {summary} and run"
                " again: merge_pairs makes it anew."
            )
        for batch in table.iter_batches(batch_size=64, columns=columns):
            for row in batch.to_pylist():
                images = [sha256(image["bytes"]).hexdigest() for image in row["images"]]
                texts = {name: text_of(row[column]) for name, column in names.items()}
                yield StoredPair(images, id=row["id"], **texts)
    except (pyarrow.ArrowException, OSError, TypeError, KeyError) as error:
        raise UserError(
            f"{file}: is damaged ({error}). Delete {summary} and run again: merge_pairs makes"
            " it anew."
        ) from error
