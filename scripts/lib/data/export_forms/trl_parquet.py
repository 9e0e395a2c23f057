"""Parquet files as TRL reads them: `prompt`, `chosen` and `rejected` are messages, `images` the
pictures. `datasets` loads them by their folder.

The types of the columns are written into each file in the words that every version of `datasets`
reads: `List`, which version 4 brought, stops the versions before it, while `Sequence` and a list of
one are read by all.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from lib.data.data_sets import DataSetPair, Split
from lib.data.export_forms.base import Add, Contents
from lib.data.export_forms.columns import PlainColumns, plain_columns

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_FILE = 1000
#: A group of rows is written, and read, at once: it ends after so many rows or bytes of pictures.
ROWS_PER_GROUP = 100
BYTES_PER_GROUP = 64_000_000


class Part(TypedDict):
    """A part of a message: the place of the picture, or a text."""

    type: str
    text: str | None


class Message(TypedDict):
    """What one side says."""

    role: str
    content: list[Part]


class ImageFile(TypedDict):
    """A picture as `datasets` stores it."""

    bytes: bytes
    path: str


class TrainedRow(TypedDict):
    """A pair as TRL reads it, and what it is called."""

    id: str
    images: list[ImageFile]
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


class TrlRow(TrainedRow, PlainColumns):
    """... and what else is known of it."""


class TrlParquet:
    """A file for each thousand pairs of a split, `data/<split>-<number>-of-<files>.parquet`."""

    NAME: ClassVar[str] = "Parquet"
    FILES: ClassVar[tuple[str, ...]] = ()
    USE: ClassVar[str] = (
        '`data/*.parquet`: `load_dataset("<this folder>")`; TRL\'s `DPOTrainer` takes it as it is'
    )

    @classmethod
    def is_for(cls, contents: Contents) -> bool:
        """Every data set has it."""
        return True

    @classmethod
    @contextmanager
    def write(cls, folder: Path, contents: Contents) -> Iterator[Add]:
        """Writes the files one after the other."""
        (folder / "data").mkdir()
        with ExitStack() as stack:
            files = {
                split: stack.enter_context(split_files(folder / "data", split, pairs))
                for split, pairs in contents.splits.items()
            }
            yield lambda split, pair: files[split].add(row_of(pair))


@contextmanager
def split_files(folder: Path, split: Split, pairs: int) -> "Iterator[ParquetFiles]":
    """Gives what takes the rows of a split; what is left of them is written at the end."""
    files = ParquetFiles(folder, split, pairs)
    yield files
    files.close()


class ParquetFiles:
    """The files of a split, of which one is open."""

    def __init__(self, folder: Path, split: Split, pairs: int) -> None:
        """`pairs`: how many rows there will be."""
        self.folder, self.split = folder, split
        self.files = max(1, -(-pairs // ROWS_PER_FILE))
        self.rows = 0
        self._group: list[TrainedRow] = []
        self._bytes = 0
        self._writer: Any = None
        self._schema: pa.Schema | None = None

    def add(self, row: TrainedRow) -> None:
        """Takes the next row."""
        self._group.append(row)
        self._bytes += sum(len(image["bytes"]) for image in row["images"])
        self.rows += 1
        is_full = len(self._group) == ROWS_PER_GROUP or self._bytes >= BYTES_PER_GROUP
        if is_full or self.rows % ROWS_PER_FILE == 0:
            self._write_group()
        if self.rows % ROWS_PER_FILE == 0:
            self._end_file()

    def close(self) -> None:
        """Writes what is left."""
        if self._group:
            self._write_group()
        self._end_file()

    def _write_group(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = self._schema or schema_of(self._group[0])
        if self._writer is None:
            number = (self.rows - 1) // ROWS_PER_FILE
            name = f"{self.split}-{number:05d}-of-{self.files:05d}.parquet"
            self._writer = pq.ParquetWriter(self.folder / name, self._schema)
        self._writer.write_table(pa.Table.from_pylist(self._group, schema=self._schema))
        self._group, self._bytes = [], 0

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def row_of(pair: DataSetPair) -> TrlRow:
    """A pair's row."""
    return {
        "images": [{"bytes": pair.image, "path": pair.source.name}],
        "prompt": [question(pair.instruction)],
        "chosen": [answer(pair.chosen.text)],
        "rejected": [answer(pair.rejected.text)],
        **plain_columns(pair),
    }


def question(text: str) -> Message:
    """A question to the picture as a message."""
    parts: list[Part] = [{"type": "image", "text": None}, {"type": "text", "text": text}]
    return {"role": "user", "content": parts}


def answer(text: str) -> Message:
    """A response as a message."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def text_of(messages: str | Sequence[Message]) -> str:
    """The text of messages, without the pictures' places; a text is what data sets had before
    there were messages in them.
    """
    if isinstance(messages, str):
        return messages
    parts = (part for message in messages for part in message["content"])
    return "".join(part["text"] or "" for part in parts if part["type"] == "text")


def schema_of(row: TrainedRow) -> "pa.Schema":
    """The columns of a file, of whose rows one is given: which parts of a reward there are depends
    on the reward model.
    """
    import pyarrow as pa

    features = {name: feature_of(name, row) for name in row if row[name] != {}}  # type: ignore[literal-required]
    fields = [pa.field(name, arrow_type(feature)) for name, feature in features.items()]
    told = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": told})


def value(dtype: str) -> dict[str, Any]:
    """A plain value's type in the words of `datasets`."""
    return {"dtype": dtype, "_type": "Value"}


MESSAGES = [
    {"role": value("string"), "content": [{"type": value("string"), "text": value("string")}]}
]
IMAGES = {"feature": {"_type": "Image"}, "length": -1, "_type": "Sequence"}
DTYPES = {str: "string", float: "float64", int: "int64"}


def feature_of(name: str, row: TrainedRow) -> Any:
    """A column's type in the words of `datasets`."""
    if name == "images":
        return IMAGES
    if name in ("prompt", "chosen", "rejected"):
        return MESSAGES
    if name.endswith("_attributes"):
        return {part: value("float64") for part in sorted(row[name])}  # type: ignore[literal-required]
    return value(DTYPES[PlainColumns.__annotations__[name]])


def arrow_type(feature: Any) -> "pa.DataType":
    """A column's type in Arrow's words."""
    import pyarrow as pa

    if feature is IMAGES:
        return pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    if isinstance(feature, list):
        return pa.list_(arrow_type(feature[0]))
    if "_type" in feature:
        return pa.type_for_alias(feature["dtype"])
    return pa.struct({name: arrow_type(part) for name, part in feature.items()})


def columns_of_pairs(names: Sequence[str]) -> Mapping[str, str]:
    """The columns of a file that hold what is trained on: before there were messages, `prompt` was
    the text-to-image prompt, and the instruction stood in a column of its own.
    """
    instruction = "instruction" if "instruction" in names else "prompt"
    return {"instruction": instruction, "chosen": "chosen", "rejected": "rejected"}
