"""The files that people put into the folder of reviews, as tables: as the report's page wrote them,
or as a spreadsheet saved them since.
"""

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from io import StringIO
from pathlib import Path

from lib.errors import UserError

#: What spreadsheets put between values.
SEPARATORS = ",;\t"
#: How the names of files begin that programs keep for themselves, beside those of people.
OF_PROGRAMS = (".", "~$")
#: What a spreadsheet takes for a number, and writes back as another text.
_NUMBER = re.compile(r"\d+(e\d+)?")
NAME_LENGTH = 16


def name_of_seen(texts: Iterable[str]) -> str:
    """What is known by a digest of what people saw, in a file that a spreadsheet may save again."""
    seen = "\x00".join(texts).encode("utf-8", "surrogatepass")
    digest = sha256(seen).hexdigest()
    names = [digest[at : at + NAME_LENGTH] for at in range(0, len(digest), NAME_LENGTH)]
    return next((name for name in names if not _NUMBER.fullmatch(name)), names[0])


def files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The CSV files of a folder and those below it, and the files that are none. Errors: UserError
    where it is no folder.
    """
    if folder.is_file():
        raise UserError(f"reviews: {folder} is a file. Name the folder that it lies in.")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    read, others = list[Path](), list[Path]()
    for path in files:
        parts = path.relative_to(folder).parts
        if not any(part.startswith(OF_PROGRAMS) for part in parts):
            (read if path.suffix.lower() == ".csv" else others).append(path)
    return read, others


def read_table(
    path: Path, refuse: Callable[[Path, Sequence[str]], None]
) -> list[tuple[int, dict[str, str]]]:
    """The lines of a file of reviews below its header, with their numbers. `refuse`: raises where
    the header is another one. Errors: UserError with file and line.
    """
    text = _decoded(path)
    first = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    lines = []
    try:
        header = [name.strip() for name in next(reader, [])]
        refuse(path, header)
        before = reader.line_num
        for values in reader:
            number, before = before + 1, reader.line_num
            if not any(values):
                continue
            if len(values) != len(header):
                raise UserError(
                    f"{path}, line {number}: has {len(values)} values for {len(header)} columns."
                    " Put texts with commas or quotes in double quotes."
                )
            stripped = map(str.strip, values)
            lines.append((number, dict(zip(header, stripped, strict=True))))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: is no CSV ({error}). Download it again."
        ) from error
    return lines


def _decoded(path: Path) -> str:
    """The text of a file, in UTF-8 or, as its first bytes say, in UTF-16."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8, or"
            " download it again."
        ) from error
