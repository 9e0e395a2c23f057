"""Files in which users say something of each prompt: JSON lines, or rows of a CSV file with a
heading (`.csv`), each with `prompt` (its text) or `id`, and a text; where a line stands means
nothing.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.data.prompts import Prompt
from lib.data.texts import visible
from lib.errors import UserError
from lib.files import STRICT_JSON


@dataclass(frozen=True)
class PromptLine:
    """A line of such a file: the prompt that it names, and its JSON object."""

    path: Path
    number: int
    prompt: Prompt
    entry: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The file and the line, for messages."""
        return f"{self.path}, line {self.number}"


class PromptLines:
    """The lines of a file, each of a prompt of the run."""

    def __init__(self, path: Path, prompts: Iterable[Prompt], text: str) -> None:
        """`prompts`: all of the run. `text`: the key of what is said of a prompt."""
        self.path, self.text = path, text
        self.by_id = {prompt.id: prompt for prompt in prompts}
        self.by_text = {visible(prompt.text): prompt for prompt in self.by_id.values()}

    def __iter__(self) -> Iterator[PromptLine]:
        """The lines that say something. Errors: UserError for one that is no JSON object with a
        text, or names no prompt, another one than there is, or two.
        """
        for number, entry in entries_of(self.path):
            where = f"{self.path}, line {number}"
            if not isinstance(entry.get(self.text), str):
                raise UserError(f"{where}: has no text under `{self.text}`. Add it.")
            yield PromptLine(self.path, number, self._prompt_of(entry, where), entry)

    def refuse_lacking(self, has: Mapping[str, Any]) -> None:
        """A UserError where a prompt's id is not in `has`."""
        if lacking := [prompt for prompt in self.by_id.values() if prompt.id not in has]:
            shown = "\n".join(f"  {prompt.id}: {prompt.text}" for prompt in lacking[:5])
            raise UserError(
                f"{self.path}: has no line for {len(lacking)} of {len(self.by_id)} prompts. Add one"
                f" for each; the first are:\n{shown}"
            )

    def _prompt_of(self, entry: Mapping[str, Any], where: str) -> Prompt:
        """The prompt that a line names by `prompt` or `id`; if by both, they must agree."""
        named = []
        for key, known in (("prompt", self.by_text), ("id", self.by_id)):
            if key not in entry:
                continue
            prompt = _named(entry[key], known)
            if prompt is None:
                raise UserError(
                    f"{where}: there is no prompt with {key} {entry[key]!r}. Correct the line, or"
                    " delete it."
                )
            named.append(prompt)
        if not named:
            raise UserError(f"{where}: names no prompt. Add `prompt` (its text) or `id`.")
        if len(set(named)) > 1:
            raise UserError(
                f"{where}: `prompt` is {named[0].id}, but `id` says {named[1].id}. Correct one of"
                " them."
            )
        return named[0]


def entries_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file's lines, or the rows of a CSV file by its heading, each with the
    number of its (last) line. Errors: UserError for a line that is neither.
    """
    if path.suffix.casefold() == ".csv":
        rows = csv.DictReader(f"{line}\n" for line in _lines_of(path))
        for row in rows:
            # Cells that are empty say nothing; those beyond the heading stand under None.
            yield rows.line_num, {name: cell for name, cell in row.items() if name and cell}
        return
    for number, line in enumerate(_lines_of(path), start=1):
        if line.strip():
            yield number, _object_in(line, f"{path}, line {number}")


def _object_in(line: str, where: str) -> dict[str, Any]:
    try:
        entry = STRICT_JSON.decode(line)
    except ValueError as error:
        raise UserError(
            f"{where}: not valid JSON ({error}). Write one JSON object a line."
        ) from error
    return entry if isinstance(entry, dict) else {}  # in which a text is lacking


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file. Correct `file`.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8. Save the file as UTF-8, e.g. `iconv -f latin1 -t utf-8`."
        ) from error


def _named(name: Any, known: Mapping[str, Prompt]) -> Prompt | None:
    return known.get(visible(name)) if isinstance(name, str) else None
