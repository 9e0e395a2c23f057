"""What a vision-language model at an OpenAI-compatible endpoint chooses among a few answers: with
the probability of each, where the endpoint tells them, else the one that it writes.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveInt

from lib.blocks import Block, Endpoint
from lib.endpoint import Answer, Client, RefusedRequestError
from lib.errors import ItemError
from lib.models.rubric import Scale
from lib.progress import log

if TYPE_CHECKING:
    from PIL.Image import Image

#: The most alternatives to a token that OpenAI tells, and vLLM as it is set up.
TOP_LOGPROBS = 20
CHARACTERS_READ = 10_000
CHARACTERS_QUOTED = 120

RatedBy = Literal["probabilities", "text"]
#: A picture's file, or the content of one.
Picture = Path | bytes


class EndpointModel(Block):
    """A model at an endpoint that is asked to choose; it has to see images."""

    endpoint: Endpoint = Field(description="Where it is asked.")
    max_new_tokens: PositiveInt = Field(
        16,
        description=(
            "Length limit of its answer, of which one number or word is read. A model that thinks"
            " first needs more."
        ),
    )

    @property
    def environment(self) -> str:
        """That of the models that answer, in which the endpoints' client is."""
        return "vllm"

    @property
    def needs_gpu(self) -> bool:
        """It runs elsewhere."""
        return False

    @property
    def items_at_once(self) -> int:
        """As many as there may be requests."""
        return self.endpoint.concurrency


@dataclass(frozen=True)
class Options:
    """The answers that a model is to choose among.

    names    as they are written
    read     the name of the option that an answer's text chooses; None where it chooses none
    what     what they are, for messages
    """

    names: Sequence[str]
    read: Callable[[str], str | None]
    what: str


@dataclass(frozen=True)
class Choice:
    """What was chosen: the logarithm of the probability of each option, all of it on the written
    one where the endpoint tells none.
    """

    log_probabilities: Mapping[str, float]
    rated_by: RatedBy


class AtEndpoint:
    """Asks an endpoint, several requests at once. Used in a `with` block, by one that computes
    items (lib/jobs/batches.py).
    """

    def __init__(self, settings: Any) -> None:
        """`settings`: an EndpointModel."""
        self.settings = settings
        self._client = Client(settings.endpoint)
        self._tells_probabilities = True

    @classmethod
    def load(cls, settings: Any, device: str) -> Self:
        """Connects to the endpoint of the settings once it is entered; no device is needed."""
        return cls(settings)

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def choose(self, questions: Sequence[tuple[str, Picture]], options: Options) -> list[Choice]:
        """A choice for each question about a picture, in order. Errors: ItemError, with the answer
        where it chooses nothing.
        """
        asked = [
            self._client.submit(self._choose, text, picture, options) for text, picture in questions
        ]
        return [choice.result() for choice in asked]

    def _choose(self, text: str, picture: Picture, options: Options) -> Choice:
        answer = self._ask(text, picture)
        if answer.finish_reason == "content_filter":
            raise ItemError("the endpoint's content filter cut the answer off")
        chosen = options.read(answer.text)
        if chosen is None:
            cut = ", cut off at `max_new_tokens`," if answer.finish_reason == "length" else ""
            said = answer.text[:CHARACTERS_QUOTED]
            raise ItemError(f"the answer of {answer.model}{cut} is no {options.what}: {said!r}")
        told = _told_of(answer, chosen, options.names)
        if told is None:
            written = {name: 0.0 if name == chosen else -math.inf for name in options.names}
            return Choice(written, "text")
        return Choice(told, "probabilities")

    def _ask(self, text: str, picture: Picture) -> Answer:
        """An answer, with probabilities unless the endpoint refuses to tell them."""
        if self._tells_probabilities:
            try:
                return self._ask_with(
                    {"logprobs": True, "top_logprobs": TOP_LOGPROBS}, text, picture
                )
            except RefusedRequestError as error:
                if "logprob" not in str(error).casefold():
                    raise
                log.warning("%s tells no probabilities: %s", self.settings.endpoint.model, error)
        answer = self._ask_with({}, text, picture)
        self._tells_probabilities = False
        return answer

    def _ask_with(self, parameters: Mapping[str, Any], text: str, picture: Picture) -> Answer:
        return self._client.ask(
            text,
            temperature=0,
            max_tokens=self.settings.max_new_tokens,
            seed=0,
            image=picture,
            parameters=parameters,
        )


def _told_of(answer: Answer, chosen: str, names: Sequence[str]) -> dict[str, float] | None:
    """The log-probabilities of the options where the answer chooses; None where none are told.
    Tokens that differ in blanks and capitals are one option.
    """
    token = next((each for each in answer.said if _bare(each.text) == _bare(chosen)), None)
    if token is None:
        return None
    alternatives = {token.text: token.log_probability, **token.alternatives}
    return {
        name: _log_of_sum(
            [value for text, value in alternatives.items() if _bare(text) == _bare(name)]
        )
        for name in names
    }


def _bare(token: str) -> str:
    """A token without blanks, also as some tokenizers write them, in small letters."""
    return token.strip(" \t\n▁Ġ").casefold()


def _log_of_sum(values: Sequence[float]) -> float:
    whole = sum(map(math.exp, values))
    return math.log(whole) if whole > 0 else -math.inf


def png_of(image: "Image") -> bytes:
    """A picture as the content of a file."""
    content = io.BytesIO()
    image.convert("RGB").save(content, "PNG")
    return content.getvalue()


# What an answer's text chooses

_BETWEEN = r"\s*(?:[-–]|\bto\b|\bor\b)\s*"
#: A number that is not the first of two, as in "1 to 5", "1-5" or "2 or 3".
_NUMBER = rf"(?<![\w.])(-?\d+(?:\.\d+)?)(?!\w)(?!{_BETWEEN}\d)"
_LEADING = re.compile(rf"[^\w-]*(?:(?:rating|score)\W*?(?:is\b\W*?)?)?{_NUMBER}", re.IGNORECASE)
#: "/5", "out of 5", "1 to 5": the scale.
_SCALE = re.compile(rf"\s*(?:/|out of)\s*\d+|\b\d+{_BETWEEN}\d+", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\W*(?:(?:the\s+)?answer\W*(?:is\b\W*)?)?(yes|no)\b", re.IGNORECASE)


def rating_options(scale: Scale) -> Options:
    """The ratings of a scale."""

    def read(text: str) -> str | None:
        written = written_number(text)
        return written if written in scale.ratings else None

    return Options(scale.ratings, read, f"rating from {scale.lowest} to {scale.highest}")


def written_number(text: str) -> str | None:
    """The number that an answer begins with, after "Rating:" or not; else the only one in it."""
    text = " ".join(text[:CHARACTERS_READ].split())  # what comes from servers may be endless
    if leading := _LEADING.match(text):
        return leading[1]
    numbers = set(re.findall(_NUMBER, _SCALE.sub("", text)))
    return numbers.pop() if len(numbers) == 1 else None


def written_yes_or_no(text: str) -> str | None:
    """The word that an answer begins with, as it is asked for."""
    found = _YES_OR_NO.match(text[:CHARACTERS_READ])
    return found[1].capitalize() if found else None


YES_OR_NO = Options(("Yes", "No"), written_yes_or_no, "Yes or No")
