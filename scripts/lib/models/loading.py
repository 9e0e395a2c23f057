"""Loading from folders: what is wrong with one is told with its name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib import weights
from lib.blocks import Model


def describe(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def load_from_folder(cls: Any, directory: Path) -> Any:
    """Calls `cls.from_pretrained` on a local folder; what goes wrong becomes a ValueError that
    names the folder.
    """
    try:
        return cls.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        raise ValueError(f"{directory} cannot be loaded as a {cls.__name__}: {error}") from error


def load_transformers_model(cls: Any, directory: Path, device: str, dtype: str) -> Any:
    """Loads a model of transformers and refuses one whose weights are not all in the folder (they
    would be random).
    """
    import torch

    try:
        model, report = cls.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            weights_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise ValueError(f"{directory} cannot be loaded as a {cls.__name__}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{directory} is not a checkpoint of a {cls.__name__}: {describe(missing)} are missing"
        )
    return model.to(device).eval()


def fetch_transformers_folder(settings: Model) -> Path:
    """The folder of a model in transformers' layout. Some repositories of CLIP and BLIP models hold
    no safetensors; torch reads theirs with weights_only.
    """
    folder = weights.fetch(settings.model, settings.revision)
    if any(folder.glob("*.safetensors")):
        return folder
    return weights.fetch(settings.model, settings.revision, also=["pytorch_model.bin"])
