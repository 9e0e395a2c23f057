"""What a response generator is asked, and what it answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


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
class Question:
    """What is asked where the answers are given and their probabilities are wanted: the user's
    words, and the image's pixels if there is one.
    """

    text: str
    image: "Image | None" = None


@dataclass(frozen=True)
class Generated:
    """An answer without special tokens or surrounding blanks, why it ended ("stop" or "length"),
    and its tokens, the end token included.
    """

    text: str
    finish_reason: str
    tokens: int
