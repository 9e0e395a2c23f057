"""What a form is in which a data set leaves the workflow, and how files of records are written one
record at a time.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lib.data.data_sets import TRAIN, DataSetPair, Split
from lib.files import json_line

#: Takes the next pair of a split.
Add = Callable[[Split, DataSetPair], None]
#: Writes the next record of a file.
Write = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Contents:
    """What a data set has: its name, and the number of pairs of each split that has any."""

    name: str
    splits: Mapping[Split, int]

    @property
    def pairs(self) -> int:
        """The number of all pairs."""
        return sum(self.splits.values())


class ExportForm(Protocol):
    """A form that trainers read.

    NAME   what the card calls it
    FILES  the files that every data set has of it, from the data set's folder on; what it writes
           beside them (of a validation split, in folders) needs no mention
    USE    how it is loaded: Markdown for the card, `{name}` standing for the data set's name
    """

    NAME: ClassVar[str]
    FILES: ClassVar[tuple[str, ...]]
    USE: ClassVar[str]

    @classmethod
    def is_for(cls, contents: Contents) -> bool:
        """Whether a data set is written in this form."""
        ...

    @classmethod
    def write(cls, folder: Path, contents: Contents) -> AbstractContextManager[Add]:
        """Writes a data set into a folder: gives what takes its pairs one by one, each split's in
        their order. No more of them is held in memory than one file's part.
        """
        ...


def name_in(split: Split, name: str) -> str:
    """The name of a split's file: `llava.json`, `llava_validation.json`."""
    path = Path(name)
    return name if split == TRAIN else f"{path.stem}_{split}{path.suffix}"


@contextmanager
def a_file_a_split(
    folder: Path,
    contents: Contents,
    name: str,
    file: Callable[[Path], AbstractContextManager[Write]],
    record: Callable[[DataSetPair], Mapping[str, Any]],
) -> Iterator[Add]:
    """Writes a record of each pair into its split's file. `file`: how such a file is written."""
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(file(folder / name_in(split, name)))
            for split in contents.splits
        }
        yield lambda split, pair: writers[split](record(pair))


@contextmanager
def json_array(path: Path) -> Iterator[Write]:
    """Writes a JSON file that is one array, as `json.dumps(..., indent=1)` would."""
    begin = "["
    with open(path, "w", encoding="utf-8", newline="\n") as stream:

        def write(record: Mapping[str, Any]) -> None:
            nonlocal begin
            text = json.dumps(record, ensure_ascii=False, indent=1).replace("\n", "\n ")
            stream.write(f"{begin}\n {text}")
            begin = ","

        yield write
        stream.write("[]\n" if begin == "[" else "\n]\n")


@contextmanager
def json_lines(path: Path) -> Iterator[Write]:
    """Writes a file of one JSON document a line."""
    with open(path, "wb") as stream:

        def write(record: Mapping[str, Any]) -> None:
            stream.write(json_line(record))

        yield write
