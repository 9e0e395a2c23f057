"""Pictures that users have, in place of generated ones: photographs, or what was drawn elsewhere.

Which prompt a picture belongs to is said by its file's name (`<prompt id>.png`, or
`<prompt id>_0.png`, `<prompt id>_1.png`, ...), in whatever folder below, or by a table: rows of a
CSV file with the columns `prompt` (its text) or `id`, and `file`, or JSON lines with these keys. A
prompt may have several pictures; they are its candidates.
"""

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, NotRequired, TypedDict

from pydantic import Field, field_validator

from lib.blocks import NO_EFFECT, UserPath
from lib.contents import digest_files
from lib.data.prompt_lines import PromptLines, entries_of
from lib.data.prompts import PROMPT_ID, Prompt
from lib.errors import UserError
from lib.models.image_generators.settings import ImageGeneratorSettings

#: How files of pictures end. What else lies in a folder is passed over.
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
NAMED = re.compile(rf"(?P<id>{PROMPT_ID})(?:_(?P<number>\d+))?")


class OwnPicture(TypedDict):
    """A picture of a prompt when the run began.

    path    where it is on this machine
    name    what it is called where others read it: from the folder on
    where   its name, behind the table's row that names it, for messages
    sha256  of its file (hex); not there where there is no such file
    """

    path: str
    name: str
    where: str
    sha256: NotRequired[str]


class PictureFolder:
    """Takes the pictures of a folder. VERSION is raised where the same files would give others."""

    VERSION: ClassVar[int] = 1

    class Settings(ImageGeneratorSettings):
        """Stage images from a folder with pictures of your own."""

        kind: Literal["folder"] = Field(
            description="Where the images come from; `folder` says it by itself."
        )
        # What a picture contains is in the keys of items, not where it is.
        folder: UserPath = Field(
            description=(
                "With the pictures; without `table`, called `<prompt id>.png`, or"
                " `<prompt id>_0.png`, `<prompt id>_1.png`, ... where a prompt has several."
            ),
            json_schema_extra=NO_EFFECT,
        )
        table: UserPath | None = Field(
            None,
            description=(
                "CSV with a heading, or JSON lines: `prompt` (its text) or `id`, and `file`, in"
                " `folder`; a row a picture."
            ),
            json_schema_extra=NO_EFFECT,
        )

        @property
        def images_per_prompt(self) -> int:
            """Of the folder's files or the table's rows, rounded up."""
            return _images_per_prompt(self.folder, self.table)

        def read_pictures(self, prompts: Iterable[Prompt]) -> dict[str, list[OwnPicture]]:
            """The pictures of each prompt, by its id and in their order, read once for what they
            contain. Errors: UserError for a table's row that names no prompt, and where there is
            no picture of any prompt.
            """
            prompts = list(prompts)
            found = self._of_table(prompts) if self.table else self._of_names(prompts)
            there = [each for pictures in found.values() for each in pictures]
            if prompts and not there:
                raise UserError(
                    f"images: '{self.folder}' has no picture of any of the {len(prompts)} prompts."
                    f" Call files by prompt ids, e.g. {prompts[0].id}.png for"
                    f" {prompts[0].text[:60]!r}, or name a `table`."
                )
            there = [each for each in there if Path(each["path"]).is_file()]
            digests = digest_files([Path(each["path"]) for each in there], Path(self.folder))
            for each, sha256 in zip(there, digests, strict=True):
                each["sha256"] = sha256
            return found

        def _of_table(self, prompts: Sequence[Prompt]) -> dict[str, list[OwnPicture]]:
            found: dict[str, list[OwnPicture]] = {}
            for line in PromptLines(Path(str(self.table)), prompts, "file"):
                path = Path(self.folder, line.entry["file"].strip())
                picture = self._picture(path, f"{line.path.name}, line {line.number}: ")
                found.setdefault(line.prompt.id, []).append(picture)
            return found

        def _of_names(self, prompts: Sequence[Prompt]) -> dict[str, list[OwnPicture]]:
            known = {prompt.id for prompt in prompts}
            found: dict[str, list[tuple[int, str, Path]]] = {}
            for path in _files_in(self.folder):
                name = NAMED.fullmatch(path.stem)
                if name and name["id"] in known:
                    place = (int(name["number"] or -1), path.name, path)
                    found.setdefault(name["id"], []).append(place)
            return {
                name: [self._picture(path) for *_, path in sorted(places)]
                for name, places in found.items()
            }

        def _picture(self, path: Path, row: str = "") -> OwnPicture:
            is_below = path.is_relative_to(self.folder) and ".." not in path.parts
            name = path.relative_to(self.folder).as_posix() if is_below else path.name
            return {"path": str(path), "name": name, "where": f"{row}{name}"}

        @field_validator("folder")
        @classmethod
        def _folder_exists(cls, folder: str) -> str:
            if not Path(folder).is_dir():
                raise ValueError(f"there is no folder '{folder}'. Correct the path")
            return folder

        @field_validator("table")
        @classmethod
        def _table_exists(cls, table: str | None) -> str | None:
            if table is not None and not Path(table).is_file():
                raise ValueError(f"there is no file '{table}'. Correct the path")
            return table


def _files_in(folder: str) -> list[Path]:
    files = Path(folder).rglob("*")
    return sorted(path for path in files if path.suffix.casefold() in PICTURES)


@cache
def _images_per_prompt(folder: str, table: str | None) -> int:
    if table:
        rows = [entry for _, entry in entries_of(Path(table))]
        named = [str(row.get("id") or row.get("prompt")) for row in rows]
    else:
        found = (NAMED.fullmatch(path.stem) for path in _files_in(folder))
        named = [name["id"] for name in found if name]
    return math.ceil(len(named) / max(1, len(set(named)))) or 1
