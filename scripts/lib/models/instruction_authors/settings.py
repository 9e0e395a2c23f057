"""What the settings of all authors of instructions have."""

from typing import Any, Self

from pydantic import Field, model_validator

from lib.blocks import NO_EFFECT, Block


class InstructionAuthorSettings(Block):
    """What the settings of all authors have."""

    # Who writes is in the keys of items as `author`.
    backend: str = Field(description="Who writes.", json_schema_extra=NO_EFFECT)
    require_question: bool = Field(True, description="Refuse instructions without a question mark.")
    with_image: bool = Field(False, description="Backend `openai`: send the picked image along.")

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that writes."""
        return "vllm"

    @property
    def needs_gpu(self) -> bool:
        """Whether a model runs in the job itself."""
        return False

    @model_validator(mode="before")
    @classmethod
    def _is_complete(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name, field in cls.model_fields.items():
                if field.is_required() and values.get(name) is None:
                    raise ValueError(f"backend '{values.get('backend')}' needs `{name}`")
        return values

    @model_validator(mode="after")
    def _reads_images(self) -> Self:
        if self.with_image and self.backend != "openai":
            raise ValueError(
                f"`with_image` is for backend 'openai'; backend '{self.backend}' reads no images."
                " Set it to false"
            )
        return self
