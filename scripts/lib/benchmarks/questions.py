"""The questions of benchmarks that publish files: read as they are published, each with its id, its
text, its image and how it is put.

The forms are those that gave LLaVA-1.5's published scores, as far as a published script says so:

pope             llava_pope_test.jsonl of LLaVA's eval.zip and scripts/v1_5/eval/pope.sh:
                 "<question>\\nAnswer the question using a single word or phrase."; 128 new tokens
                 (llava/eval/model_vqa_loader.py). POPE's own coco_pope_*.json have the bare
                 question, and get the same form.
amber            query_all.json of junyangwang0410/AMBER as it is. AMBER has no script for
                 LLaVA-1.5; HALVA's (src/evaluate_hall/amber.sh, eval_hall/model_amber_loader.py of
                 pritamqu/HALVA) adds nothing to the query, 1,024 new tokens, and reads any answer
                 with "yes" in it as Yes, all others as No (scripts/score_answers.py does that).
mmhal_bench      response_template.json of Shengcao1006/MMHal-Bench as it is; the benchmark's
                 authors (Eval/eval_scripts/eval_mmhal.sh of llava-rlhf/LLaVA-RLHF) and HALVA
                 (eval_hall/model_vqa_mmhal.py, 1,024 new tokens) add nothing and are greedy.
                 RLHF-V/RLAIF-V asks with three beams (script/eval/chair/eval_llava1.5_chair.sh):
                 `beams: 3`.
object_halbench  obj_halbench_300_with_image.jsonl of RLHF-V/RLAIF-V as it is;
                 muffin/eval/llava15_chair.py there adds nothing, 1,024 new tokens, temperature 0
                 and three beams (script/eval/chair/eval_llava1.5_chair.sh).
chair            "Please describe this image in detail.", 512 new tokens (chair_eval.py of
                 shikiw/OPERA, with the prompt alone around it: no system prompt; its number of
                 beams is an argument).

Around it stands the model's chat template, with the system prompt of LLaVA's `vicuna_v1` before it
(`evaluation.system_prompt`).
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from lib.benchmarks.rows import Row, id_of, read_rows
from lib.errors import UserError

SINGLE_WORD = "\nAnswer the question using a single word or phrase."
#: AMBER numbers its generative questions up to this one.
LAST_GENERATIVE = 1004
#: What LLaVA adds to the numbers of POPE's splits in its one file.
SPLIT_SIZE = 10_000_000


@dataclass(frozen=True)
class Form:
    """How a benchmark's questions are put: by kind ("" for all), and the longest answer in tokens."""

    prompts: Mapping[str, str]
    max_new_tokens: int


FORMS = {
    "pope": Form({"": "{question}" + SINGLE_WORD}, 128),
    "amber": Form({"generative": "{question}", "discriminative": "{question}"}, 1024),
    "mmhal_bench": Form({"": "{question}"}, 1024),
    "object_halbench": Form({"": "{question}"}, 1024),
    "chair": Form({"": "{question}"}, 512),
}
#: The question of a row that has none.
UNSAID = {"chair": "Please describe this image in detail."}
TEXT_KEYS = ("query", "question", "text", "prompt", "instruction")


@dataclass(frozen=True)
class Question:
    """A question as published. `image`: its file; `embedded`: its bytes where the questions file
    holds them.
    """

    id: str
    text: str
    image: Path | None = None
    embedded: bytes | None = field(default=None, repr=False)
    kind: str = ""


def prompt_of(scorer: str, question: Question, configured: str | Mapping[str, str] | None) -> str:
    """What the model is asked. Errors: UserError if the configuration has no form for this kind of
    question.
    """
    forms = (
        FORMS[scorer].prompts
        if configured is None
        else {question.kind: configured}
        if isinstance(configured, str)
        else configured
    )
    if question.kind not in forms:
        raise UserError(
            f"`prompt` has no form for questions of the kind '{question.kind}', only for"
            f" {', '.join(forms)}. Add it."
        )
    return forms[question.kind].replace("{question}", question.text)


def read_questions(
    scorer: str, files: Sequence[str | Path], images: str | Path | None
) -> list[Question]:
    """All questions of a benchmark, in the order of its files.

    Errors: UserError with file and line where a row has no text, no id, no image, an image that is
    not there, or an id that was there.
    """
    found: dict[str, tuple[Path, int, Question]] = {}
    folder = Path(images) if images is not None else None
    for path in map(Path, files):
        for position, row in enumerate(read_rows(path)):
            question = _question(scorer, path, row, position, folder)
            if question.id in found:
                file, line, _ = found[question.id]
                raise UserError(
                    f"{path}, line {row.line}: question '{question.id}' is already in {file}, line"
                    f" {line}. Take one out."
                )
            found[question.id] = (path, row.line, question)
    return [question for _, _, question in found.values()]


def _question(scorer: str, path: Path, row: Row, position: int, folder: Path | None) -> Question:
    where = f"{path}, line {row.line}"
    if not isinstance(row.value, dict):
        raise UserError(
            f"{where}: a question is expected, an object with its text and its image. Is this the"
            " file of questions?"
        )
    text = next(
        (
            row.value[key]
            for key in TEXT_KEYS
            if isinstance(row.value.get(key), str) and row.value[key].strip()
        ),
        UNSAID.get(scorer),
    )
    if text is None:
        raise UserError(
            f"{where}: no question ({', '.join(TEXT_KEYS)}). Is this the file of questions?"
        )
    name = _name(scorer, path, row.value, position)
    if name is None:
        raise UserError(
            f"{where}: no id ({'image_id' if scorer in BY_IMAGE else 'id or question_id'}). Is this"
            " the file of questions?"
        )
    kind = ""
    if scorer == "amber":
        kind = (
            "generative" if name.isdecimal() and int(name) <= LAST_GENERATIVE else "discriminative"
        )
    image, embedded = _image(where, row.value, folder)
    return Question(
        name, text.removesuffix(SINGLE_WORD) if scorer == "pope" else text, image, embedded, kind
    )


#: Benchmarks with one question an image, whose ids are COCO's image ids.
BY_IMAGE = ("chair", "object_halbench")


def _name(scorer: str, path: Path, row: Mapping[str, Any], position: int) -> str | None:
    """The id under which the scorer knows the question."""
    if scorer == "mmhal_bench":
        return str(position)  # the benchmark's type of a question is its position modulo 8
    if scorer in BY_IMAGE:
        return id_of(
            next((row[key] for key in ("image_id", "id", "question_id") if key in row), None)
        )
    name = id_of(row.get("id", row.get("question_id")))
    if scorer == "pope" and name is not None and "/" not in name:
        split = row.get("category") or path.stem.removeprefix("coco_pope_")
        return f"{split}/{int(name) % SPLIT_SIZE if name.isdecimal() else name}"
    return name


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
