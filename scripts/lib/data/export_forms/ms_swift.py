"""ms-swift's JSON lines: the chosen answer ends the messages, the other stands beside them."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from lib.data.data_sets import DataSetPair
from lib.data.export_forms.base import Add, Contents, a_file_a_split, json_lines


class MsSwift:
    """A line a pair; the pictures by their names in the folder, which is its `ROOT_IMAGE_DIR`."""

    NAME: ClassVar[str] = "ms-swift"
    FILES: ClassVar[tuple[str, ...]] = ("ms_swift.jsonl",)
    USE: ClassVar[str] = (
        "`ms_swift.jsonl`: `ROOT_IMAGE_DIR=<this folder> swift rlhf --rlhf_type dpo --dataset"
        " ms_swift.jsonl`"
    )

    @classmethod
    def is_for(cls, contents: Contents) -> bool:
        """Every data set has it."""
        return True

    @classmethod
    def write(cls, folder: Path, contents: Contents) -> AbstractContextManager[Add]:
        """Writes `ms_swift.jsonl`, and that of a validation split."""
        return a_file_a_split(folder, contents, cls.FILES[0], json_lines, record_of)


def record_of(pair: DataSetPair) -> dict[str, Any]:
    """A pair's record."""
    return {
        "messages": [
            {"role": "user", "content": f"<image>{pair.instruction}"},
            {"role": "assistant", "content": pair.chosen.text},
        ],
        "rejected_response": pair.rejected.text,
        "images": [pair.image_file],
    }
