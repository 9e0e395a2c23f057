"""The device that models run on."""

import os

from lib.errors import UserError

#: Names the GPUs that a process sees.
VISIBLE = "CUDA_VISIBLE_DEVICES"


def require_device(device: str, gpus: int = 1) -> None:
    """A UserError if CUDA is configured where torch sees no GPU, or fewer than a model is to be
    spread over.
    """
    import torch

    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise UserError(
            "device: 'cuda' is configured, but this machine shows no CUDA GPU. Set `device: cpu`,"
            " or ask for a GPU."
        )
    if gpus > 1 and (there := torch.cuda.device_count()) < gpus:
        raise UserError(
            f"`gpus`: the model is to be spread over {gpus} GPUs, and the job sees {there}. Lower"
            " it, or give the job more: they have to be in one machine."
        )


def spread_over(device: str, gpus: int) -> int:
    """Over how many devices a model is spread: a CPU is one."""
    return gpus if device == "cuda" else 1


def first_gpus(gpus: int) -> str:
    """The first GPUs of those that this process sees, as the variable VISIBLE names them."""
    seen = os.environ.get(VISIBLE)
    names = seen.split(",") if seen else [str(number) for number in range(gpus)]
    return ",".join(names[:gpus])
