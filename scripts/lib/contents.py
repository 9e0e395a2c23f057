"""What files contain, as digests of every byte of them, through links.

Reading takes time (docs/journal.md), so digests are kept: a file under the user's cache for each
folder, with (path, size, mtime, inode, ctime) of each of its files. Whatever changes a file's bytes
changes its ctime, also where its mtime is set back (`mv`, `rsync -t`, `tar`, `touch -d`).
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from lib.errors import UserError
from lib.files import digest, digest_of_file, make_folder

#: A digest is kept of a file that has been left alone for so long: two changes in one tick of a
#: file system's clock (2 s at the most) would look the same.
SETTLED_NS = 3_000_000_000


def files_under(path: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Every file in a folder and below it by name, links followed; of a file, itself. A link to a
    folder that it lies in (`above`: their devices and inodes) leads nowhere. Errors: UserError
    where a folder cannot be read.
    """
    if not path.is_dir():
        yield from [path] if path.is_file() else []
        return
    try:
        status = path.stat()
        names = sorted(path.iterdir())
    except OSError as error:
        raise _unreadable(path, error) from error
    place = (status.st_dev, status.st_ino)
    if place not in above:
        for name in names:
            yield from files_under(name, above | {place})


def digest_files(paths: Sequence[Path], kept_for: Path) -> list[str]:
    """The sha256 (hex) of each file, in order, read only where it is not known from before.
    `kept_for`: the file or folder under whose name they are kept. Errors: UserError where a file
    cannot be read.
    """
    place = _place(kept_for)
    known = _read(place)
    kept: dict[str, Any] = {}
    digests = []
    for path in paths:
        name = str(path.absolute())
        try:
            status = _status(path)
            entry = known.get(name)
            if not isinstance(entry, list) or entry[:-1] != status:
                settled = time.time_ns() - status[-1] > SETTLED_NS
                entry = [*status, digest_of_file(path)]
                if not settled or _status(path) != status:
                    digests.append(entry[-1])
                    continue
        except OSError as error:
            raise _unreadable(path, error) from error
        kept[name] = entry
        digests.append(entry[-1])
    if any(known.get(name) != entry for name, entry in kept.items()):
        _write(place, known | kept)
    return digests


@cache
def digest_path(path: str) -> str:
    """What a file contains, or a folder with all that is in it, as a digest. Found once a process:
    a run is what it was when it started.
    """
    root = Path(path)
    files = list(files_under(root))
    names = [file.relative_to(root).as_posix() for file in files]
    return digest(dict(zip(names, digest_files(files, root), strict=True)))


def _status(path: Path) -> list[int]:
    """What a file is known by beside its path; the ctime comes last."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def _place(kept_for: Path) -> Path | None:
    """The file of kept digests; None where the user has no folder for it."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return None
    name = sha256(os.fsencode(kept_for.absolute())).hexdigest()[:32]
    return caches / "pds-dpo" / "digests" / f"{name}.json"


def _read(place: Path | None) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        known = orjson.loads(place.read_bytes()) if place else {}
        return known if isinstance(known, dict) else {}
    return {}


def _write(place: Path | None, kept: dict[str, Any]) -> None:
    # Where nothing can be kept, every process reads the files for itself: no more than that.
    with suppress(OSError, UserError, TypeError):  # a TypeError: a name that is no Unicode
        if place:
            # Not `replacing`: jobs that look at a model for the first time do so side by side.
            make_folder(place.parent)
            temporary = place.with_name(f".{place.name}.{os.getpid()}")
            temporary.write_bytes(orjson.dumps(kept))
            temporary.replace(place)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: cannot be read ({error.strerror or error}), and what it contains decides results."
        " Make it readable, or take it out."
    )
