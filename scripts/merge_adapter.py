"""Rule merge_adapter: the base model with an experiment's adapter merged into its weights (Hu et
al. 2021, section 4.1).

No model is built: the base model's safetensors files are copied tensor by tensor, and W + scale * B
A takes the place of each W that the adapter has changed. So the merged model has the base model's
file layout, key names and number format, and loads in whatever the base model loads in; memory for
one file at a time is enough.
"""

import json
import re
import shutil
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import weights
from lib.errors import UserError
from lib.files import digest_of_file, mendable_storage_errors
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
#: What a model folder holds beside its weights: configurations, processor, tokenizer, chat
#: template, licence.
BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "USE_POLICY*")
#: A layer's name in the language model, however transformers and the checkpoint put the language
#: model's own name before it.
LAYER = re.compile(r"(?:^|\.)language_model\.(?:model\.)?(layers\..+)\.weight$")
ADAPTER = re.compile(
    r"\.language_model\.(?:model\.)?(layers\..+)\.lora_(A|B)(?:\.default)?\.weight$"
)


def read_adapter(folder: Path) -> "tuple[dict[str, tuple[Tensor, Tensor]], float]":
    """The adapter's matrices by layer, A (rank, in) and B (out, rank), and the scale of their
    product.

    Errors: UserError if it is not a plain LoRA adapter of a language model's layers.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    variants = [
        name
        for name in (
            "use_dora",
            "use_rslora",
            "lora_bias",
            "rank_pattern",
            "alpha_pattern",
            "modules_to_save",
        )
        if config.get(name)
    ]
    if config.get("peft_type") != "LORA" or config.get("bias") != "none" or variants:
        raise UserError(
            f"{folder}: not a plain LoRA adapter"
            f" ({', '.join(variants) or config.get('peft_type')}). Delete it and run again."
        )
    matrices: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        match = ADAPTER.search(name)
        if match is None:
            raise UserError(
                f"{folder}: '{name}' is not a matrix of a language model's layer. Delete the"
                " adapter and run again."
            )
        matrices.setdefault(match[1], {})[match[2]] = tensor
    return {layer: (pair["A"], pair["B"]) for layer, pair in matrices.items()}, config[
        "lora_alpha"
    ] / config["r"]


def key_order(file: Path) -> tuple[list[str], dict[str, str]]:
    """The tensors' names in the order in which a safetensors file stores them, and its metadata."""
    with open(file, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    metadata = header.pop("__metadata__", {})
    return sorted(header, key=lambda name: header[name]["data_offsets"][0]), metadata


def merge(base: Path, adapter: Path, output: Path) -> int:
    """Writes the merged model; returns how many layers the adapter changed.

    The sum is computed in float32 and stored in the number format of the base model's file.

    Errors: UserError if the base model has no safetensors files, or the adapter fits it in name or
    shape not everywhere.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    weights = sorted(base.glob("*.safetensors"))
    if not weights:
        raise UserError(
            f"{base}: has no safetensors file to merge the adapter into. Convert the base model"
            " first (save_pretrained)."
        )
    layers, scale = read_adapter(adapter)
    left = set(layers)
    for file in weights:
        names, metadata = key_order(file)
        tensors: dict[str, Tensor] = {}
        with safe_open(file, framework="pt") as source:
            for name in names:
                tensor = source.get_tensor(name)
                match = LAYER.search(name)
                if match and match[1] in layers:
                    down, up = layers[match[1]]
                    if tensor.shape != (up.shape[0], down.shape[1]):
                        raise UserError(
                            f"{adapter}: layer {match[1]} has another shape in {file}: the adapter"
                            " is of another base model."
                        )
                    tensor = (tensor.float() + scale * (up.float() @ down.float())).to(tensor.dtype)
                    left.discard(match[1])
                tensors[name] = tensor
        save_file(tensors, output / file.name, metadata=metadata or {"format": "pt"})
        (output / file.name).chmod(0o644)  # safetensors makes files that only their owner can read
    if left:
        raise UserError(
            f"{adapter}: {len(left)} layers are not in {base}, such as {min(left)}: the adapter is"
            " of another base model."
        )
    for file in files_beside_weights(base):
        shutil.copyfile(file, output / file.name)
    return len(layers)


def files_beside_weights(base: Path) -> Sequence[Path]:
    """The files that a model folder holds beside its weights."""
    return sorted(
        {file for pattern in BESIDE_WEIGHTS for file in base.glob(pattern) if file.is_file()}
    )


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    job.record.models[settings["model"]] = weights.identity(settings["model"], settings["revision"])
    adapter = Path(snakemake.input.adapter)
    job.record.models["adapter"] = digest_of_file(adapter)
    started = time.monotonic()
    base = weights.fetch(settings["model"], settings["revision"])
    output = Path(snakemake.output[0])
    with mendable_storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        merge(base, adapter.parent, output)
    job.record.items = job.record.computed = 1
    job.record.compute_seconds = time.monotonic() - started
    job.write_record()


if __name__ == "__main__":
    run_script(main)
