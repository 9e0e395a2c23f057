"""Pairs from a file, a folder or a data set on the hub."""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lib import weights
from lib.data.pair_forms.archives import (
    ARCHIVES,
    PictureArchive,
    archives_in,
    may_hold_pictures,
)
from lib.data.pair_forms.base import (
    BadRecordError,
    PairForm,
    Picture,
    PreferencePair,
    Record,
    Where,
    kind_of,
)
from lib.data.pair_forms.records import READERS, read_records
from lib.data.pair_forms.registry import FORMS, form_of, known_forms
from lib.data.pair_forms.settings import may_be_on_hub
from lib.errors import UserError

#: A file of records is known by its first ones.
_LOOKED_AT = 20
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
#: Files of JSON that describe a data set and hold no pairs.
_DESCRIPTIONS = {
    *("dataset_info.json", "dataset_infos.json", "state.json", "dataset.json", "croissant.json"),
    *("dataset_dict.json", "metadata.jsonl", "config.json"),
}

OnBadRecord = Callable[[Where, str], None]


def refuse(where: Where, problem: str) -> None:
    """A UserError for a record that is no pair."""
    raise UserError(f"{where}: {problem}. Mend it, or take it out.")


@dataclass(frozen=True)
class PictureFinder:
    """Finds the pictures that records of a file name.

    folders   where they are looked for, in turn; one may be an archive. What is in none of them is
              looked for in the archives that lie in them
    contents  whether pictures that stand in the records themselves, or in archives, are read
    """

    folders: tuple[Path, ...]
    contents: bool = True

    def __call__(self, value: Any, /) -> tuple[Picture, ...]:
        """The pictures of a record's value. Errors: BadRecordError."""
        values = value if isinstance(value, list) else [] if value in (None, "") else [value]
        return tuple(map(self._picture, values))

    def _picture(self, value: Any) -> Picture:
        if isinstance(value, dict) and ("bytes" in value or "path" in value or "url" in value):
            name = str(value.get("path") or value.get("url") or "")
            content = value.get("bytes")
            if isinstance(content, bytes):
                return Picture(name, content)
            # A picture of a parquet file whose content was not to be read has nothing but its name.
            return self._named(name) if name and self.contents else Picture(name, None)
        if isinstance(value, bytes):
            return Picture("", value)
        if not isinstance(value, str):
            raise BadRecordError(f"has {kind_of(value)} where a picture belongs")
        return self._named(value)

    def _named(self, name: str) -> Picture:
        if name.startswith("data:"):
            return Picture("data:", _content_of(name))
        if _ADDRESS.match(name):
            return Picture(name, None)
        places = [folder / name for folder in self.folders]
        there = next(filter(_is_there, places), None)
        return Picture(name, there) if there else self._archived(name) or Picture(name, places[0])

    def _archived(self, name: str) -> Picture | None:
        """The picture of an archive; its content where contents are read."""
        for archive in (each for folder in self.folders for each in archives_in(folder)):
            if member := archive.find(name):
                return Picture(name, _content_in(archive, member) if self.contents else None)
        return None


def is_address(name: str) -> bool:
    """Whether a picture's name is an address on the web, from which nothing is read."""
    return bool(_ADDRESS.match(name)) and not name.startswith("data:")


def _content_in(archive: PictureArchive, member: str) -> bytes:
    """A picture's content; nothing where it is damaged."""
    try:
        return archive.read(member)
    except OSError:
        return b""


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null character in it
        return False


def _content_of(address: str) -> bytes:
    """The content of a `data:` address; nothing where it cannot be read."""
    try:
        return base64.b64decode(address.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        return b""


@dataclass(frozen=True)
class PairSource:
    """Files of pairs of one form. `images`: where their pictures are, besides beside them: a folder
    or an archive.
    """

    files: tuple[Path, ...]
    form: type[PairForm]
    images: Path | None = None
    contents: bool = True

    def pairs(self, on_bad_record: OnBadRecord = refuse) -> Iterator[PreferencePair]:
        """The pairs in turn; what is no pair is told, or a UserError. Errors: UserError."""
        for file in self.files:
            folders = (*([self.images] if self.images else []), file.parent)
            finder = PictureFinder(folders, self.contents)
            for where, record in read_records(file, self.contents):
                try:
                    if isinstance(record, BadRecordError):
                        raise record
                    yield self.form.read(record, where, finder)
                except BadRecordError as error:
                    on_bad_record(where, str(error))


def open_source(
    name: str,
    *,
    form: str | None = None,
    images: Path | None = None,
    revision: str = "main",
    contents: bool = True,
    files: str | None = None,
) -> PairSource:
    """The pairs of a file, a folder, or a data set on the hub (`owner/name`).

    `form`: which form, where a folder has several; `contents`: whether pictures are to be read;
    `files`: a pattern of the files in the folder or data set, where not all of them are meant.
    Errors: UserError.
    """
    if images and not may_hold_pictures(images):
        raise UserError(
            f"{images}: there is no such folder of pictures, or archive of them"
            f" ({', '.join(ARCHIVES)}). Correct it."
        )
    path = Path(name).expanduser()
    if not path.exists():
        path = _from_hub(name, revision, contents)
    there = [path] if path.is_file() else _files_in(path, files)
    found = _forms_in(there, path)
    chosen = FORMS[form] if form else _only_form(found, path)
    if chosen not in found:
        known = ", ".join(f"{each.name} ({len(files)} files)" for each, files in found.items())
        raise UserError(f"{path}: holds no pairs of the form {form}, but {known}. Correct --form.")
    return PairSource(tuple(found[chosen]), chosen, images, contents)


def _from_hub(name: str, revision: str, contents: bool) -> Path:
    if not may_be_on_hub(name):
        raise UserError(
            f"{name}: there is no such file or folder, and it is not the name of a data set on the"
            " hub (owner/name) either. Correct it."
        )
    only = None if contents else [f"*{suffix}" for suffix in READERS]
    return weights.download(name, revision, only=only, kind="dataset")


def _files_in(folder: Path, pattern: str | None) -> list[Path]:
    """The files of pairs in a folder. Errors: UserError where there are none, or several sets."""
    if pattern:
        return _files_of_pattern(folder, pattern)
    nested = sorted(file.parent.name for file in folder.glob("*/dataset.json"))
    if len(nested) > 1:
        raise UserError(
            f"{folder}: holds several data sets ({', '.join(nested)}), of which a larger one holds"
            f" the smaller. Name one: {folder / nested[-1]}."
        )
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.casefold() in READERS
        and file.name not in _DESCRIPTIONS
        and not any(part.startswith((".", "cache-")) for part in file.relative_to(folder).parts)
        and file.is_file()
    ]
    if not files:
        raise UserError(
            f"{folder}: holds no file of pairs ({', '.join(READERS)}). Name another folder, or the"
            " file itself."
        )
    return files


def _files_of_pattern(folder: Path, pattern: str) -> list[Path]:
    if chosen := sorted(path for path in folder.glob(pattern) if path.is_file()):
        return chosen
    there = sorted(path.name for path in folder.iterdir() if path.suffix.casefold() in READERS)
    raise UserError(
        f"{folder}: holds no file '{pattern}' (it has: {', '.join(there) or 'no file of pairs'})."
        " Correct `files`."
    )


def _forms_in(files: Sequence[Path], path: Path) -> dict[type[PairForm], list[Path]]:
    """The files by their form. Errors: UserError where none of them has a known one."""
    found: dict[type[PairForm], list[Path]] = {}
    keys: list[str] = []
    for file in files:
        records = _first_records(file)
        form = next(filter(None, map(form_of, records)), None)
        if form:
            found.setdefault(form, []).append(file)
        keys = keys or [key for record in records[:1] for key in record]
    if not found:
        has = f"its records have {', '.join(keys[:12])}" if keys else "it has no record"
        raise UserError(
            f"{path}: holds no pairs of a form that is known ({has}). Known are:\n{known_forms()}"
        )
    return found


def _first_records(file: Path) -> list[Record]:
    records = (record for _, record in islice(read_records(file, contents=False), _LOOKED_AT))
    return [record for record in records if not isinstance(record, BadRecordError)]


def _only_form(found: dict[type[PairForm], list[Path]], path: Path) -> type[PairForm]:
    """The form of all files; of a data set of ours, which has several, the one that holds all."""
    ours = FORMS["ours"]
    if len(found) > 1 and ours not in found:
        told = "; ".join(f"{form.name}: {files[0].name}" for form, files in found.items())
        raise UserError(
            f"{path}: holds pairs in several forms ({told}). Name a file, or say which: --form."
        )
    return ours if ours in found else next(iter(found))
