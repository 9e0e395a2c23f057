"""What the settings of all response generators have."""

from pydantic import Field, PositiveInt

from lib import weights
from lib.blocks import LATER, Model, deterministic_field, gpus_field


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
    heads = {**config, **(config.get("text_config") or {})}.get("num_attention_heads")
    if not heads or heads % gpus == 0:
        return None
    choice = ", ".join(str(number) for number in range(1, 17) if heads % number == 0)
    return (
        f"{model.model} has {heads} attention heads, which vLLM divides among its GPUs, and not"
        f" among {gpus}. Take one of {choice}"
    )


def is_blind(model: Model) -> bool:
    """Whether a model that is on this machine has no vision part."""
    folder = weights.local_folder(model.model, model.revision)
    config = weights.config_in(folder) if folder else {}
    return bool(config) and "vision_config" not in config
