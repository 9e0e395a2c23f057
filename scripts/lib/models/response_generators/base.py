"""What a response generator is: the role of the four LLaVA-1.6 in the paper (3.3, Eq. 8). It also
answers benchmarks, and writes instructions where a local LLM does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from lib.models.response_generators.settings import GeneratorSettings


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. `temperature` 0 is greedy; `max_new_tokens` counts the end token too;
    `beams` above 1 search instead.
    """

    max_new_tokens: int
    temperature: float
    top_p: float = 1.0
    beams: int = 1


@dataclass(frozen=True)
class Request:
    """What a model is asked: the user's words, their image if there is one, and the seed of this
    answer alone.

    `system`: what stands before a prompt of the form "USER: ... ASSISTANT:".
    """

    text: str
    seed: int
    image: Path | None = None
    system: str = ""


@dataclass(frozen=True)
class Generated:
    """An answer without special tokens or surrounding blanks, why it ended ("stop" or "length"),
    and its tokens, the end token included.
    """

    text: str
    finish_reason: str
    tokens: int


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
        """Loads a model onto a device. `with_images`: whether it is a vision-language model;
        `batch_size`: the most requests that `generate` is given at once. Errors: UserError.
        """
        ...

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order, computed as one batch."""
        ...
