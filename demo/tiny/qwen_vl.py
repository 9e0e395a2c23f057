"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures in their own ratio, of as many tokens as they are
large. Source of the layout: the repositories of Qwen.
"""

from pathlib import Path
from typing import Any

from tiny.byte_tokens import CHATML, byte_tokenizer, ids_of, save_with_processor
from tiny.tokenization import padded_vocabulary

TOKENS = {
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
}
TEMPLATE = CHATML.format(image="<|vision_start|><|image_pad|><|vision_end|>")
QWENS = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl")


def build_qwen_vl(directory: Path, name: str) -> None:
    """A random Qwen-VL: patches of 14 px (16 px in Qwen3), four of them a token.

    Args:
        directory: to write to.
        name: one of `QWENS`.
    """
    import transformers

    tokenizer = byte_tokenizer(("<|im_start|>", *TOKENS.values()))
    family = {"qwen2-vl": "Qwen2VL", "qwen2.5-vl": "Qwen2_5_VL", "qwen3-vl": "Qwen3VL"}[name]
    is_third = name == "qwen3-vl"
    side = 32 if is_third else 28
    pictures = transformers.Qwen2VLImageProcessor(
        patch_size=side // 2, min_pixels=side**2, max_pixels=(4 * side) ** 2
    )
    videos = getattr(transformers, f"{'Qwen3' if is_third else 'Qwen2'}VLVideoProcessor")()
    processor = getattr(transformers, f"{family}Processor")(
        pictures, tokenizer, videos, chat_template=TEMPLATE
    )
    config = getattr(transformers, f"{family}Config")(
        text_config=language(name, padded_vocabulary(tokenizer)),
        vision_config=vision(name),
        **ids_of(tokenizer, **TOKENS),
    )
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    save_with_processor(model, processor, directory, seed=60 + QWENS.index(name))


def language(name: str, vocabulary: int) -> dict[str, Any]:
    """The language model's settings, whose positions are in three axes."""
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    more = {"head_dim": 32, "mrope_interleaved": True} if name == "qwen3-vl" else {}
    return {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "rope_parameters": rope,
        **more,
    }


def vision(name: str) -> dict[str, Any]:
    """The vision tower's settings."""
    if name == "qwen2-vl":  # what it gives out is called its hidden size
        return {"depth": 2, "num_heads": 1, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    shared = {"depth": 2, "num_heads": 1, "hidden_size": 32, "intermediate_size": 64}
    if name == "qwen3-vl":
        deep = {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
        return {**shared, "out_hidden_size": 64, **deep}
    return {**shared, "out_hidden_size": 64, "fullatt_block_indexes": [1]}
