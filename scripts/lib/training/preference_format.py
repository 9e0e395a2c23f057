"""How a pair becomes the texts that DPO is trained on: prompt, chosen and rejected. Nothing here
imports torch.

The trainer tokenizes prompt and response apart, without adding special tokens, and joins the ids. A
generating model sees the ids of the prompt behind the tokenizer's own BOS and goes on from
there. Both must be the same ids, and whether a space belongs behind `<s>`, or before a response,
differs from tokenizer to tokenizer (a Llama tokenizer begins each text with a space of its own). So
it is not assumed: `fit_format` tries which texts give the ids that are seen when the model answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib.chat_template import INSTRUCTION
from lib.errors import UserError

#: Token ids of a text; the second argument says whether the tokenizer adds its special tokens
#: (BOS).
Encode = Callable[[str, bool], list[int]]

PROBES = ("The lamp is red.", "a lamp", "2 lamps.", "No", "“Yes”", "(one)")


@dataclass(frozen=True)
class PreferenceFormat:
    """The texts of a pair under one prompt template and one tokenizer."""

    template: str
    beginning: str
    before_response: str
    end: str
    #: Texts that the tokenizer reads as special tokens, wherever they stand.
    special_tokens: tuple[str, ...]

    def prompt(self, instruction: str) -> str:
        """The prompt, BOS included, with the model's mark where the image is."""
        return self.beginning + fill_template(self.template, instruction)

    def response(self, response: str) -> str:
        """A response as it follows the prompt, EOS included."""
        return self.before_response + response.strip() + self.end

    def special_token_in(self, *texts: str) -> str | None:
        """The first special token that one of the texts spells out, or None.

        A text that says `<image>` or `</s>` would be tokenized as an image without pixels, or as an
        end in its middle.
        """
        return next(
            (token for token in self.special_tokens for text in texts if token in text), None
        )


def fill_template(template: str, instruction: str) -> str:
    """The prompt template with the instruction in it, whose braces stay as they are."""
    return template.replace(INSTRUCTION, instruction.strip())


def fit_format(
    template: str, encode: Encode, bos: str | None, eos: str | None, special_tokens: Sequence[str]
) -> PreferenceFormat:
    """The format whose ids are those that the model sees when it answers.

    Args:
        template: of prompts, with the model's mark of a picture and `{instruction}`.
        encode: the tokenizer.
        bos, eos: its beginning and end tokens, as text.
        special_tokens: all its special tokens, as text.

    Errors: UserError if the tokenizer has no EOS, or no text gives those ids.
    """
    if not eos:
        raise UserError(
            "The base model's tokenizer has no end-of-sequence token: a trained answer could not"
            " end. Use another base model."
        )
    template = without_second_beginning(template, encode, bos or "")
    prompt = fill_template(template, "What is this?")
    beginning = find_beginning(prompt, encode, bos or "")
    before_response = find_text_before_response(beginning + prompt, encode, eos)
    return PreferenceFormat(template, beginning, before_response, eos, tuple(special_tokens))


def without_second_beginning(template: str, encode: Encode, bos: str) -> str:
    """A template without the BOS that it writes, where the tokenizer writes it too: the model is
    to see one.
    """
    bare = template.removeprefix(bos)
    is_doubled = bare != template and encode(bare, True)[:1] == encode(bos, False)[:1]
    return bare if is_doubled else template


def find_beginning(prompt: str, encode: Encode, bos: str) -> str:
    """The text before a prompt that gives the ids which the tokenizer gives it by itself. Errors:
    UserError.
    """
    ids = encode(prompt, True)
    for text in (bos, f"{bos} ", ""):
        if encode(text + prompt, False) == ids:
            return text
    raise UserError(
        f"`training.prompt_template`: its beginning {prompt[:20]!r} has other token ids behind"
        f" a written {bos!r} than behind the tokenizer's own. Begin the template with a word."
    )


def find_text_before_response(prompt: str, encode: Encode, eos: str) -> str:
    """The text before a response with which its ids, joined to the prompt's, are those of the whole
    text. Errors: UserError.
    """
    between = "" if prompt[-1].isspace() else " "
    prompt_ids = encode(prompt, False)
    joint_ids = [encode(prompt + between + probe + eos, False) for probe in PROBES]
    for before in ("", " "):
        if joint_ids == [prompt_ids + encode(before + probe + eos, False) for probe in PROBES]:
            return before
    raise UserError(
        f"`training.prompt_template`: its end {prompt[-20:]!r} and a response behind it have"
        " other token ids together than apart. End the template with the colon, or the token,"
        " after which the model answers, and no space."
    )
