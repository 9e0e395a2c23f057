"""How a model is asked: the chat template in its folder, rendered as transformers renders it,
without importing that.

A prompt template is the rendered text of one question: `{instruction}` stands for its words, and
the picture's place is marked by whatever the model's own template puts there (`<image>`,
`<|vision_start|><|image_pad|><|vision_end|>`), or by `<image>` where a person wrote it.
"""

import json
import os.path
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lib import weights
from lib.blocks import Model
from lib.errors import UserError
from lib.vicuna import with_system

INSTRUCTION = "{instruction}"
IMAGE = "<image>"
QUESTION = {"type": "text", "text": INSTRUCTION}
#: The files that say how a model is asked, in the order in which transformers looks for a
#: processor's template.
TEMPLATE_FILES = ("processor_config.json", "chat_template.jinja", "chat_template.json")
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")
#: All that a model's folder holds of its processor, and its configuration.
FILES = ("*.json", "*.jinja", "*.txt", "*.model")
#: The special tokens that a template may name.
SPECIAL = tuple(f"{name}_token" for name in ("bos", "eos", "pad", "unk", "sep", "cls", "mask"))

Parts = Sequence[dict[str, str]]


def asked_as(model: Model, configured: str | None, system_prompt: str | None) -> str:
    """The prompt template that a model is trained with: the configured one, or its own chat
    template's; before one of Vicuna's form stands the system prompt. Errors: UserError.
    """
    template = configured
    if template is None:
        template = own_template(weights.fetch(model.model, model.revision, only=FILES))
    return with_system(template, system_prompt or "")


def own_template(folder: Path) -> str:
    """The prompt template of a model's chat template. Errors: UserError if it has none, or one that
    takes no picture and text.
    """
    asked = _render(folder, [{"type": "image"}, QUESTION])
    if asked.count(INSTRUCTION) != 1 or asked == _without_picture(folder):
        raise UserError(
            f"{folder}: its chat template leaves the picture or the words of a question out"
            f" ({asked[:200]!r}). Take a vision-language model, or set `training.prompt_template`."
        )
    return asked


def with_own_mark(template: str, folder: Path) -> str:
    """A prompt template with the model's own mark of a picture in place of `<image>`."""
    if IMAGE not in template or _chat_template(folder) is None:
        return template
    asked, text_only = own_template(folder), _without_picture(folder)
    if IMAGE in asked or text_only is None:
        return template
    before = _shared(asked, text_only)
    behind = _shared(asked[before:][::-1], text_only[before:][::-1])
    return template.replace(IMAGE, asked[before : len(asked) - behind].strip())


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    return len(os.path.commonprefix([one, other]))  # noqa: RUF071 - characters are meant


def seen_by_model(tokenizer: Any, prompt: str, system: str) -> str:
    """A rendered prompt as the model is to see it: without the BOS that its template writes where
    transformers' tokenizer writes it too, and behind the system prompt where it is of Vicuna's
    form.
    """
    begin = tokenizer.bos_token
    if begin and prompt.startswith(begin):
        bare = prompt.removeprefix(begin)
        if tokenizer(bare)["input_ids"][:1] == [tokenizer.bos_token_id]:
            prompt = bare
    return with_system(prompt, system)


def is_another_form(configured: str | None, folder: Path) -> bool:
    """Whether a configured prompt template is not what the model's chat template makes of a
    question.
    """
    if configured is None or _chat_template(folder) is None:
        return False
    return with_own_mark(configured, folder) != own_template(folder)


def _without_picture(folder: Path) -> str | None:
    """A question without a picture; None where the chat template knows no such."""
    try:
        return _render(folder, [QUESTION])
    except UserError:
        return None


def _render(folder: Path, content: Parts) -> str:
    """One user's turn, and what stands before the answer."""
    from jinja2 import TemplateError

    source = _chat_template(folder)
    if source is None:
        raise UserError(
            f"{folder}: the base model has no chat template, so that it is not known how to ask it."
            " Set `training.prompt_template`, or take a model that is made to answer."
        )
    turn = {"role": "user", "content": content}
    try:
        template = _environment().from_string(source)
        tokens = _special_tokens(folder)
        return str(template.render(messages=[turn], add_generation_prompt=True, **tokens))
    except (TemplateError, TypeError) as error:
        raise UserError(
            f"{folder}: its chat template cannot put a picture and a question ({error}). Set"
            " `training.prompt_template`, or take another base model."
        ) from error


@cache
def _environment() -> Any:
    """Jinja as transformers sets it up. `strftime_now` is left out, for which templates have a
    fixed date: training is to be the same tomorrow.
    """
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag around what the model says, which transformers renders as it stands."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own attribute

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment


def _chat_template(folder: Path) -> str | None:
    """The chat template of a folder's processor; None where it has none."""
    for name in TEMPLATE_FILES:
        file = folder / name
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        found = text if file.suffix == ".jinja" else json.loads(text).get("chat_template")
        if isinstance(found, dict):
            found = found.get("default")
        if found:
            return str(found)
    return None


def _special_tokens(folder: Path) -> dict[str, str]:
    """The special tokens of a folder's tokenizer by the names that templates have for them."""
    found: dict[str, str] = {}
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            tokens = json.loads((folder / name).read_text(encoding="utf-8"))
            for key in SPECIAL:
                token = tokens.get(key)
                if token := token["content"] if isinstance(token, dict) else token:
                    found.setdefault(key, token)
    return found
