"""Saving a model, its tokenizer and its settings in the layout of the hub's repositories."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OPENAI_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
OPENAI_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def write_json(path: Path, content: Any, *, sort_keys: bool = False) -> None:
    """Writes JSON as the hub's repositories hold it: two spaces, keys in the given order or in
    that of the alphabet.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=sort_keys)
    path.write_text(text + "\n", encoding="utf-8")


def save_weights(
    model: "PreTrainedModel",
    directory: Path,
    rename: Callable[[str], str] = lambda name: name,
    dtype: str = "float32",
) -> None:
    """Saves configuration and weights, the weights under the names that the hub's checkpoint has.

    Args:
        model: any transformers model.
        directory: created where it is missing.
        rename: from the name of a parameter in the model to that in the checkpoint.
        dtype: "float32", or "float16" to store half as much.
    """
    import torch
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = dtype
    model.config.save_pretrained(directory)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(directory)
    tensors = {
        rename(name): (
            tensor.to(
                getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
            ).contiguous()
        )
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def save_tokenizer(
    tokenizer: "PreTrainedTokenizerBase", directory: Path, processor_class: str | None = None
) -> None:
    """Saves a tokenizer and, in its configuration, the processor that it belongs to."""
    tokenizer.save_pretrained(directory)
    if processor_class:
        path = directory / "tokenizer_config.json"
        write_json(
            path,
            json.loads(path.read_text(encoding="utf-8")) | {"processor_class": processor_class},
        )


def image_preprocessing(kind: str, size: Mapping[str, int], **more: Any) -> dict[str, Any]:
    """What `preprocessor_config.json` holds: bicubic resize, centre crop, CLIP's mean and standard
    deviation.

    Args:
        kind: class of the image processor.
        size: what an image is resized to, in pixels.
        more: further settings of that class.
    """
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": OPENAI_CLIP_MEAN,
        "image_processor_type": kind,
        "image_std": OPENAI_CLIP_STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": dict(size),
    } | more
