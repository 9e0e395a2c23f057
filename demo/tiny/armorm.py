"""ArmoRM, which scores an answer to an instruction by nineteen objectives.

The checkpoint is the original's (config.json, safetensors) with a Llama 3 tokenizer. Random as it
is, its scores differ between answers, so that rankings made with it are not all ties.
"""

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny.initialisation import RandomWeights
from tiny.saving import write_json
from tiny.tokenization import llama3_byte_tokenizer, llama3_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

OBJECTIVES = 19
GATING_WIDTH, GATING_LAYERS = 64, 3
# The original's tokenizer has it. It writes its line breaks as they are, where Llama 3's own
# template escapes them.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] +"
    " '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0"
    " %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if"
    " add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def build_armorm(directory: Path) -> None:
    """The random run's ArmoRM. Source of the layout: RLHFlow/ArmoRM-Llama3-8B-v0.1."""
    write_armorm(directory, tokenizer=llama3_tokenizer())


def write_armorm(
    directory: Path,
    seed: int = 0,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    width: int = 64,
    layers: int = 2,
) -> None:
    """Writes a tiny ArmoRM in the original's layout, and its tokenizer.

    Args:
        directory: created where it is missing.
        seed: of the weights.
        tokenizer: any tokenizer with Llama 3's split pattern and special tokens; None: one that
            spells byte by byte. It is given a chat template if it has none.
        width: hidden size of the language model.
        layers: depth of the language model.
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or llama3_byte_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    tokenizer.save_pretrained(directory)
    config = llama_config(tokenizer, width, layers)
    write_json(directory / "config.json", config.to_dict() | gating_config(), sort_keys=True)
    state = armorm_state(config, seed)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})


def llama_config(tokenizer: "PreTrainedTokenizerBase", width: int, layers: int) -> Any:
    """The configuration of the language model."""
    from transformers import LlamaConfig

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
    return config


def gating_config() -> dict[str, Any]:
    """What the configuration says of the objectives and of the gating network."""
    return {
        "num_objectives": OBJECTIVES,
        "gating_temperature": 10,
        "gating_hidden_dim": GATING_WIDTH,
        "gating_n_hidden": GATING_LAYERS,
        "id2label": {str(number): f"LABEL_{number}" for number in range(OBJECTIVES)},
    }


def armorm_state(config: Any, seed: int) -> "dict[str, torch.Tensor]":
    """Random weights of an ArmoRM under the original's names."""
    import torch
    from transformers import LlamaModel

    weights, width = RandomWeights(seed), config.hidden_size
    with torch.device("meta"):
        shapes = {
            f"model.{name}": tensor.shape
            for name, tensor in LlamaModel(config).state_dict().items()
        }
    for name, shape in sorted(shapes.items()):
        if len(shape) == 1:
            weights.normal(name, *shape, deviation=0.1, mean=1.0)
        elif "embed_tokens" in name:
            weights.normal(name, *shape, deviation=1.0)
        else:
            weights.normal(name, *shape, deviation=1.5 / math.sqrt(shape[-1]))
    rewards, transform = "regression_layer.weight", "reward_transform_matrix"
    weights.normal(rewards, OBJECTIVES, width, deviation=0.5 / math.sqrt(width))
    # Not symmetric, so that a transposed product would be seen. The original takes verbosity's
    # share out of the other rewards.
    weights.normal(transform, OBJECTIVES, OBJECTIVES, deviation=0.1)
    weights.state[transform] += torch.eye(OBJECTIVES)
    add_gating(weights, width)
    return weights.state


def add_gating(weights: RandomWeights, width: int) -> None:
    """Adds the network that weighs the objectives by the prompt."""
    import torch

    weights.state["gating.logit_scale"] = torch.tensor([1.1])
    widths = (width, *(GATING_WIDTH,) * GATING_LAYERS, OBJECTIVES)
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        layer = f"gating.layers.{number}"
        weights.normal(f"{layer}.weight", outputs, inputs, deviation=2 / math.sqrt(inputs))
        weights.normal(f"{layer}.bias", outputs, deviation=0.1)
