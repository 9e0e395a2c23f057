"""The shape of the tiny Llama and Mistral that answer and ask."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def language_config(
    language: str, vocabulary: int, hidden_size: int, tokenizer: "PreTrainedTokenizerBase"
) -> Any:
    """Configuration of a tiny Llama or Mistral.

    Args:
        language: `llama`, `mistral` or `llama3`.
        vocabulary: tokens, those beyond the tokenizer's included.
        hidden_size: a multiple of 32.
        tokenizer: for the ids of its special tokens.
    """
    from transformers import LlamaConfig, MistralConfig

    heads = hidden_size // 32
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "head_dim": 32,
        "initializer_range": 0.15,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    if language == "mistral":
        return MistralConfig(
            **shape,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            max_position_embeddings=4096,
            sliding_window=None,
        )
    if language == "llama3":
        return LlamaConfig(
            **shape,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            max_position_embeddings=4096,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        )
    return LlamaConfig(
        **shape, num_key_value_heads=heads, rms_norm_eps=1e-5, max_position_embeddings=4096
    )
