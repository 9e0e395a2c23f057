"""What shortens the loading of a model's libraries, which is most of a small job's time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Packages that transformers imports wherever they are installed and that nothing here calls:
#: scikit-learn (with scipy and pandas) serves its assisted decoding alone, and takes a second.
NOT_NEEDED = ("sklearn",)


def hide_for_good(package: str) -> None:
    """Has a package that is installed pass for one that is not, to the end of this process."""
    sys.modules[package] = None  # type: ignore[assignment]  # Python's mark of "not to be found"


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports pull in only what is used, and the garbage collector rests: it would search the
    hundreds of thousands of objects that modules are made of, again and again, and find nothing.
    """
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
