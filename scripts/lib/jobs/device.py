"""The device that models run on."""

from lib.errors import UserError


def require_device(device: str) -> None:
    """A UserError if CUDA is configured where torch sees no GPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: 'cuda' is configured, but this machine shows no CUDA GPU. Set `device: cpu`,"
            " or ask for a GPU."
        )
