"""What an instruction must be, whoever wrote it, and the reading of instructions and templates that
users wrote themselves.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lib.data.prompts import Prompt, Shard, seed_of
from lib.errors import UserError
from lib.files import digest

#: Tokens that steer LLaVA's language models; inside an instruction they would no longer be its
#: text.
SPECIAL_TOKEN = re.compile(
    r"<image>|</?s>|<unk>|<pad>|<\|[^|\n]{1,40}\|>|\[/?INST\]|<</?SYS>>", re.IGNORECASE
)
#: The answering models see the image only; an instruction must not send them to a text that they do
#: not have.
MENTIONS_THE_PROMPT = re.compile(
    r"\b(?:the|this|that|given|above|provided|your)\s+(?:(?:given|above|provided|original|image|text|text-to-image)\s+)?"
    r"(?:description|prompt|caption)\b",
    re.IGNORECASE,
)
NAMES_THE_IMAGE = re.compile(
    r"\b(?:images?|pictures?|photos?|photographs?|scenes?|paintings?|drawings?|illustrations?)\b"
)
#: Where a template's text has something filled in, or seems to.
PLACEHOLDER = re.compile(r"\{\s*\w*\s*\}")
SHORTEST_COPY = 6
#: Words that stand in every question; sharing them with the prompt says nothing.
COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "what which where when does have this that these those they them their there with from into"
        " over under about each many much more most some other than then while would could should"
        " will your being been were also only very both between",
    )
)


def unwrapped(text: str) -> str:
    """A text without a pair of quotation or emphasis marks around all of it."""
    for left, right in (('"', '"'), ("“", "”"), ("'", "'"), ("**", "**"), ("*", "*")):
        inside = text[len(left) : -len(right)]
        if (
            text.startswith(left)
            and text.endswith(right)
            and inside
            and left not in inside
            and right not in inside
        ):
            text = inside.strip()
    return text


def clean(answer: str) -> str:
    """An LLM's answer without what surrounds the question: blanks, quotation marks, a label such as
    "Question:".
    """
    text = unwrapped(unicodedata.normalize("NFC", answer.strip()))
    return unwrapped(re.sub(r"^(?:question|instruction)\s*:\s*", "", text, flags=re.IGNORECASE))


def problem_with(instruction: str, require_question: bool) -> str | None:
    """What is wrong with an instruction, whoever wrote it; None for a good one."""
    if not re.search(r"\w", instruction):
        return "it is empty"
    if found := SPECIAL_TOKEN.search(instruction):
        return f"it holds the special token '{found[0]}'"
    if found := re.search(r"[\x00-\x08\x0b-\x1f\x7f]", instruction):
        return f"it holds the control character U+{ord(found[0]):04X}"
    if require_question and not re.search(r"[?？؟]", instruction):
        return "it has no question mark"
    return None


def problem_with_template(template: str, require_question: bool) -> str | None:
    """What is wrong with a template of `instructions.templates`; None for a good one."""
    if unknown := [found for found in PLACEHOLDER.findall(template) if found != "{prompt}"]:
        return f"it has `{unknown[0]}`, which nothing fills in: only `{{prompt}}` is filled in"
    return problem_with(template, require_question)


def from_template(templates: Sequence[str], seed: int, prompt: Prompt) -> tuple[str, str]:
    """The template that is drawn for a prompt, each with equal chance, and the instruction that it
    makes.

    Templates draw their lots by themselves: adding, editing or taking away one changes no prompt
    but those that it is drawn for, and their order means nothing. `seed`: the run's.
    """
    drawn = min(
        templates, key=lambda template: (seed_of(seed, "template", prompt.id, template), template)
    )
    return drawn, drawn.replace("{prompt}", prompt.text)


def check_prompts_for_templates(templates: Sequence[str], prompts: Iterable[Prompt]) -> None:
    """Refuses a prompt whose text makes an instruction unusable where a template has it filled in.
    Errors: UserError.
    """
    filled_in = [template for template in templates if "{prompt}" in template]
    for prompt in prompts if filled_in else ():
        for template in filled_in:
            # The template itself passed; its question mark is its own.
            if problem := problem_with(
                template.replace("{prompt}", prompt.text), require_question=False
            ):
                raise UserError(
                    f"instructions.templates: prompt {prompt.id} cannot be filled in for"
                    f" `{{prompt}}` of {template[:60]!r}: {problem}. Change the prompt in its file"
                    f" ({prompt.topic}.txt), or write templates without `{{prompt}}`."
                )


def problem_with_answer(
    instruction: str, prompt: str, finish_reason: str, require_question: bool
) -> str | None:
    """What is wrong with an instruction that an LLM wrote about the image of a prompt; None for a
    good one.
    """
    if finish_reason == "length":
        return "it was cut off at `max_new_tokens`"
    if problem := problem_with(instruction, require_question):
        return problem
    if "\n" in instruction:
        return "it has more than one line"
    if found := MENTIONS_THE_PROMPT.search(instruction):
        return f"it speaks of '{found[0]}', which the answering models do not see"
    words, prompt_words = _words(instruction), _words(prompt)
    if words == prompt_words or (
        len(prompt_words) >= SHORTEST_COPY
        and f" {' '.join(prompt_words)} " in f" {' '.join(words)} "
    ):
        return "it repeats the prompt"
    if not _is_about(words, prompt_words):
        return "it is not about the image: it neither names it nor shares a word with its prompt"
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _is_about(words: list[str], prompt_words: list[str]) -> bool:
    """Whether a question names the image, or shares with the prompt a word (or its first five
    letters) that not all questions have.
    """
    stems = [
        {word[:5] for word in group if len(word) > 3 and word not in COMMON_WORDS}
        for group in (words, prompt_words)
    ]
    # Scripts that put no blanks between words, and prompts of short words only, are not judged.
    return (
        not stems[1]
        or not " ".join(words).isascii()
        or bool(stems[0] & stems[1])
        or bool(NAMES_THE_IMAGE.search(" ".join(words)))
    )


def written_digest(instructions: Mapping[str, str], shard: Shard | None) -> str:
    """Changes when, and only when, an instruction of the shard does: editing one of the file's
    lines reruns one shard.
    """
    return digest([instructions.get(prompt.id) for prompt in shard.prompts] if shard else [])


def read_instruction_file(
    path: Path, prompts: Iterable[Prompt], require_question: bool, others_too: bool = False
) -> dict[str, str]:
    """The instructions of a JSON-lines file by prompt id, one for each prompt.

    A line is `{"prompt": "<its text>", "instruction": "..."}` or `{"id": "<prompt id>",
    "instruction": "..."}`; where it stands means nothing. Whatever does not fit (not JSON, an
    unknown prompt, a second line for one prompt, a prompt without a line, an instruction that fails
    the checks) is a UserError that names file and line.

    Args:
        path: the file, UTF-8.
        prompts: all prompts of the run.
        require_question: refuse instructions without a question mark.
        others_too: `prompts` are some of the run's only; lines about others are passed over.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file. Correct `instructions.file`.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8. Save the file as UTF-8, e.g. `iconv -f latin1 -t utf-8`."
        ) from error
    by_id = {prompt.id: prompt for prompt in prompts}
    by_text = {prompt.text: prompt for prompt in by_id.values()}
    instructions: dict[str, str] = {}
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{where}: not valid JSON ({error}). Write one JSON object a line."
            ) from error
        if not isinstance(entry, dict) or not isinstance(entry.get("instruction"), str):
            raise UserError(f"{where}: has no text under `instruction`. Add it.")
        prompt = _prompt_of(entry, by_id, by_text, where, others_too)
        if prompt is None:
            continue
        if prompt.id in instructions:
            raise UserError(
                f"{where}: a second instruction for prompt {prompt.id}; the first is on line"
                f" {line_of[prompt.id]}. Delete one."
            )
        instruction = unicodedata.normalize("NFC", entry["instruction"].strip())
        if problem := problem_with(instruction, require_question):
            mend = (
                "Delete it: the workflow adds the image itself."
                if "<image>" in problem
                else "Correct it."
            )
            raise UserError(f"{where}: the instruction cannot be used: {problem}. {mend}")
        instructions[prompt.id] = instruction
        line_of[prompt.id] = number
    if lacking := [prompt for prompt in by_id.values() if prompt.id not in instructions]:
        shown = "\n".join(f"  {prompt.id}: {prompt.text}" for prompt in lacking[:5])
        raise UserError(
            f"{path}: has no line for {len(lacking)} of {len(by_id)} prompts. Add one for each; the"
            f" first are:\n{shown}"
        )
    return instructions


def _prompt_of(
    entry: dict[str, object],
    by_id: dict[str, Prompt],
    by_text: dict[str, Prompt],
    where: str,
    others_too: bool,
) -> Prompt | None:
    """The prompt that a line names by `prompt` or `id`; if by both, they must agree. None for a
    prompt that is not asked about.
    """
    found = []
    for key, known in (("prompt", by_text), ("id", by_id)):
        if key in entry:
            name = entry[key]
            prompt = (
                known.get(unicodedata.normalize("NFC", name.strip()))
                if isinstance(name, str)
                else None
            )
            if prompt is None and others_too:
                return None
            if prompt is None:
                raise UserError(
                    f"{where}: there is no prompt with {key} {name!r}. Correct the line, or"
                    " delete it."
                )
            found.append(prompt)
    if not found:
        raise UserError(f"{where}: names no prompt. Add `prompt` (its text) or `id`.")
    if len(set(found)) > 1:
        raise UserError(
            f"{where}: `prompt` is {found[0].id}, but `id` says {found[1].id}. Correct one of them."
        )
    return found[0]
