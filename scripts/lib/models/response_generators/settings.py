"""What the settings of all response generators have."""

from pydantic import Field

from lib import weights
from lib.blocks import Model


class GeneratorSettings(Model):
    """A model, and what runs it."""

    backend: str = Field(description="What runs the model.")

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that generates."""
        return "vllm"


def is_blind(model: Model) -> bool:
    """Whether a model that is on this machine has no vision part."""
    folder = weights.local_folder(model.model, model.revision)
    config = weights.config_in(folder) if folder else {}
    return bool(config) and "vision_config" not in config
