"""Random weights of real sizes, made on the device: in seconds, where a CPU would take minutes."""

import math
from collections.abc import Callable
from typing import Any


def build(device: str, dtype: str, make: Callable[[], Any], seed: int = 0) -> Any:
    """A module that `make` builds on the device in a number format, with random weights that keep
    the scale of what flows through it. Buffers are those of its constructor.
    """
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            module = make()
    finally:
        torch.set_default_dtype(before)
    fill(module, device, seed)
    return module.to(device).eval()


def fill(module: Any, device: str, seed: int) -> None:
    """Overwrites a module's parameters, where they have a content."""
    import torch

    if device == "meta":
        return
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            is_table = isinstance(part, torch.nn.Embedding)
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.ndim == 0:
                    continue  # CLIP's logit scale keeps its published start
                if parameter.ndim > 1:
                    scale = 1.0 if is_table else 0.7 / math.sqrt(parameter[0].numel())
                    parameter.normal_(0.0, scale, generator=generator)
                elif name in ("weight", "bias"):
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                else:  # an embedding of its own, as of the class or of a new line
                    parameter.normal_(0.0, 1.0, generator=generator)
