"""How a pair becomes token ids: those that the model sees when it answers, for every kind of
tokenizer.
"""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from lib.errors import UserError
from lib.training.preference_format import Encode, PreferenceFormat, fill_template, fit_format

TEMPLATE = "USER: <image>\n{instruction} ASSISTANT:"
INSTRUCTION = "How many objects are visible near the lamp in this image?"
RESPONSE = "The small dog holds a lamp near trees."


def encoder(tokenizer: Tokenizer) -> Encode:
    return lambda text, special: list(tokenizer.encode(text, add_special_tokens=special).ids)


def llama(demo_models: Path, legacy: bool) -> Tokenizer:
    """A Llama tokenizer; in its legacy form every piece of text between special tokens begins with
    a space of its own.
    """
    content = json.loads((demo_models / "llava-1.5" / "tokenizer.json").read_text())
    if legacy:
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        content["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace],
        }
        content["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(content))


def fitted(
    tokenizer: Tokenizer, bos: str = "<s>", eos: str = "</s>", template: str = TEMPLATE
) -> PreferenceFormat:
    return fit_format(template, encoder(tokenizer), bos, eos, ["<image>", bos, eos])


@pytest.mark.parametrize("legacy", [False, True])
def test_prompt_and_response_have_the_ids_of_the_joint_text(
    demo_models: Path, legacy: bool
) -> None:
    tokenizer = llama(demo_models, legacy)
    form, encode = fitted(tokenizer), encoder(tokenizer)
    ids = encode(form.prompt(INSTRUCTION), False) + encode(form.response(RESPONSE), False)
    joint = [
        *encode(f"{fill_template(TEMPLATE, INSTRUCTION)} {RESPONSE}", True),
        tokenizer.token_to_id("</s>"),
    ]
    assert ids == joint
    bos, eos = ids[0], ids[-1]
    assert (tokenizer.id_to_token(bos), tokenizer.id_to_token(eos)) == ("<s>", "</s>")
    assert (ids.count(bos), ids.count(eos)) == (1, 1)
    assert tokenizer.decode(ids).endswith(f"{INSTRUCTION} ASSISTANT: {RESPONSE}")
    assert tokenizer.id_to_token(ids[1]) == "▁USER"
    assert tokenizer.id_to_token(encode(form.response(RESPONSE), False)[0]) == "▁The"


def test_a_byte_level_tokenizer_gets_the_space_before_the_response(demo_models: Path) -> None:
    tokenizer = Tokenizer.from_file(str(demo_models / "llama3-llava-next" / "tokenizer.json"))
    form, encode = fitted(tokenizer, "<|begin_of_text|>", "<|eot_id|>"), encoder(tokenizer)
    assert form.before_response == " "
    ids = encode(form.prompt(INSTRUCTION), False) + encode(form.response(RESPONSE), False)
    assert ids == encode(f"{fill_template(TEMPLATE, INSTRUCTION)} {RESPONSE}<|eot_id|>", True)


@pytest.mark.parametrize(
    "text",
    ["{instruction}", "{", "50% %s $HOME", "“quoted” 'text'", "שלום 🙂", "two\nlines", "\\n"],
)
def test_texts_are_data(demo_models: Path, text: str) -> None:
    form = fitted(llama(demo_models, False))
    assert form.prompt(text) == f"{form.beginning}USER: <image>\n{text} ASSISTANT:"
    assert form.response(text) == f"{text}</s>"


def test_spaces_around_texts_do_not_double(demo_models: Path) -> None:
    form = fitted(llama(demo_models, False))
    assert form.prompt(f" {INSTRUCTION}\n") == form.prompt(INSTRUCTION)
    assert form.response(f"  {RESPONSE} \n") == form.response(RESPONSE)


def test_texts_that_spell_a_special_token_are_found(demo_models: Path) -> None:
    form = fitted(llama(demo_models, False))
    assert form.special_token_in(INSTRUCTION, RESPONSE) is None
    assert form.special_token_in(INSTRUCTION, "The <image> shows a lamp.") == "<image>"
    assert form.special_token_in("Stop</s>", RESPONSE) == "</s>"


def test_a_template_that_ends_in_a_space_is_refused(demo_models: Path) -> None:
    with pytest.raises(UserError, match=r"prompt_template.*no space"):
        fitted(llama(demo_models, False), template="USER: <image>\n{instruction} ASSISTANT: ")


def test_a_tokenizer_without_an_end_is_refused(demo_models: Path) -> None:
    with pytest.raises(UserError, match="end-of-sequence"):
        fit_format(TEMPLATE, encoder(llama(demo_models, False)), "<s>", None, [])


def test_a_chat_template_that_ends_in_a_line_break_needs_no_space(demo_models: Path) -> None:
    tokenizer = Tokenizer.from_file(str(demo_models / "llama3-llava-next" / "tokenizer.json"))
    template = "<image>\n{instruction}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    form = fitted(tokenizer, "<|begin_of_text|>", "<|eot_id|>", template)
    assert form.before_response == ""
