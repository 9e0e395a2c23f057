"""Where pairs are that one has already, as the configuration says it. What reads them is
lib/data/own_pairs.py.
"""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from lib import weights
from lib.blocks import Block, UserPath
from lib.data.pair_forms.archives import may_hold_pictures
from lib.data.pair_forms.base import SUFFIXES
from lib.data.pair_forms.registry import FORMS
from lib.files import digest


def may_be_on_hub(name: str) -> bool:
    """Whether what is no file or folder here may be a data set of the hub."""
    return not weights.is_folder(name) and Path(name).suffix.casefold() not in SUFFIXES


def _known_form(name: str) -> str:
    if name not in FORMS:
        raise ValueError(f"there is no form '{name}'. Known are: {', '.join(FORMS)}")
    return name


class OwnPairs(Block):
    """Where an experiment's own pairs are (docs/own-pairs.md)."""

    source: UserPath = Field(
        min_length=1, description="A file, a folder, or a data set on the hub (`owner/name`)."
    )
    revision: str = Field(
        "main", min_length=1, description="Commit, tag or branch of a data set on the hub."
    )
    files: str | None = Field(
        None,
        min_length=1,
        description=(
            "Which files of the folder or data set, as a pattern (`9k-*.json`); null: all that hold"
            " pairs."
        ),
    )
    images: UserPath | None = Field(
        None,
        min_length=1,
        description=(
            "Folder or archive (.tar, .zip) of the pictures, where they do not lie beside the"
            " files, in an archive beside them, or in them."
        ),
    )
    form: Annotated[str, AfterValidator(_known_form)] | None = Field(
        None,
        description=(
            "The form of the records, where a folder has several: "
            + ", ".join(f"`{name}`" for name in FORMS)
            + ". Null: it is known by the fields."
        ),
    )

    @model_validator(mode="after")
    def _is_there(self) -> Self:
        if not self.is_on_hub and not Path(self.source).exists():
            raise ValueError(
                f"`pairs`: there is no file or folder '{self.source}', and it is not the name of a"
                " data set on the hub (owner/name) either. Correct it"
            )
        if self.files and Path(self.source).is_file():
            raise ValueError(
                f"`files` chooses among those of a folder, and '{self.source}' is a file. Take"
                " `files` away"
            )
        if self.images and not may_hold_pictures(Path(self.images)):
            raise ValueError(
                f"`images`: there is no folder or archive (.tar, .zip) '{self.images}'. Correct it"
            )
        return self

    @property
    def is_on_hub(self) -> bool:
        """Whether it is a data set of the hub, and neither a file nor a folder."""
        return not Path(self.source).exists() and may_be_on_hub(self.source)

    @property
    def is_readable(self) -> bool:
        """Whether it can be read without the network: all of it is on this machine."""
        return not self.is_on_hub or weights.is_whole(self.source, self.revision, kind="dataset")

    @property
    def folder(self) -> str:
        """The name of its folder in a run: what it is called, and a digest of what was asked."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(self.source).stem).strip("._-") or "pairs"
        return f"{name}-{digest(self.model_dump(mode='json'))[:8]}"

    @property
    def origin(self) -> str:
        """Where they come from, for people."""
        # A folder of one machine says nothing on another.
        name = Path(self.source).name if Path(self.source).is_absolute() else self.source
        return f"{name}, {self.files}" if self.files else name
