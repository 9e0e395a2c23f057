"""What the settings of all response generators have."""

from pydantic import Field

from lib.blocks import Model


class GeneratorSettings(Model):
    """A model, and what runs it."""

    backend: str = Field(description="What runs the model.")

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that generates."""
        return "vllm"
