"""LLaVA-OneVision: SigLIP and Qwen2, a picture as a whole and in tiles. Source of the layout:
llava-hf's repositories.
"""

from pathlib import Path

from tiny.byte_tokens import CHATML, byte_tokenizer, ids_of, save_with_processor
from tiny.tokenization import padded_vocabulary

PICTURE, VIDEO = "<image>", "<video>"
TEMPLATE = CHATML.format(image="<image>\n")
SIDE, PATCH = 28, 14


def build_llava_onevision(directory: Path) -> None:
    """A random LLaVA-OneVision: tiles of 28 px, patches of 14 px.

    Args:
        directory: to write to.
    """
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer = byte_tokenizer(("<|im_start|>", PICTURE, VIDEO))
    pinpoints = [[SIDE * rows, SIDE * columns] for rows in (1, 2) for columns in (1, 2)]
    pictures = LlavaOnevisionImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=pinpoints
    )
    processor = LlavaOnevisionProcessor(
        pictures,
        tokenizer,
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )
    text = {
        "model_type": "qwen2",
        "vocab_size": padded_vocabulary(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "image_size": SIDE,
        "patch_size": PATCH,
        "vision_use_head": False,
    }
    config = LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_grid_pinpoints=pinpoints,
        **{
            f"{name[:-2]}index": value
            for name, value in ids_of(tokenizer, image=PICTURE, video=VIDEO).items()
        },
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    save_with_processor(model, processor, directory, seed=72)
