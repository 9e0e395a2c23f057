"""The pictures as files, which the forms in JSON name: `images/<topic>/<file>`."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from lib.data.data_sets import DataSetPair, Split
from lib.data.export_forms.base import Add, Contents


class Pictures:
    """Each picture as it was made. Hard links to the run's own files, where the file system has
    such: they take no room.
    """

    NAME: ClassVar[str] = "Pictures"
    FILES: ClassVar[tuple[str, ...]] = ()
    USE: ClassVar[str] = "The files that the forms in JSON name, in `images/<topic>/`."

    @classmethod
    def is_for(cls, contents: Contents) -> bool:
        """Every data set has them."""
        return True

    @classmethod
    @contextmanager
    def write(cls, folder: Path, contents: Contents) -> Iterator[Add]:
        """Links, or copies, the file of each pair."""

        def add(split: Split, pair: DataSetPair) -> None:
            target = folder / pair.image_file
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(pair.source, target)
            except OSError:
                shutil.copyfile(pair.source, target)

        yield add
