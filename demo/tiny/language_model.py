"""The shape of the tiny Llama and Mistral that answer and ask."""

from typing import TYPE_CHECKING, Any

from tiny.tokenization import padded_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEAD_WIDTH = 32  # vLLM on a CPU refuses fewer dimensions


def language_config(
    language: str, hidden_size: int, tokenizer: "PreTrainedTokenizerBase", **more: Any
) -> Any:
    """Configuration of a tiny Llama or Mistral.

    Args:
        language: `llama`, `mistral` or `llama3`.
        hidden_size: a multiple of `HEAD_WIDTH`.
        tokenizer: for the size of its vocabulary and the ids of its special tokens.
        more: settings in place of these.
    """
    from transformers import LlamaConfig, MistralConfig

    heads = hidden_size // HEAD_WIDTH
    settings: dict[str, Any] = {
        "vocab_size": padded_vocabulary(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": heads if language == "llama" else 1,
        "head_dim": HEAD_WIDTH,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "initializer_range": 0.15,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    } | more
    if language == "mistral":
        return MistralConfig(**settings, sliding_window=None)
    if language == "llama3":
        settings["rope_parameters"] = {"rope_type": "default", "rope_theta": 500000.0}
    return LlamaConfig(**settings)
