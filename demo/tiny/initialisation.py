"""Random weights that are a function of a seed."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def initialise(model: "torch.nn.Module", seed: int, gain: float = 1.0) -> None:
    """Fills a model with random weights that keep the scale of what flows through it.

    Matrices and convolutions are normal with standard deviation gain / sqrt(fan-in), embeddings
    with standard deviation 1, gains of normalisations are 1, biases 0. The values depend on the
    seed and on the parameters' names and shapes only, not on the libraries' own initialisation.

    Args:
        model: any module; its parameters are overwritten in place.
        seed: of the generator.
        gain: factor on the standard deviation of matrices.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        with torch.no_grad():
            if parameter.ndim == 0:
                continue  # CLIP's logit scale keeps its published start
            if parameter.ndim == 1:
                if "embedding" in name or "newline" in name:
                    parameter.normal_(0.0, 1.0, generator=generator)
                else:
                    parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif (
                "embed_tokens" in name
                or ("embeddings" in name and "patch" not in name)
                or "shared" in name
            ):
                parameter.normal_(0.0, 1.0, generator=generator)
            else:
                parameter.normal_(0.0, gain / math.sqrt(parameter[0].numel()), generator=generator)


class RandomWeights:
    """The weights of a checkpoint whose model is not at hand, drawn one after the other.

    Attributes:
        state: the tensors by name, in the order in which they were drawn.
    """

    def __init__(self, seed: int) -> None:
        import torch

        self.generator = torch.Generator().manual_seed(seed)
        self.state: dict[str, torch.Tensor] = {}

    def normal(self, name: str, *shape: int, deviation: float, mean: float = 0.0) -> None:
        """Adds a tensor of normal values."""
        import torch

        values = torch.empty(shape).normal_(0.0, deviation, generator=self.generator)
        self.state[name] = mean + values if mean else values

    def linear(self, name: str, inputs: int, outputs: int, gain: float = 1.0) -> None:
        """Adds a linear layer with a bias; its matrix keeps the scale of its input, times gain."""
        self.normal(f"{name}.weight", outputs, inputs, deviation=gain / math.sqrt(inputs))
        self.normal(f"{name}.bias", outputs, deviation=0.02)

    def layer_norm(self, name: str, width: int) -> None:
        """Adds a layer normalisation with gains about 1."""
        self.normal(f"{name}.weight", width, deviation=0.1, mean=1.0)
        self.normal(f"{name}.bias", width, deviation=0.1)
