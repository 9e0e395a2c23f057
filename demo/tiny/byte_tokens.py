"""A tokenizer of the Qwen kind whose tokens are bytes, and saving a model with its processor as
transformers does: for the architectures that are built on demand, whose answers are of no interest.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TURN, PAD = "<|im_end|>", "<|endoftext|>"
#: Qwen's turns, and the text of a turn's parts behind what stands for its pictures.
CHATML = (
    "{{% for message in messages %}}{{{{ '<|im_start|>' + message['role'] + '\n' }}}}"
    "{{% if message['content'] is string %}}{{{{ message['content'] }}}}{{% else %}}"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}"
    "{{{{ '{image}' }}}}{{% elif 'text' in part %}}{{{{ part['text'] }}}}{{% endif %}}"
    "{{% endfor %}}"
    "{{% endif %}}{{{{ '<|im_end|>\n' }}}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}"
)


def byte_tokenizer(
    special: Sequence[str],
    end_of_turn: str = END_OF_TURN,
    pad: str = PAD,
    named: Mapping[str, str] | None = None,
    **more: Any,
) -> "PreTrainedTokenizerBase":
    """A tokenizer with one token a byte.

    Args:
        special: its special tokens besides the end of a turn and the padding.
        end_of_turn, pad: these.
        named: special tokens by the names that a processor asks the tokenizer for.
        more: other settings of the tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=end_of_turn,
        pad_token=pad,
        padding_side="left",
        model_max_length=4096,
        **({"extra_special_tokens": dict(named)} if named else {}),
        **more,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)}, False)
    return tokenizer


def save_with_processor(model: Any, processor: Any, directory: Path, seed: int) -> None:
    """Fills a model with random weights and saves it with its processor, as transformers does.

    Args:
        model: of any architecture.
        processor: with a chat template.
        directory: to write to.
        seed: of the weights.
    """
    from transformers import GenerationConfig

    from tiny.initialisation import initialise

    initialise(model, seed)
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


def ids_of(tokenizer: "PreTrainedTokenizerBase", **tokens: str) -> dict[str, int]:
    """The settings `<name>_token_id` of a configuration, of tokens by name."""
    return {
        f"{name}_token_id": int(tokenizer.convert_tokens_to_ids(token))
        for name, token in tokens.items()
    }
