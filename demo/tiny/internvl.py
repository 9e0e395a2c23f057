"""InternVL in the form that transformers loads: one tile or several of a picture, four patches a
token. Source of the layout: OpenGVLab's repositories that end in `-hf`.
"""

from pathlib import Path

from tiny.byte_tokens import CHATML, byte_tokenizer, ids_of, save_with_processor
from tiny.tokenization import padded_vocabulary

NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TEMPLATE = CHATML.format(image="<IMG_CONTEXT>\n")
SIDE, PATCH = 28, 7


def build_internvl(directory: Path) -> None:
    """A random InternVL on a Qwen2: tiles of 28 px, patches of 7 px.

    Args:
        directory: to write to.
    """
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer = byte_tokenizer(("<|im_start|>",), named=NAMED)
    pictures = GotOcr2ImageProcessor(
        size={"height": SIDE, "width": SIDE}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = InternVLProcessor(
        pictures,
        tokenizer,
        InternVLVideoProcessor(),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
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
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "image_size": [SIDE, SIDE],
        "patch_size": [PATCH, PATCH],
    }
    config = InternVLConfig(
        text_config=text, vision_config=vision, **ids_of(tokenizer, image="<IMG_CONTEXT>")
    )
    save_with_processor(InternVLForConditionalGeneration(config), processor, directory, seed=71)
