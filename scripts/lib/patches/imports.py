"""What shortens the loading of a model's libraries, which is most of a small job's time."""

import gc
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

#: Packages that transformers and diffusers import wherever they are installed and that nothing here
#: calls: scikit-learn serves assisted decoding alone, scipy the losses of object detection and some
#: schedulers. They take a second.
NOT_NEEDED = ("sklearn", "scipy")


def hide_for_good(package: str) -> None:
    """Has a package that is installed pass for one that is not, to the end of this process."""
    sys.modules[package] = None  # type: ignore[assignment]  # Python's mark of "not to be found"


#: Which distributions there are does not change while a process lives.
packages_distributions = cache(importlib.metadata.packages_distributions)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports pull in only what is used, and what is installed is looked up once: transformers,
    diffusers and TRL each read the metadata of all packages. The garbage collector rests: it would
    search the hundreds of thousands of objects that modules are made of, again and again, and find
    nothing.
    """
    importlib.metadata.packages_distributions = packages_distributions
    hidden = [name for name in NOT_NEEDED if name not in sys.modules]
    for name in hidden:
        hide_for_good(name)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        if was_enabled:
            gc.enable()
            gc.freeze()  # modules stay to the end
