"""What writes instructions: the role of GPT-4 in the paper (3.3)."""

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NotRequired, Protocol, TypedDict, TypeVar

from lib.data.rows import PickedRow
from lib.errors import ItemError
from lib.jobs.job import Job
from lib.models.instruction_authors.settings import InstructionAuthorSettings

Q = TypeVar("Q")


class Written(TypedDict):
    """An instruction; the attempts that it took an LLM, or the template that was drawn."""

    instruction: str
    attempts: NotRequired[int]
    template: NotRequired[str]


class InstructionAuthor(Protocol[Q]):
    """Who writes the instructions of a job's prompts; Q: what one is written from.

    VERSION     raised where the same prompts would get other instructions
    batch_size  prompts of one call of `write`
    """

    VERSION: ClassVar[int]
    Settings: ClassVar[type[InstructionAuthorSettings]]
    batch_size: int

    def __init__(self, settings: Any, job: Job[Any]) -> None:
        """Identifies its models, and puts them on the job's record; nothing is loaded yet."""

    def question(self, row: PickedRow) -> tuple[dict[str, Any], Q]:
        """All that determines the instruction of a prompt (for its key), and what it is written
        from.
        """
        ...

    def at_work(self) -> AbstractContextManager[Any]:
        """Loads the model, or connects to it, for as long as `write` is called."""
        ...

    def write(self, questions: Sequence[Q]) -> Sequence[Written | Future[Written] | ItemError]:
        """An instruction a question, in order, or why there is none."""
        ...
