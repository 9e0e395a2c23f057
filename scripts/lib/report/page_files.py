"""The files of the report's page: its data, as scripts that hand over JSON, and what is the same
for every run.

A page that is opened from disk can read no file of data, but for scripts and pictures. So each file
of data is a script that calls `pageData` with a name and a text of JSON.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lib.files import write_text

#: The files that are the same for every run, in this folder.
PAGE = Path(__file__).resolve().parent / "page"
INDEX = "index.html"
#: Bytes of a file of data: some servers refuse larger ones, and a phone waits too long for them.
LARGEST = 4_000_000
CHUNK = 1_000_000


def script_of(name: str, value: Any) -> str:
    """A file of data. All of it is ASCII, so that neither a server's idea of the encoding, nor a
    line separator or a lone surrogate in a text, can do anything to it.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"pageData({json.dumps(name)}, {json.dumps(text)});\n"


def chunks(
    rows: Iterable[Mapping[str, Any]], size: int = CHUNK
) -> Iterator[list[Mapping[str, Any]]]:
    """The rows in lists whose JSON takes about `size` bytes; one that is larger stands alone."""
    chunk: list[Mapping[str, Any]] = []
    taken = 0
    for row in rows:
        # As `script_of` writes it: the quotes and escapes of a text are escaped once more.
        length = len(json.dumps(json.dumps(row)))
        if chunk and taken + length > size:
            yield chunk
            chunk, taken = [], 0
        chunk.append(row)
        taken += length
    if chunk:
        yield chunk


def name_of(kind: str, number: int) -> str:
    """The name of a numbered file of data."""
    return f"{kind}-{number:03d}"


class DataFolder:
    """The folder `data/` of a report that is being written."""

    def __init__(self, report: Path) -> None:
        self.folder = report / "data"
        self.written: list[Path] = []

    def write(self, name: str, value: Any) -> None:
        """Writes a file of data; one that is there already with this content stays."""
        path = self.folder / f"{name}.js"
        text = script_of(name, value)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        self.written.append(path)

    def write_chunks(self, kind: str, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        """Writes rows as numbered files; returns how many rows each has."""
        counts = []
        for number, chunk in enumerate(chunks(rows)):
            self.write(name_of(kind, number), chunk)
            counts.append(len(chunk))
        return counts

    def delete_others(self) -> None:
        """Deletes the files that an earlier report had."""
        for path in set(self.folder.glob("*.js")) - set(self.written):
            path.unlink()


def write_page(report: Path) -> None:
    """Writes what is the same for every run."""
    folder = report / "page"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for source in sorted(PAGE.iterdir()):
        shutil.copyfile(source, report / INDEX if source.name == INDEX else folder / source.name)


def write_figures(figures: Iterable[Path], report: Path) -> None:
    """Puts pictures of figures beside the page, smaller where they are too large."""
    folder = report / "figures"
    shutil.rmtree(folder, ignore_errors=True)
    for source in figures:
        folder.mkdir(exist_ok=True)
        target = folder / f"{source.parent.name}-{source.name}"
        if source.stat().st_size < LARGEST:
            shutil.copyfile(source, target)
        else:
            _write_smaller(source, target)


def _write_smaller(source: Path, target: Path) -> None:
    from PIL import Image

    with Image.open(source) as image:
        image.thumbnail((2000, 2000))
        image.convert("RGB").save(target, format="JPEG", quality=85)
