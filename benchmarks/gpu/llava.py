"""LLaVA-1.5 and LLaVA-1.6 of 7 billion weights, and processors as the hub's repositories have them
around a small tokenizer.
"""

from pathlib import Path
from typing import Any

from gpu.weights import build

VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "projection_dim": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
TINY_VISION = VISION | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
}
TILES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


def language_sizes(language: str, is_real: bool) -> dict[str, Any]:
    """The sizes of Vicuna 7B (`llama`) or Mistral 7B."""
    if not is_real:
        return {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2 if language == "llama" else 1,
        }
    return {
        "hidden_size": 4096,
        "intermediate_size": 11008 if language == "llama" else 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32 if language == "llama" else 8,
    }


def vision_sizes(is_real: bool, tiles: bool) -> dict[str, Any]:
    """The sizes of CLIP-L at 336 pixels; tiny: 56 pixels, or tiles of 28."""
    return VISION if is_real else TINY_VISION | {"image_size": 28 if tiles else 56}


def new_config(language: str, is_real: bool, tiles: bool, tokenizer: Any) -> Any:
    """The configuration of a LLaVA-1.5, or of a LLaVA-1.6, which looks at an image in tiles."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaNextConfig,
        MistralConfig,
    )

    from tiny.tokenization import IMAGE, padded_vocabulary

    config_class = LlamaConfig if language == "llama" else MistralConfig
    more = {} if language == "llama" else {"sliding_window": None}
    text = config_class(
        **language_sizes(language, is_real),
        **more,
        vocab_size=32064 if is_real else padded_vocabulary(tokenizer),
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    vision = CLIPVisionConfig(**vision_sizes(is_real, tiles))
    common: dict[str, Any] = {
        "text_config": text,
        "vision_config": vision,
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE),
        "pad_token_id": tokenizer.pad_token_id,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    if tiles:
        return LlavaNextConfig(**common, image_grid_pinpoints=pinpoints_of(vision.image_size))
    patches = (vision.image_size // vision.patch_size) ** 2
    return LlavaConfig(**common, image_seq_length=patches)


def new_model(device: str, language: str, tiles: bool, tokenizer: Any) -> Any:
    """A LLaVA with random weights on the device, in bfloat16 (on a CPU in float32); its answers do
    not end.
    """
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

    is_real = device == "cuda"
    config = new_config(language, is_real, tiles, tokenizer)
    architecture = LlavaNextForConditionalGeneration if tiles else LlavaForConditionalGeneration
    model = build(device, "bfloat16" if is_real else "float32", lambda: architecture(config))
    with torch.no_grad():  # a logit of 0 is never the highest
        model.get_output_embeddings().weight[tokenizer.eos_token_id] = 0
    return model


def pinpoints_of(side: int) -> list[list[int]]:
    """Heights and widths that an image may be cut into tiles at."""
    return [[side * rows, side * columns] for rows, columns in TILES]


def write_processor(folder: Path, config: Any, tokenizer: Any, template: str) -> None:
    """Writes the processor of a model with this configuration, as llava-hf's repositories hold
    it.
    """
    from tiny.llava import llava_preprocessing
    from tiny.saving import save_tokenizer, write_json
    from tiny.tokenization import IMAGE

    name = "LlavaNextProcessor" if config.model_type == "llava_next" else "LlavaProcessor"
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, name)
    write_json(folder / "chat_template.json", {"chat_template": template})
    processor = {
        "image_token": IMAGE,
        "num_additional_image_tokens": 1,
        "patch_size": config.vision_config.patch_size,
        "processor_class": name,
        "vision_feature_select_strategy": "default",
    }
    write_json(folder / "processor_config.json", processor)
    preprocessing = llava_preprocessing(config) | {"processor_class": name}
    write_json(folder / "preprocessor_config.json", preprocessing)
