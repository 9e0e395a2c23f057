"""ImageReward, which scores how well people would like an image for a prompt.

The checkpoint is the original's (ImageReward.pt, med_config.json) with a BERT tokenizer beside it.
Random as it is, its scores differ between images and between prompts, so that rankings made with it
are not all ties.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny.initialisation import RandomWeights
from tiny.saving import write_json
from tiny.tokenization import bert_letter_tokenizer, bert_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# The original's keys; only the sizes are small.
TINY_MED_CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "encoder_width": 128,
    "add_cross_attention": True,
}
FULL_MED_CONFIG = TINY_MED_CONFIG | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 30524,
    "encoder_width": 768,
}
MLP_WIDTHS = (1024, 128, 64, 16, 1)
MLP_NUMBERS = (0, 2, 4, 6, 7)  # the original numbers its dropout layers too


def build_image_reward(directory: Path) -> None:
    """The random run's ImageReward. Source of the layout: THUDM/ImageReward."""
    write_image_reward(directory, tokenizer=bert_tokenizer())


def write_image_reward(
    directory: Path,
    seed: int = 0,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    vision_width: int = 128,
    vision_layers: int = 2,
    image_size: int = 64,
    patch: int = 16,
    text: Mapping[str, Any] | None = None,
) -> None:
    """Writes a tiny ImageReward in the original's layout, and its tokenizer.

    Args:
        directory: created where it is missing.
        seed: of the weights.
        tokenizer: any BERT tokenizer; None: one that spells letter by letter.
        vision_width: hidden size of the ViT, which has 64 dimensions a head.
        vision_layers: depth of the ViT.
        image_size: side of the square images that it reads, in pixels.
        patch: side of a patch, in pixels.
        text: keys of med_config.json in place of `TINY_MED_CONFIG`'s.
    """
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or bert_letter_tokenizer()
    tokenizer.save_pretrained(directory)
    # Two more than the tokenizer has, as in the original: [DEC] and [ENC].
    sizes = {"vocab_size": len(tokenizer) + 2, "encoder_width": vision_width}
    med_config = TINY_MED_CONFIG | dict(text or {}) | sizes
    write_json(directory / "med_config.json", med_config, sort_keys=True)
    state = image_reward_state(
        med_config,
        vision_width=vision_width,
        vision_layers=vision_layers,
        patches=(image_size // patch) ** 2,
        seed=seed,
        patch=patch,
    )
    torch.save(state, directory / "ImageReward.pt")


def image_reward_state(
    med_config: dict[str, Any],
    *,
    vision_width: int,
    vision_layers: int,
    patches: int,
    seed: int,
    patch: int = 16,
) -> "dict[str, torch.Tensor]":
    """Random weights of an ImageReward model under the original's names, such that both the image
    and the prompt move the reward.
    """
    weights = RandomWeights(seed)
    add_vision_encoder(weights, vision_width, vision_layers, patches, patch)
    add_text_encoder(weights, med_config, vision_width)
    # Parts of the original that scoring does not use.
    weights.linear("blip.vision_proj", vision_width, 256)
    weights.linear("blip.text_proj", med_config["hidden_size"], 256)
    widths = (med_config["hidden_size"], *MLP_WIDTHS)
    for number, inputs, outputs in zip(MLP_NUMBERS, widths, MLP_WIDTHS, strict=False):
        weights.linear(f"mlp.layers.{number}", inputs, outputs)
    return weights.state


def add_vision_encoder(
    weights: RandomWeights, width: int, layers: int, patches: int, patch: int
) -> None:
    """Adds BLIP's ViT."""
    vision, pixels = "blip.visual_encoder", 3 * patch * patch
    weights.normal(f"{vision}.cls_token", 1, 1, width, deviation=0.5)
    weights.normal(f"{vision}.pos_embed", 1, patches + 1, width, deviation=0.5)
    projection = f"{vision}.patch_embed.proj"
    weights.normal(f"{projection}.weight", width, 3, patch, patch, deviation=1 / math.sqrt(pixels))
    weights.normal(f"{projection}.bias", width, deviation=0.02)
    for number in range(layers):
        block = f"{vision}.blocks.{number}"
        weights.layer_norm(f"{block}.norm1", width)
        weights.linear(f"{block}.attn.qkv", width, 3 * width)
        weights.linear(f"{block}.attn.proj", width, width)
        weights.layer_norm(f"{block}.norm2", width)
        weights.linear(f"{block}.mlp.fc1", width, 4 * width)
        weights.linear(f"{block}.mlp.fc2", 4 * width, width)
    weights.layer_norm(f"{vision}.norm", width)


def add_text_encoder(
    weights: RandomWeights, med_config: Mapping[str, Any], vision_width: int
) -> None:
    """Adds BLIP's BERT, which attends to the image."""
    import torch

    text, width = "blip.text_encoder", med_config["hidden_size"]
    positions, inner = med_config["max_position_embeddings"], med_config["intermediate_size"]
    embeddings = f"{text}.embeddings"
    weights.state[f"{embeddings}.position_ids"] = torch.arange(positions).unsqueeze(0)
    words = med_config["vocab_size"]
    weights.normal(f"{embeddings}.word_embeddings.weight", words, width, deviation=0.5)
    weights.normal(f"{embeddings}.position_embeddings.weight", positions, width, deviation=0.5)
    weights.layer_norm(f"{embeddings}.LayerNorm", width)
    for number in range(med_config["num_hidden_layers"]):
        layer = f"{text}.encoder.layer.{number}"
        # Random attention averages over the tokens. Without these gains the prompt would hardly
        # matter beside the image.
        add_attention(weights, f"{layer}.attention", width, width, 2, 2)
        add_attention(weights, f"{layer}.crossattention", width, vision_width, 1, 0.5)
        weights.linear(f"{layer}.intermediate.dense", width, inner)
        weights.linear(f"{layer}.output.dense", inner, width)
        weights.layer_norm(f"{layer}.output.LayerNorm", width)


def add_attention(
    weights: RandomWeights,
    name: str,
    width: int,
    inputs: int,
    value_gain: float,
    output_gain: float,
) -> None:
    """Adds an attention of BERT's whose keys and values come from `inputs` dimensions."""
    weights.linear(f"{name}.self.query", width, width)
    weights.linear(f"{name}.self.key", inputs, width)
    weights.linear(f"{name}.self.value", inputs, width, value_gain)
    weights.linear(f"{name}.output.dense", width, width, output_gain)
    weights.layer_norm(f"{name}.output.LayerNorm", width)
