"""BLIP's image-text matching, which tells how likely a text belongs to an image."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny.initialisation import initialise
from tiny.saving import image_preprocessing, save_weights, write_json
from tiny.tokenization import bert_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_blip(directory: Path) -> None:
    """BLIP's image-text matching: images of 32 x 32 px. Source of the layout:
    Salesforce/blip-itm-base-coco.
    """
    from transformers import BlipConfig, BlipForImageTextRetrieval

    tokenizer = bert_tokenizer()
    model = BlipForImageTextRetrieval(
        BlipConfig(
            text_config={
                "vocab_size": len(tokenizer) + 2,  # room for [DEC] and [ENC], as in the original
                "hidden_size": 32,
                "encoder_hidden_size": 32,
                "intermediate_size": 64,
                "projection_dim": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "bos_token_id": len(tokenizer),
                "eos_token_id": 2,
                "pad_token_id": tokenizer.pad_token_id,
                "sep_token_id": tokenizer.sep_token_id,
            },
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
                # The default of 1e-10 would leave the vision tower at zero.
                "initializer_range": 0.02,
            },
            projection_dim=32,
            image_text_hidden_size=32,
        )
    )
    initialise(model, 31)
    save_blip(model, tokenizer, directory)


def save_blip(
    model: Any, tokenizer: "PreTrainedTokenizerBase", directory: Path, dtype: str = "float32"
) -> None:
    """Saves a BlipForImageTextRetrieval with its tokenizer and image processor, as Salesforce's
    repositories hold it.
    """
    side = model.config.vision_config.image_size
    save_weights(model, directory, dtype=dtype)
    tokenizer.save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_preprocessing(
            "BlipImageProcessor", {"height": side, "width": side}, processor_class="BlipProcessor"
        ),
    )
