"""What shortens the loading of a model's libraries, which is most of a small job's time."""

import gc
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec

#: Packages that transformers and diffusers import wherever they are installed and that nothing here
#: calls: scikit-learn serves assisted decoding alone, scipy the losses of object detection and some
#: schedulers. They take a second.
NOT_NEEDED = ("sklearn", "scipy")


def hide_for_good(package: str) -> None:
    """Has a package that is installed pass for one that is not, to the end of this process."""
    sys.modules[package] = None  # type: ignore[assignment]  # Python's mark of "not to be found"


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Imports do not find a package, unless it is loaded: for a library that takes it where it is
    there, for parts that nothing here calls.
    """
    if package in sys.modules:
        yield
        return
    hide_for_good(package)
    try:
        yield
    finally:
        del sys.modules[package]


#: Which distributions there are does not change while a process lives.
packages_distributions = cache(importlib.metadata.packages_distributions)
#: accelerate asks whether DeepSpeed is there each time that it is asked for a model.
metadata = cache(importlib.metadata.metadata)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports pull in only what is used, and what is installed is looked up once: transformers,
    diffusers and TRL each read the metadata of all packages. The garbage collector rests: it would
    search the hundreds of thousands of objects that modules are made of, again and again, and find
    nothing.
    """
    importlib.metadata.packages_distributions = packages_distributions
    importlib.metadata.metadata = metadata
    find_spec = importlib.util.find_spec

    def find_needed(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in NOT_NEEDED else find_spec(name, package)

    # They ask this way what is installed; what is imported all the same is found.
    importlib.util.find_spec = find_needed
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        importlib.util.find_spec = find_spec
        if was_enabled:
            gc.enable()
            gc.freeze()  # modules stay to the end
