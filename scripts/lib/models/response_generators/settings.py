"""What the settings of all response generators have."""

import math

from pydantic import Field, PositiveInt

from lib import weights
from lib.blocks import LATER, Model, deterministic_field, gpus_field

#: Vision towers whose heads vLLM divides, too; others it has otherwise.
DIVIDED = ("clip_vision_model", "siglip_vision_model")


class GeneratorSettings(Model):
    """A model, and what runs it."""

    backend: str = Field(description="What runs the model.")
    gpus: PositiveInt = gpus_field()
    deterministic: bool = deterministic_field(LATER, "requests")

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that generates."""
        return "vllm"


def problem_with_gpus(model: Model, backend: str, gpus: int) -> str | None:
    """Why a model that is on this machine cannot be spread over so many GPUs; None if it can, as
    far as its config.json tells.
    """
    if backend != "vllm" or gpus == 1:
        return None
    folder = weights.local_folder(model.model, model.revision)
    config = weights.config_in(folder) if folder else {}
    parts = [{**config, **(config.get("text_config") or {})}]
    vision = config.get("vision_config") or {}
    parts += [vision] if vision.get("model_type") in DIVIDED else []
    heads = [part["num_attention_heads"] for part in parts if "num_attention_heads" in part]
    if all(number % gpus == 0 for number in heads):
        return None
    common = math.gcd(*heads)
    choice = ", ".join(str(number) for number in range(1, common + 1) if common % number == 0)
    return (
        f"{model.model} has {' and '.join(map(str, heads))} attention heads, which vLLM divides"
        f" among its GPUs, and not among {gpus}. Take one of {choice}"
    )


def is_blind(model: Model) -> bool:
    """Whether a model that is on this machine has no vision part."""
    folder = weights.local_folder(model.model, model.revision)
    config = weights.config_in(folder) if folder else {}
    return bool(config) and "vision_config" not in config
