"""What LLMs that write instructions share: how they are asked, how answers are checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from pydantic import Field, PositiveInt, model_validator

from lib.blocks import NO_EFFECT, deciding
from lib.data.prompts import seed_of
from lib.data.rows import PickedRow
from lib.errors import ItemError
from lib.jobs.job import Job
from lib.models.instruction_authors.base import WrittenInstruction
from lib.models.instruction_authors.checks import clean, problem_with_answer
from lib.models.instruction_authors.settings import InstructionAuthorSettings

INSTRUCTION_TEMPLATE = """\
Below is the description from which an image was made. Write one question about the image that can \
be answered by looking at it, and that asks for a detailed answer about its objects, their number, \
colours, positions or actions. Do not mention the description. Answer with the question only.

Description: {prompt}"""


class LLMSettings(InstructionAuthorSettings):
    """How an LLM is asked."""

    READS_IMAGES: ClassVar[bool] = True

    template: str = Field(
        INSTRUCTION_TEMPLATE,
        description=(
            "What the LLM is asked; `{prompt}` stands for the text-to-image prompt, and may be left"
            " out where it is shown the image."
        ),
    )
    max_new_tokens: PositiveInt = Field(200, description="Length limit of an instruction.")
    temperature: float = Field(0.7, ge=0, description="0 is greedy.")
    # Raising it asks again for those that failed, and for no other.
    max_attempts: PositiveInt = Field(
        3,
        description=(
            "An instruction that fails the checks is asked for again, up to so many times in all."
        ),
        json_schema_extra=NO_EFFECT,
    )

    @model_validator(mode="after")
    def _asks_about_the_prompt(self) -> Self:
        if "{prompt}" not in self.template and not self.with_image:
            raise ValueError(
                "`template` has no `{prompt}`: the instruction would be about nothing. Put"
                " `{prompt}` where the prompt belongs, or show the image (`with_image: true`)"
            )
        return self


@dataclass(frozen=True)
class InstructionRequest:
    """What an LLM is asked for one prompt; `seeds` are those of the attempts."""

    prompt: str
    text: str
    seeds: tuple[int, ...]
    image: Path | None = None


class Reply(Protocol):
    """An LLM's answer, and why it ended ("stop" or "length")."""

    @property
    def text(self) -> str:
        """What it wrote."""

    @property
    def finish_reason(self) -> str:
        """Why it ended."""


class LLMAuthor:
    """Asks an LLM for a question about each prompt's image."""

    def __init__(self, settings: LLMSettings, job: Job[Any], identity: dict[str, Any]) -> None:
        """`identity`: all that determines which LLM it is and how it is run."""
        self._job = job
        self._template = settings.template
        self._with_image = settings.with_image
        # A greedy model says the same again.
        self._attempts = settings.max_attempts if settings.temperature else 1
        self._decides = {"author": identity, "generation": deciding(settings)}

    def prepare(self, row: PickedRow) -> tuple[dict[str, Any], InstructionRequest]:
        """All that determines the instruction of a prompt, and what the LLM is asked."""
        seeds = tuple(
            seed_of(self._job.seed, "instruction", row["id"], attempt)
            for attempt in range(self._attempts)
        )
        text = self._template.replace("{prompt}", row["prompt"])
        decides = {"prompt": row["prompt"], "seed": seeds[0], **self._decides}
        if not self._with_image:
            return decides, InstructionRequest(row["prompt"], text, seeds)
        image = self._job.root / row["image"]["file"]
        decides["image"] = row["image"]["sha256"]
        return decides, InstructionRequest(row["prompt"], text, seeds, image)


def write_usable(
    ask: Callable[[InstructionRequest, int], Reply],
    request: InstructionRequest,
    require_question: bool,
) -> WrittenInstruction | ItemError:
    """The first answer to a request that passes the checks, or why none did. What fails is asked
    for again, with the next seed.
    """
    result: WrittenInstruction | ItemError = ItemError("nothing was asked")
    for attempt, seed in enumerate(request.seeds, start=1):
        result = checked(ask(request, seed), request, attempt, require_question)
        if not isinstance(result, ItemError):
            break
    return result


def checked(
    reply: Reply, request: InstructionRequest, attempts: int, require_question: bool
) -> WrittenInstruction | ItemError:
    """A reply's instruction, or what is wrong with it."""
    instruction = clean(reply.text)
    problem = problem_with_answer(
        instruction, request.prompt, reply.finish_reason, require_question
    )
    if problem is None:
        return {"instruction": instruction, "attempts": attempts}
    return ItemError(
        f"no usable instruction in {attempts} attempt(s); the last one: {problem}:"
        f" {instruction[:120]!r}"
    )
