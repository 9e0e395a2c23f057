"""Tiny reward models for the random run and the tests: random weights in the layout of the
originals.

`build_image_reward` writes an ImageReward checkpoint (ImageReward.pt, med_config.json) with a BERT
tokenizer beside it, `build_armorm` an ArmoRM (config.json, safetensors) with a Llama 3 tokenizer.
Two builds of the same seed give the same bytes. Random as they are, their scores differ between
images and between answers, so that the rankings made with them are not all ties.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA3_CHAT_TEMPLATE = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] +"
    " '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0"
    " %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if"
    " add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def build_image_reward(
    directory: Path,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    vision_width: int = 128,
    vision_layers: int = 2,
    image_size: int = 64,
    patch: int = 16,
    text: Mapping[str, Any] | None = None,
) -> None:
    """Writes a tiny ImageReward checkpoint in the original's layout, and its tokenizer, into
    `directory`.

    The images it reads are `image_size` pixels square, in patches of `patch`; its ViT has 64
    dimensions a head. `tokenizer` is any BERT tokenizer, by default one that spells letter by
    letter. `text`: keys of med_config.json in place of `TINY_MED_CONFIG`'s.
    """
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or small_bert_tokenizer()
    tokenizer.save_pretrained(directory)
    # Two more than the tokenizer has, as in the original: [DEC] and [ENC].
    med_config = (
        TINY_MED_CONFIG
        | dict(text or {})
        | {"vocab_size": len(tokenizer) + 2, "encoder_width": vision_width}
    )
    write_json(directory / "med_config.json", med_config)
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
) -> dict[str, torch.Tensor]:
    """Random weights of an ImageReward model under the original's names, such that both the image
    and the prompt move the reward.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def normal(name: str, *shape: int, deviation: float) -> None:
        state[name] = torch.empty(shape).normal_(0.0, deviation, generator=generator)

    def linear(name: str, inputs: int, outputs: int, gain: float = 1.0) -> None:
        normal(f"{name}.weight", outputs, inputs, deviation=gain / math.sqrt(inputs))
        normal(f"{name}.bias", outputs, deviation=0.02)

    def layer_norm(name: str, width: int) -> None:
        normal(f"{name}.weight", width, deviation=0.1)
        state[f"{name}.weight"] += 1
        normal(f"{name}.bias", width, deviation=0.1)

    vision = "blip.visual_encoder"
    normal(f"{vision}.cls_token", 1, 1, vision_width, deviation=0.5)
    normal(f"{vision}.pos_embed", 1, patches + 1, vision_width, deviation=0.5)
    normal(
        f"{vision}.patch_embed.proj.weight",
        vision_width,
        3,
        patch,
        patch,
        deviation=1 / math.sqrt(3 * patch * patch),
    )
    normal(f"{vision}.patch_embed.proj.bias", vision_width, deviation=0.02)
    for number in range(vision_layers):
        block = f"{vision}.blocks.{number}"
        layer_norm(f"{block}.norm1", vision_width)
        linear(f"{block}.attn.qkv", vision_width, 3 * vision_width)
        linear(f"{block}.attn.proj", vision_width, vision_width)
        layer_norm(f"{block}.norm2", vision_width)
        linear(f"{block}.mlp.fc1", vision_width, 4 * vision_width)
        linear(f"{block}.mlp.fc2", 4 * vision_width, vision_width)
    layer_norm(f"{vision}.norm", vision_width)

    text, width, positions = (
        "blip.text_encoder",
        med_config["hidden_size"],
        med_config["max_position_embeddings"],
    )
    state[f"{text}.embeddings.position_ids"] = torch.arange(positions).unsqueeze(0)
    normal(
        f"{text}.embeddings.word_embeddings.weight", med_config["vocab_size"], width, deviation=0.5
    )
    normal(f"{text}.embeddings.position_embeddings.weight", positions, width, deviation=0.5)
    layer_norm(f"{text}.embeddings.LayerNorm", width)
    for number in range(med_config["num_hidden_layers"]):
        layer = f"{text}.encoder.layer.{number}"
        # Random attention averages over the tokens. Without these gains the prompt would hardly
        # matter beside the image.
        for attention, inputs, value_gain, output_gain in (
            ("attention", width, 2, 2),
            ("crossattention", vision_width, 1, 0.5),
        ):
            linear(f"{layer}.{attention}.self.query", width, width)
            linear(f"{layer}.{attention}.self.key", inputs, width)
            linear(f"{layer}.{attention}.self.value", inputs, width, value_gain)
            linear(f"{layer}.{attention}.output.dense", width, width, output_gain)
            layer_norm(f"{layer}.{attention}.output.LayerNorm", width)
        linear(f"{layer}.intermediate.dense", width, med_config["intermediate_size"])
        linear(f"{layer}.output.dense", med_config["intermediate_size"], width)
        layer_norm(f"{layer}.output.LayerNorm", width)
    # Parts of the original that scoring does not use.
    linear("blip.vision_proj", vision_width, 256)
    linear("blip.text_proj", width, 256)

    inputs = width
    for number, outputs in zip(MLP_NUMBERS, MLP_WIDTHS, strict=True):
        linear(f"mlp.layers.{number}", inputs, outputs)
        inputs = outputs
    return state


def build_armorm(
    directory: Path,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    width: int = 64,
    layers: int = 2,
) -> None:
    """Writes a tiny ArmoRM in the original's layout (config.json, safetensors), and its tokenizer,
    into `directory`.

    `width` is the language model's hidden size, `layers` its depth.

    `tokenizer` is any tokenizer with Llama 3's split pattern and special tokens, by default one
    that spells byte by byte; a chat template it lacks is added to it.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaModel

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or small_llama3_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template or LLAMA3_CHAT_TEMPLATE
    tokenizer.save_pretrained(directory)
    objectives, gating_width = 19, 64
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|begin_of_text|>"),
        eos_token_id=tokenizer.convert_tokens_to_ids("<|eot_id|>"),
        tie_word_embeddings=False,
        dtype="float32",
    )
    config.architectures = ["LlamaForRewardModelWithGating"]
    write_json(
        directory / "config.json",
        config.to_dict()
        | {
            "num_objectives": objectives,
            "gating_temperature": 10,
            "gating_hidden_dim": gating_width,
            "gating_n_hidden": 3,
            "id2label": {str(number): f"LABEL_{number}" for number in range(objectives)},
        },
    )
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, deviation: float) -> torch.Tensor:
        return torch.empty(shape).normal_(0.0, deviation, generator=generator)

    state = {}
    with torch.device("meta"):
        shapes = {
            f"model.{name}": tensor.shape
            for name, tensor in LlamaModel(config).state_dict().items()
        }
    for name, shape in sorted(shapes.items()):
        if len(shape) == 1:
            state[name] = 1 + normal(*shape, deviation=0.1)
        elif "embed_tokens" in name:
            state[name] = normal(*shape, deviation=1.0)
        else:
            state[name] = normal(*shape, deviation=1.5 / math.sqrt(shape[-1]))
    state["regression_layer.weight"] = normal(objectives, width, deviation=0.5 / math.sqrt(width))
    # Not symmetric, so that a transposed product would be seen. The original takes verbosity's
    # share out of the other rewards.
    state["reward_transform_matrix"] = torch.eye(objectives) + normal(
        objectives, objectives, deviation=0.1
    )
    state["gating.logit_scale"] = torch.tensor([1.1])
    inputs = width
    for number, outputs in enumerate((gating_width,) * 3 + (objectives,)):
        state[f"gating.layers.{number}.weight"] = normal(
            outputs, inputs, deviation=2 / math.sqrt(inputs)
        )
        state[f"gating.layers.{number}.bias"] = normal(outputs, deviation=0.1)
        inputs = outputs
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})


def small_bert_tokenizer() -> PreTrainedTokenizerBase:
    """A BERT tokenizer whose words are single letters, digits and signs."""
    from transformers import BertTokenizer

    characters = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *characters,
        *(f"##{character}" for character in characters),
    ]
    return BertTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, model_max_length=64
    )


def small_llama3_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer of Llama 3's kind with one token a byte, and one for the "\\n\\n" that ends a
    header.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    model = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)}, merges=[("Ċ", "Ċ")]
        )
    )
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in LLAMA3_SPECIAL_TOKENS]
    )
    marks = {"bos_token": LLAMA3_SPECIAL_TOKENS[0], "eos_token": LLAMA3_SPECIAL_TOKENS[-1]}
    return PreTrainedTokenizerFast(
        tokenizer_object=model, clean_up_tokenization_spaces=False, **marks
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a configuration file of a checkpoint."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
