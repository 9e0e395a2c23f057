"""The image files in a parquet file's rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
