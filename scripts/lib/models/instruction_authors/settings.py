"""What the settings of all authors of instructions have."""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from lib.blocks import NO_EFFECT, Block, Endpoint
from lib.data.prompts import Prompt
from lib.models.response_generators.settings import GeneratorSettings


class InstructionAuthorSettings(Block):
    """What the settings of all authors have."""

    #: Whether who writes can be shown the picture.
    READS_IMAGES: ClassVar[bool] = False

    # Who writes is in the keys of items as `author`.
    backend: str = Field(description="Who writes.", json_schema_extra=NO_EFFECT)
    require_question: bool = Field(True, description="Refuse instructions without a question mark.")
    with_image: bool = Field(
        False,
        description=(
            "Show the picked image to who writes: an endpoint, or a local vision-language model."
        ),
    )

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that writes."""
        return "vllm"

    @property
    def generator(self) -> GeneratorSettings | None:
        """The model that runs in the job and what runs it; None where none does."""
        return None

    @property
    def llm_endpoint(self) -> Endpoint | None:
        """The endpoint that is asked; None where none is."""
        return None

    @property
    def needs_gpu(self) -> bool:
        """Whether a model runs in the job itself."""
        return self.generator is not None

    def read_written(self, prompts: Iterable[Prompt]) -> dict[str, str]:
        """What the user wrote for each prompt of the run, by prompt id; nothing where an LLM
        writes, or templates serve all. Errors: UserError where a prompt would get no usable
        instruction.
        """
        return {}

    @model_validator(mode="before")
    @classmethod
    def _is_complete(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name, field in cls.model_fields.items():
                if (field.is_required() or name in values) and values.get(name) is None:
                    raise ValueError(f"backend '{values.get('backend')}' needs `{name}`")
        return values

    @model_validator(mode="after")
    def _reads_images(self) -> Self:
        if self.with_image and not self.READS_IMAGES:
            raise ValueError(
                f"`with_image` is for backends whose model writes; backend '{self.backend}' reads"
                " no images. Set it to false"
            )
        return self
