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
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import weights
from lib.config.training import MergeAdapterJob
from lib.errors import UserError
from lib.files import digest_of_file, mendable_storage_errors
from lib.jobs.job import Job
from lib.jobs.script import run_script

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
#: What a model folder holds beside its weights: configurations, processor, tokenizer, chat
#: template, licence.
BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "USE_POLICY*")
#: What stands before a layer's name in the language model, however transformers and checkpoints
#: call it (`language_model.model.`, `model.text_model.`, Qwen's plain `model.`). The layers of a
#: vision tower have another name before theirs.
LANGUAGE_MODEL = r"(?:model\.)?(?:(?:language|text)_model\.)?(?:model\.)?"
LAYER = re.compile(rf"^{LANGUAGE_MODEL}(layers\..+)\.weight$")
MATRIX = re.compile(
    rf"^base_model\.model\.{LANGUAGE_MODEL}(layers\..+)\.lora_(A|B)(?:\.default)?\.weight$"
)
BEGINNING = re.compile(rf"^(?:base_model\.model\.)?{LANGUAGE_MODEL}")
#: What PEFT's LoRA can be besides plain.
VARIANTS = (
    "use_dora",
    "use_rslora",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: the matrices A (rank, in) and B (out, rank) by layer, and the scale of their
    product; `whole`: tensors that were trained themselves, by their names (the projector's, or
    all of the language model's).
    """

    folder: Path
    layers: "dict[str, tuple[Tensor, Tensor]]"
    scale: float
    whole: "dict[str, Tensor]"

    def merged(self, layer: str, weight: "Tensor", file: Path) -> "Tensor":
        """A layer's weights with the adapter in them, summed in float32 and stored as they were.
        Errors: UserError if it does not fit them (`file` is where they are from).
        """
        down, up = self.layers[layer]
        self._refuse_another_shape(layer, (up.shape[0], down.shape[1]), weight, file)
        return (weight.float() + self.scale * (up.float() @ down.float())).to(weight.dtype)

    def replaced(self, name: str, weight: "Tensor", file: Path) -> "Tensor":
        """A tensor that was trained itself, stored as it was. Errors: as of `merged`."""
        trained = self.whole[name]
        self._refuse_another_shape(name, tuple(trained.shape), weight, file)
        return trained.to(weight.dtype)

    def _refuse_another_shape(
        self, name: str, shape: tuple[int, ...], weight: "Tensor", file: Path
    ) -> None:
        if tuple(weight.shape) != shape:
            raise UserError(
                f"{self.folder}: layer {name} has another shape in {file}: the adapter is of"
                " another base model."
            )


def refuse_variants(config: dict[str, Any], folder: Path) -> None:
    """A UserError if an adapter's configuration is not that of a plain LoRA adapter."""
    variants = [name for name in VARIANTS if config.get(name)]
    if config.get("peft_type") != "LORA" or config.get("bias") != "none" or variants:
        raise UserError(
            f"{folder}: not a plain LoRA adapter"
            f" ({', '.join(variants) or config.get('peft_type')}). Delete it and run again."
        )


def read_adapter(folder: Path) -> Adapter:
    """Reads an adapter. Errors: UserError if it is not a plain LoRA adapter of a language model's
    layers.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    refuse_variants(config, folder)
    matrices: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        match = MATRIX.search(name)
        if match is None and is_in(name, config.get("modules_to_save") or []):
            whole[own_name(name)] = tensor
            continue
        if match is None:
            raise UserError(
                f"{folder}: '{name}' is not a matrix of a language model's layer. Delete the"
                " adapter and run again."
            )
        matrices.setdefault(match[1], {})[match[2]] = tensor
    layers = {layer: (pair["A"], pair["B"]) for layer, pair in matrices.items()}
    return Adapter(folder, layers, config["lora_alpha"] / config["r"], whole)


def is_in(name: str, modules: Collection[str]) -> bool:
    """Whether a tensor is of one of the modules."""
    return any(f".{module}." in name for module in modules)


def own_name(name: str) -> str:
    """A tensor's name in the model, however adapters and checkpoints begin it."""
    return BEGINNING.sub("", name)


def key_order(file: Path) -> tuple[list[str], dict[str, str]]:
    """The tensors' names in the order in which a safetensors file stores them, and its metadata."""
    with open(file, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    metadata = header.pop("__metadata__", {})
    return sorted(header, key=lambda name: header[name]["data_offsets"][0]), metadata


def merge(base: Path, folder: Path, output: Path) -> int:
    """Writes the merged model; returns how many layers the adapter in `folder` changed.

    Errors: UserError if the base model has no safetensors files, or the adapter fits it in name or
    shape not everywhere.
    """
    files = sorted(base.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{base}: has no safetensors file to merge the adapter into. Convert the base model"
            " first (save_pretrained)."
        )
    adapter = read_adapter(folder)
    left = adapter.layers.keys() | adapter.whole.keys()
    for file in files:
        left -= merge_file(file, adapter, output / file.name)
    if left:
        raise UserError(
            f"{folder}: {len(left)} layers are not in {base}, such as {min(left)}: the adapter is"
            " of another base model."
        )
    for file in files_beside_weights(base):
        shutil.copyfile(file, output / file.name)
    return len(adapter.layers) + len(adapter.whole)


def merge_file(file: Path, adapter: Adapter, output: Path) -> set[str]:
    """Writes one file of the merged model; returns the layers that the adapter changed in it."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    names, metadata = key_order(file)
    tensors: dict[str, Tensor] = {}
    merged = set()
    with safe_open(file, framework="pt") as source:
        for name in names:
            tensors[name] = source.get_tensor(name)
            match = LAYER.search(name)
            if match and match[1] in adapter.layers:
                tensors[name] = adapter.merged(match[1], tensors[name], file)
                merged.add(match[1])
            elif own_name(name) in adapter.whole:
                tensors[name] = adapter.replaced(own_name(name), tensors[name], file)
                merged.add(own_name(name))
    save_file(tensors, output, metadata=metadata or {"format": "pt"})
    output.chmod(0o644)  # safetensors makes files that only their owner can read
    return merged


def files_beside_weights(base: Path) -> Sequence[Path]:
    """The files that a model folder holds beside its weights."""
    return sorted(
        {file for pattern in BESIDE_WEIGHTS for file in base.glob(pattern) if file.is_file()}
    )


def main(snakemake: Any) -> None:
    with Job(snakemake, MergeAdapterJob, VERSION) as job:
        base_model = job.settings.base_model
        job.identify(base_model)
        adapter, output = Path(snakemake.input.adapter), Path(snakemake.output[0])
        job.record.models["adapter"] = digest_of_file(adapter)
        started = time.monotonic()
        base = weights.fetch(base_model.model, base_model.revision)
        with mendable_storage_errors(output):
            output.mkdir(parents=True, exist_ok=True)
            merge(base, adapter.parent, output)
        # Read here once, for the jobs that ask the model; what it is made of stands beside it.
        job.record.models["merged"] = weights.folder_identity(str(output))
        job.count(1)
        job.record.compute_seconds = time.monotonic() - started


if __name__ == "__main__":
    run_script(main)
