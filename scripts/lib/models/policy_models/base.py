"""What a policy model is: whose answers become pairs (paper 3.3, Eq. 8). A model that runs in the
job does so by a response generator.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, TypeVar

from lib.data.rows import InstructionRow
from lib.jobs.job import Job
from lib.jobs.streams import Item, Stream
from lib.models.policy_models.settings import PolicyModelSettings, ResponseSettings
from lib.models.response_generators.for_jobs import GeneratedText

S = TypeVar("S")

#: Gives items their answers, or why there is none.
Answerer = Stream[Item[S], GeneratedText | Future[GeneratedText]]


class PolicyModel(Protocol[S]):
    """Who answers the instructions of a job's prompts; S: what one is answered from.

    VERSION  raised where the same instructions would get other answers
    """

    VERSION: ClassVar[int]
    Settings: ClassVar[type[PolicyModelSettings]]

    def __init__(
        self,
        settings: Any,
        responses: ResponseSettings,
        job: Job[Any],
        written: Mapping[str, Sequence[Any]],
    ) -> None:
        """Puts who answers on the job's record; nothing is loaded yet. `written`: what the
        settings' `read_written` gives for the job's prompts.
        """

    def prepare(self, row: InstructionRow, sample: int) -> tuple[dict[str, Any], S]:
        """All that determines an answer to a prompt's instruction (for its key), and its source.
        `sample`: which of the answers of this model, from 1 on.
        """
        ...

    def at_work(self) -> AbstractContextManager[Answerer[S]]:
        """Loads the model, or connects to it, for as long as something is answered."""
        ...
