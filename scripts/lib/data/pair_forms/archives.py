"""Archives of pictures that lie beside files of pairs, as the hub has them: a picture is read from
where it stands, and nothing is unpacked.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path, PurePosixPath

from lib.errors import UserError

#: Archives whose members can be read in any order; a compressed tar has to be unpacked.
ARCHIVES = (".tar", ".zip")


class PictureArchive:
    """The pictures of one archive, by the names that records have for them."""

    def __init__(self, path: Path) -> None:
        """Errors: UserError for what is no whole archive."""
        self.path = path
        try:
            self._readers = dict(_tar(path) if path.suffix.casefold() == ".tar" else _zip(path))
        except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path}: is no whole archive ({error}). Get it anew.") from error
        self._by_base_name: dict[str, list[str]] = {}
        for name in self._readers:
            self._by_base_name.setdefault(PurePosixPath(name).name, []).append(name)

    def find(self, name: str) -> str | None:
        """The member that a record's name means: the one of this path, or whose path ends as this
        one does, or the only one with this file name.
        """
        parts = PurePosixPath(name).parts
        alike = self._by_base_name.get(parts[-1], []) if parts else []
        ending = [each for each in alike if _end_alike(parts, PurePosixPath(each).parts)]
        found = ending or alike
        return found[0] if len(found) == 1 else next((each for each in found if each == name), None)

    def read(self, member: str) -> bytes:
        """A member's content. Errors: OSError where it is damaged."""
        try:
            return self._readers[member]()
        except (tarfile.TarError, zipfile.BadZipFile) as error:
            raise OSError(str(error)) from error


def may_hold_pictures(path: Path) -> bool:
    """Whether a path is a folder, or an archive that pictures are read from."""
    return path.is_dir() or (path.is_file() and path.suffix.casefold() in ARCHIVES)


def archive_files(folder: Path) -> list[Path]:
    """The archives of a folder, or the one that a path names."""
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.iterdir() if path.suffix.casefold() in ARCHIVES)


@cache
def archives_in(folder: Path) -> list[PictureArchive]:
    """The archives of a folder, opened: once a process, since that takes a look at every member."""
    return [*map(PictureArchive, archive_files(folder))]


def _tar(path: Path) -> Iterable[tuple[str, Callable[[], bytes]]]:
    archive = tarfile.open(path, "r:")  # noqa: SIM115 # its members are read as long as the process runs
    for member in archive:
        if member.isfile():
            yield member.name, partial(_content_of, archive, member)


def _content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise OSError("it is cut off")
    return content


def _zip(path: Path) -> Mapping[str, Callable[[], bytes]]:
    archive = zipfile.ZipFile(path)
    return {
        each.filename: partial(archive.read, each.filename)
        for each in archive.infolist()
        if not each.is_dir()
    }


def _end_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one path is the end of the other."""
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]
