"""LLaMA-Factory's JSON: preference data in its `sharegpt` formatting, and the `dataset_info.json`
that tells it so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from lib.data.data_sets import TRAIN, DataSetPair
from lib.data.export_forms.base import Add, Contents, a_file_a_split, json_array, name_in
from lib.files import write_json

#: Its columns -> ours.
COLUMNS = {
    "messages": "conversations",
    "chosen": "chosen",
    "rejected": "rejected",
    "images": "images",
}


class LlamaFactory:
    """One array; the pictures by their names in the folder, which is its `dataset_dir`."""

    NAME: ClassVar[str] = "LLaMA-Factory"
    FILES: ClassVar[tuple[str, ...]] = ("llama_factory.json", "dataset_info.json")
    USE: ClassVar[str] = (
        "`llama_factory.json`: `stage: dpo`, `dataset_dir: <this folder>`, `dataset: {name}`"
    )

    @classmethod
    def is_for(cls, contents: Contents) -> bool:
        """Every data set has it."""
        return True

    @classmethod
    @contextmanager
    def write(cls, folder: Path, contents: Contents) -> Iterator[Add]:
        """Writes `llama_factory.json`, that of a validation split, and `dataset_info.json`."""
        name, info = cls.FILES
        write_json(folder / info, dataset_info(contents, name))
        with a_file_a_split(folder, contents, name, json_array, record_of) as add:
            yield add


def dataset_info(contents: Contents, file: str) -> dict[str, Any]:
    """What LLaMA-Factory is told of each split: `{name}`, and `{name}_validation`."""
    return {
        contents.name if split == TRAIN else f"{contents.name}_{split}": {
            "file_name": name_in(split, file),
            "formatting": "sharegpt",
            "ranking": True,
            "columns": COLUMNS,
        }
        for split in contents.splits
    }


def record_of(pair: DataSetPair) -> dict[str, Any]:
    """A pair's record: the turns before the answer, and the two answers."""
    return {
        "conversations": [{"from": "human", "value": f"<image>{pair.instruction}"}],
        "chosen": {"from": "gpt", "value": pair.chosen.text},
        "rejected": {"from": "gpt", "value": pair.rejected.text},
        "images": [pair.image_file],
    }
