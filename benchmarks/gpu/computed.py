"""What Stable Diffusion 3 medium takes of a card's memory, computed without a card and without
weights: the workflow's own placing and PyTorch's own operations, on tensors without content, which
are counted as they come and go. PyTorch's device "meta" stands for the card, and tensors that
repeat one number are in the machine's memory. Attention counts as its output, as the kernels of a
GPU have it; workspaces of convolutions, and what CUDA itself takes, do not count.

PYTHONPATH=scripts:demo:benchmarks python -m gpu.computed
"""

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from gpu.pictures import PROMPT, SCALES, SEEDS, Drawing

GIB = 2**30
CARD = "meta"
#: What is looked at while it computes.
PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae")
#: Bytes that are free on an empty card of 24 GB (an A10 shows 22.5 GiB in all), and of 16 GB.
FREE = {"24 GB": int(22 * GIB), "16 GB": int(14.5 * GIB)}


@dataclass(frozen=True)
class Peaks:
    """Bytes on the card at most: in all, while each part computes, and of the weights of each."""

    whole: int
    during: dict[str, int]
    weights: dict[str, int]


@contextlib.contextmanager
def card_with(free: int) -> Iterator[None]:
    """Has PyTorch tell that so many bytes of a card are free, take CARD for it, move networks
    without content, and compute attention as a card's kernels do, without all tokens by all tokens.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._pytree import tree_map

    def on_card(value: Any) -> Any:
        is_device = isinstance(value, str | torch.device)
        return torch.device(CARD) if is_device and str(value) == "cuda" else value

    class OnCard(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped here
        """Calls that name a card have CARD in its place."""

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return function(*tree_map(on_card, args), **tree_map(on_card, kwargs or {}))

    def fused(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    with (
        patch.object(torch.cuda, "mem_get_info", lambda *_: (free, free)),
        patch.object(torch.nn.functional, "scaled_dot_product_attention", fused),
        patch.object(torch.nn.Module, "_apply", moved),
        patch.object(torch, CARD, torch.cpu, create=True),  # diffusers empties its cache
        OnCard(),
    ):
        yield


def moved(network: Any, change: Callable[[Any], Any], recurse: bool = True) -> Any:
    """What `Module.to` does, without content: `change` says of an empty tensor where it is to be,
    and in which number format. What is shared stays so.
    """
    import torch

    known: dict[int, tuple[Any, Any]] = {}
    for part in network.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in known:
                    like = change(torch.empty(0, dtype=tensor.dtype))
                    known[id(tensor)] = tensor, _shaped(tensor, like)
                tensors[name] = known[id(tensor)][1]
    return network


def _shaped(tensor: Any, like: Any) -> Any:
    """A tensor without content of one's shape, where another one is; itself if it is there."""
    import torch

    if (tensor.device.type, tensor.dtype) == (like.device.type, like.dtype):
        return tensor
    if like.device.type == CARD:
        new = torch.empty(tensor.shape, dtype=like.dtype, device=CARD)
    else:
        new = torch.zeros((), dtype=like.dtype).expand(tensor.shape)
    return torch.nn.Parameter(new) if isinstance(tensor, torch.nn.Parameter) else new


def new_tracker() -> Any:
    """Counts the bytes of tensors on CARD while it is entered: `bytes` now, and in `peaks` at most,
    in all ("") and by what is said in `part`. PyTorch's own has every module called only once.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Tracker(TorchDispatchMode):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.bytes, self.part = 0, ""
            self.peaks: Counter[str] = Counter()
            self._known: set[int] = set()

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            made = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor) and tensor.device.type == CARD:
                    self._count(tensor.untyped_storage())
            return made

        def _count(self, storage: Any) -> None:
            if id(storage) in self._known:
                return
            self._known.add(id(storage))
            self.bytes += storage.nbytes()
            for name in {"", self.part}:
                self.peaks[name] = max(self.peaks[name], self.bytes)
            weakref.finalize(storage, self._forget, id(storage), storage.nbytes())

        def _forget(self, name: int, size: int) -> None:
            self._known.discard(name)
            self.bytes -= size

    return Tracker()


def peaks_of_drawing(free: int, *, sliced: bool = True) -> Peaks:
    """The peaks of drawing a prompt's four candidates of 1024 x 1024 on a card with so many bytes
    free, as the workflow places the networks there. `sliced`: whether images are decoded one by
    one, as it does.
    """
    import torch

    from lib.models.image_generators.pipelines import place

    drawing = Drawing(CARD, is_real=True)
    pipeline = drawing.generator.pipeline
    # Which step it is cannot be read off a tensor without content.
    pipeline.scheduler.index_for_timestep = lambda *_: 0
    parts = {name: getattr(pipeline, name) for name in PARTS}
    tracker = new_tracker()
    with card_with(free), torch.no_grad():
        pipeline.to("cpu")
        with tracker:
            place(pipeline, "cuda")
            if not sliced:
                pipeline.vae.disable_slicing()
            for name, part in (parts | {"vae": pipeline.vae.decoder}).items():
                part.register_forward_pre_hook(lambda *_, of=name: setattr(tracker, "part", of))
            pipeline.row_scales = SCALES
            pipeline(
                prompt=PROMPT,
                num_images_per_prompt=len(SCALES),
                num_inference_steps=1,
                height=drawing.side,
                width=drawing.side,
                max_sequence_length=256,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
                output_type="pt",
            )
    weights = {name: _bytes_of(part) for name, part in parts.items()}
    return Peaks(tracker.peaks[""], {name: tracker.peaks[name] for name in PARTS}, weights)


def _bytes_of(network: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


def tell(name: str, peaks: Peaks) -> list[str]:
    """Lines with all figures, in GiB."""
    lines = [f"{name}: peak {peaks.whole / GIB:.2f} GiB"]
    lines += [f"  weights of {part}: {size / GIB:.2f}" for part, size in peaks.weights.items()]
    lines += [f"  while {part} computes: {size / GIB:.2f}" for part, size in peaks.during.items()]
    return lines


if __name__ == "__main__":
    for card_name, room in FREE.items():
        print("\n".join(tell(f"a card of {card_name}", peaks_of_drawing(room))))
    whole = peaks_of_drawing(80 * GIB, sliced=False)
    print("\n".join(tell("all four decoded at once", whole)))
