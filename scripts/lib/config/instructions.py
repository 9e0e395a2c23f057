"""Stage instructions: one instruction a prompt, about the picked image."""

from lib.blocks import Block
from lib.data.controls import Pick
from lib.models.instruction_authors.registry import AnyInstructionAuthor


class WriteInstructionsJob(Block):
    """What rule write_instructions is told: who writes, and which of the candidates it is about."""

    author: AnyInstructionAuthor
    min_image_reward: float | None
    pick: Pick
