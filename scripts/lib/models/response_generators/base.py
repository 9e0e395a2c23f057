"""What a response generator is: the role of the four LLaVA-1.6 in the paper (3.3, Eq. 8)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, Self

from lib.jobs.streams import Ended, Item, Take
from lib.models.response_generators.requests import Generated, Question, Request, Sampling
from lib.models.response_generators.settings import GeneratorSettings


class Generator(Protocol):
    """A loaded model; `processor` is its processor, or its tokenizer if it reads no images."""

    VERSION: ClassVar[int]
    Settings: ClassVar[type[GeneratorSettings]]
    processor: Any

    @classmethod
    def load(
        cls,
        settings: GeneratorSettings,
        device: str,
        sampling: Sampling,
        *,
        with_images: bool,
        batch_size: int,
    ) -> Self:
        """Loads a model, `with_images` one that sees, for so many requests. Errors: UserError."""
        ...

    @classmethod
    def independence(cls, device: str) -> str:
        """How `deterministic` answers do not depend on what else is asked, as a record tells."""
        ...

    def with_sampling(self, sampling: Sampling) -> Self:
        """The same loaded model for other answers, as if it had been asked nothing before."""
        ...

    def stream(
        self, take: Take[Item[Request]], note: Callable[[str], None]
    ) -> Iterator[Ended[Item[Request], Generated]]:
        """Answers requests for as long as any are handed out. One that fails fails alone, and which
        are answered at once depends on their order and lengths only. `note` is told the unusual.
        """
        ...

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order, all of them at once. What one fails of is raised."""
        ...

    def log_probabilities(
        self, questions: Sequence[Question], answers: Sequence[str]
    ) -> list[list[float]]:
        """The natural logarithm of the probability that the model's answer begins with each of
        `answers`, a row a question; all questions have an image, or none has.
        """
        ...
