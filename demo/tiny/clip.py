"""CLIP, which scores how well an image fits a text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny.initialisation import initialise
from tiny.saving import image_preprocessing, save_weights, write_json
from tiny.tokenization import clip_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_clip(directory: Path) -> None:
    """CLIP: images of 32 x 32 px, embeddings of 32 dimensions. Source of the layout:
    openai/clip-vit-large-patch14.
    """
    from transformers import CLIPConfig, CLIPModel

    tokenizer = clip_tokenizer()
    model = CLIPModel(
        CLIPConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 77,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": 1,
            },
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
            },
            projection_dim=32,
        )
    )
    initialise(model, 21)
    save_clip(model, tokenizer, directory)


def save_clip(
    model: Any, tokenizer: "PreTrainedTokenizerBase", directory: Path, dtype: str = "float32"
) -> None:
    """Saves a CLIPModel with its tokenizer and image processor, as OpenAI's repositories hold
    it.
    """
    side = model.config.vision_config.image_size
    save_weights(model, directory, dtype=dtype)
    tokenizer.save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_preprocessing(
            "CLIPImageProcessor",
            {"shortest_edge": side},
            do_center_crop=True,
            crop_size={"height": side, "width": side},
            processor_class="CLIPProcessor",
        ),
    )
