"""The authors of instructions that there are."""

from typing import Annotated, Any

from pydantic import SerializeAsAny

from lib.models.instruction_authors.settings import InstructionAuthorSettings
from lib.registry import SharedBlock, chosen_from

INSTRUCTION_AUTHORS: SharedBlock[Any] = SharedBlock(
    "author of instructions",
    {
        "openai": "lib.models.instruction_authors.openai:OpenAIEndpoint",
        "transformers": "lib.models.instruction_authors.local_llm:TransformersLLM",
        "vllm": "lib.models.instruction_authors.local_llm:VllmLLM",
        "file": "lib.models.instruction_authors.own_file:InstructionFile",
        "template": "lib.models.instruction_authors.templates:Templates",
    },
    key="backend",
    default="openai",
)
AnyInstructionAuthor = Annotated[
    SerializeAsAny[InstructionAuthorSettings], chosen_from(INSTRUCTION_AUTHORS)
]
