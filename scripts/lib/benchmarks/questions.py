"""Questions of benchmarks that publish files: read as they are published, each with its id, its
text, its image and how it is put.

How a benchmark's questions are put stands in its own file (its `Form`, with its source): the form
that gave LLaVA-1.5's published scores, as far as a published script says so. Around it stands the
model's chat template, with the system prompt of LLaVA's `vicuna_v1` before it
(`evaluation.system_prompt`).
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import urlparse

from lib.benchmarks.base import Benchmark, R
from lib.benchmarks.rows import FileRow, id_of, read_rows
from lib.errors import UserError

TEXT_KEYS = ("query", "question", "text", "prompt", "instruction")
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """How a benchmark's questions are put.

    prompts         kind of question ("" where there is one) -> how it is put, with `{question}`
    max_new_tokens  the longest answer in tokens
    beams           of the search for an answer; 1 is greedy
    """

    prompts: Mapping[str, str]
    max_new_tokens: int
    beams: int = 1


@dataclass(frozen=True)
class PublishedQuestion:
    """A question as published. `image`: its file; `embedded`: its bytes where the questions file
    holds them; `where`: its file and line.
    """

    id: str
    text: str
    image: Path | None = None
    embedded: bytes | None = field(default=None, repr=False)
    kind: str = ""
    where: str = field(default="", repr=False, compare=False)


class QuestionsBenchmark(Benchmark[R]):
    """A benchmark that publishes files of questions, which our own rule asks.

    form            how they are put
    asked_if_unsaid the question of a row that has none; None where each has one
    id_keys         what its rows call their ids, the first that is there
    """

    form: ClassVar[Form]
    asked_if_unsaid: ClassVar[str | None] = None
    id_keys: ClassVar[tuple[str, ...]] = ("id", "question_id")

    def question_id(self, path: Path, row: Json, position: int) -> str | None:
        """The id under which answers are scored; None where the row has none. `position`: of the
        row in the file `path`, from 0.
        """
        return id_of(next((row[key] for key in self.id_keys if key in row), None))

    def question_text(self, row: Json) -> str | None:
        """The bare question."""
        texts = [row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)]
        return next((text for text in texts if text.strip()), self.asked_if_unsaid)

    def question_kind(self, question_id: str) -> str:
        """Which of the form's kinds a question is."""
        return ""


def prompt_of(question: PublishedQuestion, prompts: str | Mapping[str, str]) -> str:
    """What the model is asked. `prompts`: the form for all questions, or one for each kind.

    Errors: UserError if there is none for this kind.
    """
    forms = {question.kind: prompts} if isinstance(prompts, str) else prompts
    if question.kind not in forms:
        raise UserError(
            f"`prompt` has no form for questions of the kind '{question.kind}', only for"
            f" {', '.join(forms)}. Add it."
        )
    return forms[question.kind].replace("{question}", question.text)


def read_questions(
    benchmark: QuestionsBenchmark[Any], files: Sequence[str | Path], images: str | Path | None
) -> list[PublishedQuestion]:
    """All questions of a benchmark, in the order of its files.

    Errors: UserError with file and line where a row has no text, no id, no image, an image that is
    not there, or an id that was there.
    """
    questions: dict[str, PublishedQuestion] = {}
    places: dict[str, str] = {}
    folder = Path(images) if images is not None else None
    for path in map(Path, files):
        for line, question in _questions_in(benchmark, path, folder):
            where = f"{path}, line {line}"
            if question.id in questions:
                raise UserError(
                    f"{where}: question '{question.id}' is already in {places[question.id]}. Take"
                    " one out."
                )
            questions[question.id], places[question.id] = question, where
    return list(questions.values())


def _questions_in(
    benchmark: QuestionsBenchmark[Any], path: Path, images: Path | None
) -> Iterator[tuple[int, PublishedQuestion]]:
    for position, row in enumerate(read_rows(path)):
        yield row.line, _question(benchmark, path, row, position, images)


def _question(
    benchmark: QuestionsBenchmark[Any],
    path: Path,
    row: FileRow,
    position: int,
    images: Path | None,
) -> PublishedQuestion:
    where = f"{path}, line {row.line}"
    if not isinstance(row.value, dict):
        raise UserError(
            f"{where}: a question is expected, an object with its text and its image. Is this the"
            " file of questions?"
        )
    text = benchmark.question_text(row.value)
    if text is None:
        raise UserError(
            f"{where}: no question ({', '.join(TEXT_KEYS)}). Is this the file of questions?"
        )
    name = benchmark.question_id(path, row.value, position)
    if name is None:
        keys = " or ".join(benchmark.id_keys)
        raise UserError(f"{where}: no id ({keys}). Is this the file of questions?")
    image, embedded = _image(where, row.value, images)
    return PublishedQuestion(name, text, image, embedded, benchmark.question_kind(name), where)


def _image(
    where: str, row: Mapping[str, Any], folder: Path | None
) -> tuple[Path | None, bytes | None]:
    """The row's image: a file of the folder, or the bytes that the row holds."""
    if folder is None:
        if not isinstance(row.get("image"), str):
            raise UserError(f"{where}: no image. Name the folder of the images (`images`).")
        try:
            return None, base64.b64decode(row["image"], validate=True)
        except (ValueError, binascii.Error):
            raise UserError(
                f"{where}: `image` holds no image in base64. Name the folder of the images"
                " (`images`)."
            ) from None
    names = _file_names(row)
    for name in names:
        if (folder / name).is_file():
            return folder / name, None
    raise UserError(
        f"{where}: none of its image's names ({', '.join(names) or 'it has none'}) is a file in"
        f" {folder}. Complete the folder."
    )


def _file_names(row: Mapping[str, Any]) -> list[str]:
    """The names that an image may have, the likeliest first; none leads out of its folder."""
    names = [
        row[key]
        for key in ("image", "image_path", "file_name")
        if isinstance(row.get(key), str) and len(row[key]) < 300
    ]
    if isinstance(row.get("image_src"), str):  # MMHal-Bench gives addresses
        names.append(PurePosixPath(urlparse(row["image_src"]).path).name)
    if (number := id_of(row.get("image_id"))) is not None:
        if number.isdecimal():  # COCO 2014 and COCO 2017
            names += [f"COCO_val2014_{int(number):012d}.jpg", f"{int(number):012d}.jpg"]
        names += [f"{number}.jpg", f"{number}.png"]
    return [
        name
        for name in names
        if name and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
    ]
