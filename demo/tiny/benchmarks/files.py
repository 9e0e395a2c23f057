"""The files of benchmarks: parquet, JSON and JSON lines, and writing them where they changed."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: The files of a benchmark: their bytes by path below the benchmark's folder.
Files = dict[str, bytes]


def json_bytes(value: Any) -> bytes:
    """A JSON document."""
    return (json.dumps(value, indent=1) + "\n").encode()


def jsonl_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def column_kinds() -> dict[str, tuple[Any, dict[str, Any]]]:
    """What a column of each kind is in a parquet file, and what `datasets` calls it."""
    import pyarrow

    human = {"answer": "string", "answer_confidence": "string", "answer_id": "int64"}
    answer = [(name, pyarrow.type_for_alias(kind)) for name, kind in human.items()]
    answer_feature = {name: {"dtype": kind, "_type": "Value"} for name, kind in human.items()}
    text = {"dtype": "string", "_type": "Value"}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    return {
        "string": (pyarrow.string(), text),
        "int64": (pyarrow.int64(), {"dtype": "int64", "_type": "Value"}),
        "image": (image, {"_type": "Image"}),
        "strings": (pyarrow.list_(pyarrow.string()), {"feature": text, "_type": "List"}),
        "answers": (
            pyarrow.list_(pyarrow.struct(answer)),
            {"feature": answer_feature, "_type": "List"},
        ),
    }


def parquet_bytes(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> bytes:
    """Rows as a parquet file whose images `datasets` decodes.

    Args:
        rows: values by column; an image is a mapping with its `bytes` and its `path`.
        columns: kind of each column, `string`, `int64`, `image`, `strings` or VQA's `answers`, in
            order.
    """
    import pyarrow
    import pyarrow.parquet

    kinds = column_kinds()
    features = {name: kinds[kind][1] for name, kind in columns.items()}
    schema = pyarrow.schema(
        [(name, kinds[kind][0]) for name, kind in columns.items()],
        # Where `datasets` looks for the kinds of the columns; without it an image is a mapping.
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), buffer)
    return buffer.getvalue()


def write_if_changed(path: Path, content: bytes) -> str:
    """Writes a file under a temporary name and renames it, unless it is already what it should be.

    Returns:
        `there` or `built`.
    """
    if path.is_file() and path.read_bytes() == content:
        return "there"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
    return "built"
