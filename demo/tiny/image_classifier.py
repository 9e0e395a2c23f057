"""A classifier of pictures with two labels, as content checkers are."""

from pathlib import Path

from tiny.initialisation import initialise
from tiny.saving import image_preprocessing, save_weights, write_json


def build_image_classifier(directory: Path) -> None:
    """A ViT for images of 16 x 16 px. Source of the layout: Falconsai/nsfw_image_detection."""
    from transformers import ViTConfig, ViTForImageClassification

    labels = {0: "other", 1: "unsafe"}
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=16,
            image_size=16,
            patch_size=8,
            id2label=labels,
            label2id={name: number for number, name in labels.items()},
        )
    )
    initialise(model, 96)
    save_weights(model, directory)
    write_json(
        directory / "preprocessor_config.json",
        image_preprocessing("ViTImageProcessor", {"height": 16, "width": 16}),
    )
