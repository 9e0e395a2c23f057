"""LLaVA's JSON, as the paper's authors publish their data."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Literal, TypedDict

from lib.data.data_sets import DataSetPair
from lib.data.export_forms.base import Add, Contents, a_file_a_split, json_array


class Turn(TypedDict("Turn", {"from": Literal["human", "gpt"]})):
    """What one side says."""

    value: str


class LlavaRecord(TypedDict):
    """A pair; both conversations are [human, gpt]."""

    id: str
    image: str
    conversations: list[Turn]
    rejected_conversations: list[Turn]


class Llava:
    """One array; the pictures by their names in the folder."""

    NAME: ClassVar[str] = "LLaVA's JSON"
    FILES: ClassVar[tuple[str, ...]] = ("llava.json",)
    USE: ClassVar[str] = (
        "`llava.json`, the form that the paper's authors publish: `--data_path llava.json"
        " --image_folder .`"
    )

    @classmethod
    def is_for(cls, contents: Contents) -> bool:
        """Every data set has it."""
        return True

    @classmethod
    def write(cls, folder: Path, contents: Contents) -> AbstractContextManager[Add]:
        """Writes `llava.json`, and that of a validation split."""
        return a_file_a_split(folder, contents, cls.FILES[0], json_array, record_of)


def record_of(pair: DataSetPair) -> LlavaRecord:
    """A pair's record."""
    texts = pair.instruction, pair.chosen.text, pair.rejected.text
    return llava_record(pair.id, pair.image_file, *texts)


def llava_record(
    name: str, image: str, instruction: str, chosen: str, rejected: str
) -> LlavaRecord:
    """One pair in LLaVA's form."""
    question: Turn = {"from": "human", "value": f"<image> {instruction}"}
    return {
        "id": name,
        "image": image,
        "conversations": [question, {"from": "gpt", "value": chosen}],
        "rejected_conversations": [question, {"from": "gpt", "value": rejected}],
    }
