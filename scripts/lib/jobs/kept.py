"""Folders under work/ with finished results: whole, or made again. A marker, written last, holds
the digests of their files.
"""

import json
import shutil
from pathlib import Path

from lib.files import digest_of_file, sync, write_json

MARKER = "complete.json"


def seal(folder: Path, names: tuple[str, ...]) -> None:
    """Writes the marker of a folder whose files are there; they are on the disk from here on."""
    for name in names:
        sync(folder / name)
    write_json(folder / MARKER, {name: digest_of_file(folder / name) for name in names})


def publish_folder(made: Path, name: Path) -> None:
    """Gives a sealed folder its name."""
    made.rename(name)
    sync(name.parent)


def copy_folder(folder: Path, name: Path) -> None:
    """Makes a sealed folder's copy under another name, whole or not at all."""
    scratch = name.with_name(f"{name.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch)
    for path in scratch.iterdir():
        sync(path)
    publish_folder(scratch, name)


def is_sealed(folder: Path) -> bool:
    """Whether a folder's files are those that it was sealed with."""
    try:
        digests: dict[str, str] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return all(digest_of_file(folder / name) == content for name, content in digests.items())
    except (OSError, ValueError, AttributeError):
        return False
