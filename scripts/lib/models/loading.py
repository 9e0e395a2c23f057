"""Loading from folders: a message about a folder names it, and what is wrong with it."""

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


def load_whole(cls: Any, directory: Path, **options: Any) -> Any:
    """Calls `cls.from_pretrained` on a local folder, and refuses one that lacks weights (they would
    be random). Errors: ValueError that names the folder.
    """
    try:
        model, report = cls.from_pretrained(
            directory, local_files_only=True, output_loading_info=True, **options
        )
    except Exception as error:
        raise ValueError(f"{directory} cannot be loaded as a {cls.__name__}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{directory} is not a checkpoint of a {cls.__name__}: it lacks {describe(missing)}"
        )
    return model


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
