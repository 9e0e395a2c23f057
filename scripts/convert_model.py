"""Rule convert_model: a LLaVA-1.5 that others trained, in the form of its authors' own code, as
transformers has it.

The base model says how that is: its files are written again with the other's weights in them. What
the other lacks and training leaves alone (the vision tower, which that code loads from elsewhere)
stays the base model's, and so do the tokens that transformers adds to the vocabulary. One file of
weights at a time is in memory.
"""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import weights
from lib.config.evaluation import LLAVA_WEIGHTS, ConvertModelJob
from lib.errors import UserError
from lib.files import mendable_storage_errors
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.model_files import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
#: A tensor's name as transformers has it, in any of its versions -> as LLaVA's own code has it.
NAMES = (
    (r"^(?:model\.)?language_model\.(?:model\.)?(?=layers\.|embed_tokens\.|norm\.)", "model."),
    (r"^(?:language_model\.)?lm_head\.", "lm_head."),
    (r"^(?:model\.)?multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^(?:model\.)?multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    (r"^(?:model\.)?vision_tower\.", "model.vision_tower.vision_tower."),
)
VISION_TOWER = "model.vision_tower."
#: What stands in checkpoints and is no weight.
NO_WEIGHTS = re.compile(r"rotary_emb\.inv_freq$|position_ids$")

Tensors = Mapping[str, "Callable[[], Tensor]"]


def llava_name(name: str) -> str:
    """A tensor's name in LLaVA's own code. `name`: as transformers has it."""
    for pattern, theirs in NAMES:
        found, count = re.subn(pattern, theirs, name)
        if count:
            return found
    return name


def read_weights(folder: Path) -> dict[str, "Callable[[], Tensor]"]:
    """What reads each tensor of a model's files, by its name. Errors: UserError without any."""
    if files := sorted(folder.glob("*.safetensors")):
        return {name: read for file in files for name, read in _of_safetensors(file).items()}
    files = [file for file in sorted(folder.glob("*.bin")) if file.name != "training_args.bin"]
    if not files:
        raise UserError(f"{folder}: holds no weights (*.safetensors, *.bin). Get the model anew.")
    return {name: read for file in files for name, read in _of_torch(file).items()}


def _of_safetensors(file: Path) -> Tensors:
    from safetensors import safe_open

    def reader(name: str) -> "Callable[[], Tensor]":
        def read() -> "Tensor":
            with safe_open(file, framework="pt") as source:
                tensor: Tensor = source.get_tensor(name)
                return tensor

        return read

    with safe_open(file, framework="pt") as source:
        return {name: reader(name) for name in source.keys()}  # noqa: SIM118 # it is no mapping


def _of_torch(file: Path) -> Tensors:
    import torch

    # Mapped: no more of it is in memory than what is read; nothing in it is run.
    tensors: dict[str, Tensor] = torch.load(file, mmap=True, weights_only=True, map_location="cpu")
    return {name: tensor.clone for name, tensor in tensors.items()}


def replaced(base: "Tensor", theirs: "Tensor", name: str, source: Path) -> "Tensor":
    """The base model's tensor with the other's values; rows beyond those are the added tokens'.
    Errors: UserError where it has another shape.
    """
    has_rows = "embed_tokens" in name or "lm_head" in name
    same_width = base.shape[1:] == theirs.shape[1:]
    if base.shape != theirs.shape and not (has_rows and same_width and len(theirs) <= len(base)):
        raise UserError(
            f"{source}: {name} has the shape {tuple(theirs.shape)}, and {tuple(base.shape)} in the"
            " base model: it is a model of another size. Name a `training.base_model` of its size."
        )
    if base.shape == theirs.shape:
        return theirs
    joined = base.to(theirs.dtype)
    joined[: len(theirs)] = theirs
    return joined


def convert(base: Path, source: Path, output: Path) -> list[str]:
    """Writes the converted model; returns the names of those tensors of the vision tower that stay
    the base model's. Errors: UserError where the other has fewer weights, or more.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    theirs = read_weights(source)
    left, kept = {name for name in theirs if not NO_WEIGHTS.search(name)}, []
    files = sorted(base.glob("*.safetensors"))
    for file in files:
        tensors: dict[str, Tensor] = {}
        with safe_open(file, framework="pt") as of_base:
            metadata = of_base.metadata()
            for name in of_base.keys():  # noqa: SIM118 # it is no mapping
                tensors[name] = of_base.get_tensor(name)
                other = llava_name(name)
                if other in theirs:
                    tensors[name] = replaced(tensors[name], theirs[other](), other, source)
                    left.discard(other)
                elif other.startswith(VISION_TOWER):
                    kept.append(other)
                else:
                    raise UserError(f"{source}: lacks {other}: it is no whole LLaVA-1.5.")
        save_file(tensors, output / file.name, metadata=metadata or {"format": "pt"})
        (output / file.name).chmod(0o644)
    if left or not files:
        raise UserError(
            f"{source}: the base model has no place for {len(left)} of its weights, such as"
            f" {min(left, default='any')}: it is of another architecture."
        )
    for file in base.iterdir():
        if file.is_file() and file.suffix not in WEIGHTS and file.name[0] != ".":
            shutil.copyfile(file, output / file.name)
    return kept


def main(snakemake: Any) -> None:
    with Job(snakemake, ConvertModelJob, VERSION) as job:
        settings, output = job.settings, Path(snakemake.output[0])
        job.identify_all(settings)
        started = time.monotonic()
        source = weights.fetch(settings.model.model, settings.model.revision, also=LLAVA_WEIGHTS)
        base = weights.fetch(settings.base_model.model, settings.base_model.revision)
        with mendable_storage_errors(output):
            output.mkdir(parents=True, exist_ok=True)
            if kept := convert(base, source, output):
                job.note(
                    f"{settings.model.model} has no vision tower of its own: {len(kept)} tensors"
                    f" of it are those of {settings.base_model.model}"
                )
        # Read here once, for the jobs that ask the model.
        job.record.models["converted"] = weights.folder_identity(str(output))
        job.count(1)
        job.record.compute_seconds = time.monotonic() - started


if __name__ == "__main__":
    run_script(main)
