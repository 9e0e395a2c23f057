"""The image files in a parquet file's rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def image_columns(schema: "pa.Schema") -> list[str]:
    """The columns of a parquet file that hold image files."""
    import pyarrow.types as types

    return [
        item.name
        for item in schema
        if types.is_struct(item.type) and "bytes" in {field.name for field in item.type}
    ]


def images_in_parquet(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """The image files in each row of a parquet file, with the row's number from 0."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    columns = image_columns(file.schema_arrow)
    number = 0
    for batch in file.iter_batches(batch_size=64, columns=columns) if columns else ():
        for row in batch.to_pylist():
            yield number, [image["bytes"] for image in row.values() if image and image["bytes"]]
            number += 1


def stored_pictures(value: Any) -> list[bytes | str]:
    """The files of the pictures in a row, or in one of its values, or their paths, as the library
    `datasets` stores them.
    """
    if isinstance(value, list):
        return [picture for each in value for picture in stored_pictures(each)]
    if not isinstance(value, dict):
        return []
    if value.keys() == {"bytes", "path"}:
        return [value["bytes"] or value["path"]]
    return []


def pictures_of_row(row: dict[str, Any]) -> list[bytes | str]:
    """The pictures in all values of a row, as `stored_pictures` has them."""
    return stored_pictures(list(row.values()))


def digest_of_pictures(pictures: Sequence[bytes | str]) -> str:
    """What tells the pictures of a row from those of others."""
    return sha256(repr(list(pictures)).encode()).hexdigest()


@dataclass(frozen=True)
class RowGroup:
    """A group of rows of a parquet file."""

    file: Path
    number: int
    rows: int


def row_groups(file: Path) -> list[RowGroup]:
    """All groups of rows of a file."""
    from pyarrow.parquet import ParquetFile

    about = ParquetFile(file).metadata
    numbers = range(about.num_row_groups)
    return [RowGroup(file, number, about.row_group(number).num_rows) for number in numbers]


def read_group(group: RowGroup, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a group."""
    from pyarrow.parquet import ParquetFile

    rows: list[dict[str, Any]] = (
        ParquetFile(group.file).read_row_group(group.number, columns).to_pylist()
    )
    return rows


# Those of a group are asked for one by one.
@lru_cache(maxsize=1)
def pictures_in(group: RowGroup) -> list[list[bytes | str]]:
    """The pictures of each row of a group."""
    return [pictures_of_row(row) for row in read_group(group)]


@dataclass(frozen=True)
class PictureInGroup:
    """The first picture of a row, whose file is there: the row's number in its group, and the
    picture's sha256 (hex).
    """

    group: RowGroup
    row: int
    sha256: str

    def content(self) -> bytes:
        """The picture."""
        found = pictures_in(self.group)[self.row][0]
        assert isinstance(found, bytes)
        return found
