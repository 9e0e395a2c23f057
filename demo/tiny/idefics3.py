"""Idefics3, which SmolVLM is: a picture as tiles and as a whole. Source of the layout:
HuggingFaceTB's repositories.
"""

from pathlib import Path

from tiny.byte_tokens import byte_tokenizer, ids_of, save_with_processor
from tiny.tokenization import padded_vocabulary

BEGIN, END, PICTURE = "<|im_start|>", "<end_of_utterance>", "<image>"
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
SIDE, PATCH, SCALE = 28, 14, 2


def build_idefics3(directory: Path) -> None:
    """A random Idefics3: tiles of 28 px, four patches of 14 px a token.

    Args:
        directory: to write to.
    """
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    around = ("<fake_token_around_image>", "<global-img>")
    tokenizer = byte_tokenizer(
        (BEGIN, PICTURE, *around, *places), end_of_turn=END, pad="<|endoftext|>", bos_token=BEGIN
    )
    pictures = Idefics3ImageProcessor(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    processor = Idefics3Processor(
        pictures,
        tokenizer,
        image_seq_len=(SIDE // PATCH // SCALE) ** 2,
        chat_template=TEMPLATE,
    )
    text = {
        "model_type": "llama",
        "vocab_size": padded_vocabulary(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    config = Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=SCALE,
        pad_token_id=tokenizer.pad_token_id,
        **ids_of(tokenizer, image=PICTURE),
    )
    save_with_processor(Idefics3ForConditionalGeneration(config), processor, directory, seed=70)
