"""Builds checkpoints into a folder: whole or not at all, and only those that are not there yet.

Every checkpoint is a function of its architecture's file, the files that this one imports and the
libraries' versions. Their digest stands in the checkpoint's stamp, so an edit of one architecture
has that one built anew and no other.
"""

import fcntl
import functools
import hashlib
import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from modulefinder import ModuleFinder
from pathlib import Path

from tiny.saving import write_json

#: Writes a checkpoint into a folder that is there and empty.
Builder = Callable[[Path], None]

HERE = Path(__file__).resolve().parent
LIBRARIES = ("torch", "transformers", "diffusers", "tokenizers", "safetensors")


def source_files(builder: Builder) -> list[Path]:
    """The file that a builder is in and every file beside this package that this one imports, be it
    inside of a function or by way of another.
    """
    function = builder.func if isinstance(builder, functools.partial) else builder
    file = Path(inspect.getfile(function)).resolve()
    finder = ModuleFinder(path=[str(HERE.parent)])  # the libraries are told by their versions
    finder.run_script(str(file))
    imported = (getattr(module, "__file__", None) for module in finder.modules.values())
    return sorted({file, *(Path(path).resolve() for path in imported if path)})


def source_digest(builder: Builder) -> str:
    """Digest of what a checkpoint is made from: its source files and the libraries' versions."""
    digest = hashlib.sha256()
    for file in source_files(builder):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()


def list_files(directory: Path) -> dict[str, int]:
    """The files below a directory and their sizes in bytes."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def is_complete(directory: Path, stamp: Path, digest: str) -> bool:
    """Whether a checkpoint was built from the same source and no file of it is missing or cut."""
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(record == {"source": digest, "files": list_files(directory)})


def have_same_content(one: Path, other: Path) -> bool:
    """Whether two directories hold the same files with the same bytes."""
    files = list_files(one)
    return files == list_files(other) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in files
    )


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock, so that two builds at the same time do not disturb each other."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build_checkpoint(name: str, builder: Builder, output: Path) -> str:
    """Builds one checkpoint in a temporary folder and moves it into place.

    A checkpoint that comes out as it was keeps its files and their times, so nothing that depends
    on it is redone.

    Args:
        name: of the checkpoint's folder.
        builder: what writes it.
        output: the folder that the checkpoint's folder is in.

    Returns:
        `there`, `same` or `built`.
    """
    directory, stamp = output / name, output / ".stamps" / f"{name}.json"
    digest = source_digest(builder)
    if is_complete(directory, stamp, digest):
        return "there"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=output))
    try:
        # In the temporary folder, so that an interrupted build never looks like a checkpoint.
        fresh = temporary / "new"
        fresh.mkdir()
        builder(fresh)
        same = directory.is_dir() and have_same_content(fresh, directory)
        if not same:
            if directory.exists():
                directory.rename(temporary / "old")
            fresh.rename(directory)
        for path in directory.rglob("*.safetensors"):
            path.chmod(0o644)  # the library makes them readable to their owner only
        write_json(temporary / "stamp", {"source": digest, "files": list_files(directory)})
        (temporary / "stamp").replace(stamp)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return "same" if same else "built"
