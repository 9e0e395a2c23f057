"""What writes instructions: the role of GPT-4 in the paper (3.3)."""

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NotRequired, Protocol, TypedDict, TypeVar

from lib.data.rows import PickedRow
from lib.jobs.job import Job
from lib.jobs.streams import Item, Stream
from lib.models.instruction_authors.settings import InstructionAuthorSettings

S = TypeVar("S")


class WrittenInstruction(TypedDict):
    """An instruction; the attempts that it took an LLM, or the template that was drawn."""

    instruction: str
    attempts: NotRequired[int]
    template: NotRequired[str]


#: Gives items their instructions, or why there is none.
Writer = Stream[Item[S], WrittenInstruction | Future[WrittenInstruction]]


class InstructionAuthor(Protocol[S]):
    """Who writes the instructions of a job's prompts; S: what one is written from.

    VERSION  raised where the same prompts would get other instructions
    """

    VERSION: ClassVar[int]
    Settings: ClassVar[type[InstructionAuthorSettings]]

    def __init__(self, settings: Any, job: Job[Any], written: Mapping[str, str]) -> None:
        """Puts what it asks on the job's record; nothing is loaded yet. `written`: what the
        settings' `read_written` gives for the job's prompts.
        """

    def prepare(self, row: PickedRow) -> tuple[dict[str, Any], S]:
        """All that determines the instruction of a prompt (for its key), and its source."""
        ...

    def at_work(self) -> AbstractContextManager[Writer[S]]:
        """Loads the model, or connects to it, for as long as something is written."""
        ...
