"""Loading from folders: a message about a folder names it, and what is wrong with it. No code that
a folder holds is run, and nobody is asked whether it may be.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib import weights
from lib.blocks import Model
from lib.errors import UserError

#: The share of a GPU's free memory that weights may take, of several; the rest is to compute with.
ROOM = 0.9


def describe(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def load_from_folder(cls: Any, directory: Path) -> Any:
    """Calls `cls.from_pretrained` on a local folder; what goes wrong becomes a ValueError that
    names the folder.
    """
    try:
        return cls.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"{directory} cannot be loaded as {cls.__name__}: {error}") from error


def load_whole(cls: Any, directory: Path, unused: str = "(?!)", **options: Any) -> Any:
    """Calls `cls.from_pretrained` on a local folder, and refuses one whose weights are not all of
    the model's and no others: what is missing would be random. `unused`: names of tensors
    (a pattern that they begin with) that nothing is computed with. Errors: ValueError that names
    the folder.
    """
    try:
        model, report = cls.from_pretrained(
            directory,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
            **options,
        )
    except Exception as error:
        raise ValueError(f"{directory} cannot be loaded as {cls.__name__}: {error}") from error
    if problem := problem_in(report, unused):
        raise ValueError(f"{directory} is not a checkpoint of a {type(model).__name__}: {problem}")
    return model


def placing(device: str, gpus: int) -> dict[str, Any]:
    """The options of `from_pretrained` that put a model where it is to compute, layer after layer
    over the first so many GPUs; none where `to_device` does.
    """
    import torch

    if device != "cuda" or gpus == 1:
        return {}
    room = {number: int(torch.cuda.mem_get_info(number)[0] * ROOM) for number in range(gpus)}
    return {"device_map": "auto", "max_memory": room}


def to_device(model: Any, device: str) -> Any:
    """A model where it is to compute, ready for it. Errors: ValueError where the GPUs that it was
    spread over have no room for all of it: what is elsewhere would be copied again and again.
    """
    places = getattr(model, "hf_device_map", None)
    if places is None:
        return model.to(device).eval()
    if left := sorted(name for name, place in places.items() if place in ("cpu", "disk")):
        raise ValueError(
            f"its GPUs have no room for all of it (none for {describe(left)}). Raise `gpus`, or"
            " take a smaller `dtype`"
        )
    return model.eval()


def problem_in(report: Mapping[str, Any], unused: str = "(?!)") -> str | None:
    """What is wrong with weights, from the loading report of transformers or diffusers, which
    leaves out what a checkpoint may lack (tied weights) or have besides (old buffers); None if
    nothing is.
    """
    mismatched = [
        f"{name} ({tuple(found)}, not {tuple(expected)})"
        for name, found, expected in report["mismatched_keys"]
    ]
    for problem, names in (
        ("lacks", report["missing_keys"]),
        ("has the unknown", report["unexpected_keys"]),
        ("has another shape for", mismatched),
    ):
        if told := sorted(name for name in names if not re.match(unused, name)):
            return f"it {problem} {describe(told)}"
    return None


def check_whole(folder: Path, with_images: bool) -> None:
    """Refuses a model folder as `load_whole` does, for programs that load it by themselves (vLLM,
    lmms-eval, the trainer). Only the names and shapes of its tensors are read.

    `with_images`: whether it is a vision-language model, or a language model. Errors: UserError
    that names the folder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    architecture = AutoModelForImageTextToText if with_images else AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if getattr(config, "quantization_config", None):
            return  # its tensors are the program's own, which counts them
        with torch.device("meta"):
            cls = type(architecture.from_config(config, trust_remote_code=False))
        _, report = cls.from_pretrained(
            None,
            config=config,
            trust_remote_code=False,
            state_dict=_tensors_without_values(folder),
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        problem = problem_in(report)
    except Exception as error:
        raise _not_whole(
            folder, f"it cannot be loaded ({type(error).__name__}: {error})"
        ) from error
    if problem:
        raise _not_whole(folder, f"as a checkpoint of a {cls.__name__}, {problem}")


def _tensors_without_values(folder: Path) -> dict[str, Any]:
    """The tensors of the safetensors files that loading would read, on torch's meta device."""
    import torch
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(named))]
    else:
        files = [folder / "model.safetensors"]
    tensors = {}
    for file in files:
        with safe_open(file, framework="pt") as content:
            for name in sorted(content.keys()):
                shape = content.get_slice(name).get_shape()
                tensors[name] = torch.empty(shape, device="meta")
    return tensors


def _not_whole(folder: Path, problem: str) -> UserError:
    return UserError(
        f"{folder}: the model is not whole: {problem}. Fetch it anew, or correct the model in the"
        " configuration."
    )


def load_transformers_model(cls: Any, directory: Path, device: str, dtype: str) -> Any:
    """A whole model of transformers on a device; a pickle is read without running what is in it."""
    import torch

    model = load_whole(cls, directory, dtype=getattr(torch, dtype), weights_only=True)
    return model.to(device).eval()


def fetch_transformers_folder(settings: Model) -> Path:
    """The folder of a model in transformers' layout. Some repositories of CLIP and BLIP models hold
    no safetensors; torch reads theirs with weights_only.
    """
    folder = weights.fetch(settings.model, settings.revision)
    if any(folder.glob("*.safetensors")):
        return folder
    return weights.fetch(settings.model, settings.revision, also=["pytorch_model.bin"])
