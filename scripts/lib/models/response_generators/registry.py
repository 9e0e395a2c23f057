"""The response generators that there are."""

from typing import Annotated

from pydantic import AfterValidator

from lib.models.response_generators.base import Generator
from lib.registry import SharedBlock

GENERATORS: SharedBlock[Generator] = SharedBlock(
    "response generator",
    {
        "vllm": "lib.models.response_generators.vllm:VllmGenerator",
        "transformers": "lib.models.response_generators.transformers:TransformersGenerator",
    },
    key="backend",
)


def _known_backend(name: str) -> str:
    if name not in GENERATORS.kinds:
        raise ValueError(GENERATORS.problem_with(name))
    return name


#: A configured backend.
Backend = Annotated[str, AfterValidator(_known_backend)]
