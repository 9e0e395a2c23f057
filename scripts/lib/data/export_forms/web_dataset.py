"""WebDataset shards of large sets: tar files that are read from front to end."""

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from lib.data.data_sets import DataSetPair, Split
from lib.data.export_forms.base import Add, Contents
from lib.data.export_forms.columns import plain_columns

PAIRS_PER_SHARD = 1000


class WebDataset:
    """A tar file for each thousand pairs: `<id>.<picture's suffix>`, then `<id>.json` with the
    texts and all that is known of the pair.
    """

    NAME: ClassVar[str] = "WebDataset"
    FILES: ClassVar[tuple[str, ...]] = ()
    USE: ClassVar[str] = (
        '`webdataset/*.tar`: `load_dataset("webdataset", data_files="webdataset/train-*.tar",'
        " streaming=True)`, or the `webdataset` package"
    )
    #: Smaller sets are loaded as they are.
    MORE_THAN: ClassVar[int] = 10_000

    @classmethod
    def is_for(cls, contents: Contents) -> bool:
        """Only sets over 10,000 pairs have it."""
        return contents.pairs > cls.MORE_THAN

    @classmethod
    @contextmanager
    def write(cls, folder: Path, contents: Contents) -> Iterator[Add]:
        """Writes the shards one after the other."""
        (folder / "webdataset").mkdir()
        shards = {split: Shards(folder / "webdataset", split) for split in contents.splits}
        yield lambda split, pair: shards[split].add(pair)
        for each in shards.values():
            each.close()


class Shards:
    """The shards of a split, of which one is open."""

    def __init__(self, folder: Path, split: Split) -> None:
        self.folder, self.split, self.pairs = folder, split, 0
        self._tar: tarfile.TarFile | None = None

    def add(self, pair: DataSetPair) -> None:
        """Takes the next pair."""
        if self._tar is None or self.pairs % PAIRS_PER_SHARD == 0:
            self.close()
            number = self.pairs // PAIRS_PER_SHARD
            shard = self.folder / f"{self.split}-{number:06d}.tar"
            self._tar = tarfile.open(shard, "w")  # noqa: SIM115  # `close` does
        self.pairs += 1
        row: dict[str, Any] = {**plain_columns(pair), "instruction": pair.instruction}
        row |= {"chosen": pair.chosen.text, "rejected": pair.rejected.text}
        text = json.dumps(row, ensure_ascii=False, sort_keys=True).encode()
        add_member(self._tar, pair.id + pair.source.suffix, pair.image)
        add_member(self._tar, f"{pair.id}.json", text)

    def close(self) -> None:
        """Ends the open shard."""
        if self._tar is not None:
            self._tar.close()


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file that says nothing of its time or owner: equal pairs give equal bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))
