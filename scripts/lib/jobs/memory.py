"""What to do when a device's memory does not suffice. Nothing here imports torch."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device's memory, or the machine's, does not suffice."""
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
    )


def free_device_memory() -> None:
    """Gives memory that torch caches back to the device, where torch is loaded at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def halving(
    batch: Sequence[T], compute: Callable[[Sequence[T]], Sequence[R]], note: Callable[[str], None]
) -> list[R]:
    """`compute(batch)`, with the batch halved for as long as the device's memory does not suffice;
    each halving is noted.

    Results of different batch sizes can differ in their lowest bits, which is why it is put on
    record.
    """
    try:
        return list(compute(batch))
    except Exception as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
    half = (len(batch) + 1) // 2
    note(f"out of memory: batch of {len(batch)} halved to {half}")
    free_device_memory()
    return halving(batch[:half], compute, note) + halving(batch[half:], compute, note)
