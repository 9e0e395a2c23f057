"""Stage instructions: one instruction a prompt, about the picked image."""

from pathlib import Path

from lib.blocks import Block
from lib.data.controls import Pick
from lib.models.instruction_authors.registry import AnyInstructionAuthor


class WriteInstructionsJob(Block):
    """What rule write_instructions is told: who writes, which of the candidates it is about, and
    the file with what the user wrote for the shard's prompts as the run read it when it began.
    """

    author: AnyInstructionAuthor
    min_image_reward: float | None
    pick: Pick
    written: Path
