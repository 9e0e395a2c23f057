"""Prompts in a model's own chat template, and where its answers end.

A prompt is one string that the tokenizer turns into ids with exactly one BOS.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.models.response_generators.requests import Generated
from lib.vicuna import with_system


def load_processor(folder: Path, with_images: bool) -> Any:
    """The model's processor, or its tokenizer if it reads no images; a UserError if it has no chat
    template.
    """
    from transformers import AutoProcessor, AutoTokenizer

    try:
        processor = (AutoProcessor if with_images else AutoTokenizer).from_pretrained(
            folder, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: its {'processor' if with_images else 'tokenizer'} cannot be loaded:"
            f" {first_line(error)}"
        ) from error
    if not processor.chat_template:
        raise UserError(
            f"{folder}: the model has no chat template, so there is no way to ask it. Choose a"
            " model that is made to answer."
        )
    return processor


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor, or the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def special_tokens(processor: Any) -> set[str]:
    """The tokens that a string must not be able to contain as text: BOS, EOS, turn marks, the image
    token.
    """
    tokenizer = tokenizer_of(processor)
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    image = {token for token in [getattr(processor, "image_token", None)] if token}
    return added | set(tokenizer.all_special_tokens) | image


def neutralised(text: str, processor: Any) -> str:
    """The text with a blank inside each of the model's special tokens ("< image>"), so that it is
    tokenized as text, and is data only.
    """
    special = sorted(
        (token for token in special_tokens(processor) if len(token) > 1), key=len, reverse=True
    )
    while (token := next((token for token in special if token in text), None)) is not None:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def chat_prompt(processor: Any, text: str, with_image: bool, system: str = "") -> str:
    """One user message in the model's chat template, as a string whose ids (special tokens added as
    usual) hold BOS once, at the start.

    Some templates write BOS themselves and some tokenizers add it; where both do, or neither,
    models quietly answer worse.
    """
    text = neutralised(text, processor)
    content: Any = [{"type": "image"}, {"type": "text", "text": text}] if with_image else text
    prompt = str(
        processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    )
    tokenizer = tokenizer_of(processor)
    if tokenizer.bos_token is None:
        return with_system(prompt, system)
    prompt = with_system(prompt.removeprefix(tokenizer.bos_token), system)
    adds_bos = tokenizer(prompt)["input_ids"][:1] == [tokenizer.bos_token_id]
    return prompt if adds_bos else tokenizer.bos_token + prompt


def blank_before_answer(processor: Any, with_image: bool) -> str:
    """What the chat template writes between the mark of the model's turn and its answer: a blank,
    or nothing.
    """
    mark = "\ue000"
    question, answer = (
        [{"type": "text", "text": text}] if with_image else text for text in ("?", mark)
    )
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    asked = processor.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
    answered = processor.apply_chat_template(turns, tokenize=False)
    between = answered.removeprefix(asked).partition(mark)[0]
    return "" if between.strip() or between == answered else str(between)


def answer_tokens(
    processor: Any, prompt: str, answers: Sequence[str], with_image: bool
) -> list[list[int]]:
    """The token ids of each answer as it stands behind a prompt of `chat_prompt`."""
    tokenizer, blank = tokenizer_of(processor), blank_before_answer(processor, with_image)
    before = tokenizer(prompt)["input_ids"]
    tokens = []
    for answer in answers:
        whole = tokenizer(f"{prompt}{blank}{answer}")["input_ids"]
        if whole[: len(before)] != before:  # a token reaches over the prompt's end
            whole = before + tokenizer(answer, add_special_tokens=False)["input_ids"]
        tokens.append(list(whole[len(before) :]))
    return tokens


def end_tokens(folder: Path, tokenizer: Any) -> list[int]:
    """The ids that end an answer: those of the model's generation settings, and the tokenizer's."""
    from transformers import GenerationConfig

    try:
        configured = GenerationConfig.from_pretrained(folder, trust_remote_code=False).eos_token_id
    except OSError:
        configured = None
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*ids, tokenizer.eos_token_id] if token is not None})


def finished(tokenizer: Any, ids: list[int], ends: Sequence[int]) -> Generated:
    """The answer in a row of new token ids, which may go on after an end token with padding."""
    end = next((position for position, token in enumerate(ids) if token in ends), None)
    ids = ids if end is None else ids[: end + 1]
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return Generated(text, "length" if end is None else "stop", len(ids))


def first_line(error: BaseException) -> str:
    return next(
        (line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__
    )
