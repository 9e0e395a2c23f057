"""The one client for judges: a model at an OpenAI-compatible endpoint that rates, grades or
compares.

Every reply is kept as it came in a journal (lib/jobs/journal.py), under a hash of all that was asked:
model, text, images, sampling. So a rerun asks nothing twice, a kill loses the requests that were
under way and nothing else, and the raw judgements can be read afterwards. A reply that cannot be
read as what was asked for is asked for again, with another seed and some temperature; if no attempt
gives one, the judgement has a reason and no value. A request that the endpoint refused or did not
answer has a reason, too, and is asked again by the next run.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lib.blocks import Endpoint
from lib.endpoint import Client
from lib.errors import ItemError
from lib.files import digest, digest_of_file
from lib.jobs.journal import Journal
from lib.progress import SECONDS_BETWEEN_PROGRESS_LINES

log = logging.getLogger("workflow")

T = TypeVar("T")

VERSION = 1
ATTEMPTS = 3
#: The first attempt is greedy; a greedy judge says the same again, so the later ones are not.
TEMPERATURES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Question:
    """What a judge is asked: a text and, before it, images in this order. Questions that differ in
    `seed` alone are asked separately.
    """

    id: str
    text: str
    images: tuple[Path, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Judgement(Generic[T]):
    """A judge's reply as it came, the model that the endpoint says gave it, and its value, or the
    reason why it has none.
    """

    text: str | None
    model: str | None
    value: T | None = None
    reason: str | None = None


def fill(template: str, **values: str) -> str:
    """A template with `{name}` replaced, once: what is filled in is data, braces and all."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)


def encodable(text: str) -> str:
    """Text without lone surrogates, which JSON can escape and no file or request can hold; each
    becomes a question mark.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


class Judge:
    """A judge and its cache. `asked` counts the requests that were answered, `reused` the replies
    that came from the cache.
    """

    def __init__(self, endpoint: Endpoint, cache: Path, attempts: int = ATTEMPTS) -> None:
        """`cache`: the journal's file, one a job; it is made where it does not exist."""
        self.endpoint = endpoint
        self.cache = Path(cache)
        self.attempts = attempts
        self.asked = self.reused = 0
        self._models: set[str] = set()

    @property
    def versions(self) -> tuple[str, ...]:
        """The models that the endpoint says gave the judgements, by name."""
        return tuple(sorted(self._models))

    @property
    def name(self) -> str:
        """The judge's name for a score: the model as asked for, and the version that the endpoint
        reported where that says more.
        """
        reported = [model for model in self.versions if model != self.endpoint.model]
        return (
            f"{self.endpoint.model} (answered as {', '.join(reported)})"
            if reported
            else self.endpoint.model
        )

    def ask(
        self,
        questions: Sequence[Question],
        read: Callable[[str], T],
        *,
        max_tokens: int,
        again: str = "",
    ) -> dict[str, Judgement[T]]:
        """The judgement of every question by id.

        `read` makes a value of a reply, or raises ValueError saying what is wrong with it. `again`:
        added to the text from the second attempt on. Errors: UserError where no request can succeed
        (no server, wrong key, unknown model); what is judged by then is kept.
        """
        if not questions:
            return {}
        texts = {
            image: digest_of_file(image)
            for image in {image for question in questions for image in question.images}
        }
        with Journal(self.cache, "judge") as journal:
            if journal.dropped_lines:
                log.warning(
                    "%s: %d damaged line(s) dropped; their questions are asked again",
                    self.cache,
                    journal.dropped_lines,
                )
            judged: dict[str, Judgement[T]] = {}
            left: list[Question] = list(questions)
            for attempt in range(self.attempts):
                replies = self._replies(left, attempt, again, max_tokens, texts, journal)
                judged |= {question.id: _judgement(replies[question.id], read) for question in left}
                left = [
                    question
                    for question in left
                    if judged[question.id].reason is not None
                    and replies[question.id]["status"] == "ok"
                ]
                if not left:
                    break
        self._models |= {
            one.model for one in judged.values() if one.model and one.value is not None
        }
        return judged

    def _replies(
        self,
        questions: Sequence[Question],
        attempt: int,
        again: str,
        max_tokens: int,
        digests: Mapping[Path, str],
        journal: Journal,
    ) -> dict[str, dict[str, Any]]:
        """The journal's entry for every question by id, asking for those that it does not hold.
        Equal questions are asked once.
        """
        temperature = TEMPERATURES[min(attempt, len(TEMPERATURES) - 1)]
        keys: dict[str, str] = {}
        missing: dict[str, Question] = {}
        for question in questions:
            text = encodable(question.text) + (again if attempt else "")
            key = digest(
                {
                    "judge": VERSION,
                    "model": self.endpoint.model,
                    "parameters": self.endpoint.parameters,
                    "text": text,
                    "images": [digests[image] for image in question.images],
                    "temperature": temperature,
                    "max_tokens": max_tokens,
                    "seed": question.seed,
                    "attempt": attempt,
                }
            )
            keys[question.id] = key
            if journal.finished(key) is None:
                missing.setdefault(key, question)
        self.reused += len(set(keys.values())) - len(missing)
        if missing:
            with Client(self.endpoint) as client:

                def one(key: str, question: Question) -> None:
                    started = time.monotonic()
                    try:
                        reply = client.ask(
                            encodable(question.text) + (again if attempt else ""),
                            temperature=temperature,
                            max_tokens=max_tokens,
                            seed=question.seed + attempt,
                            images=question.images,
                        )
                    except ItemError as error:
                        journal.add(
                            key, question.id, seconds=time.monotonic() - started, reason=str(error)
                        )
                        return
                    result = {
                        "text": encodable(reply.text),
                        "model": reply.model or self.endpoint.model,
                        "finish_reason": reply.finish_reason,
                    }
                    journal.add(key, question.id, seconds=time.monotonic() - started, result=result)
                    self.asked += 1

                left = {client.submit(one, key, question) for key, question in missing.items()}
                while left:
                    done, left = wait(
                        left, timeout=SECONDS_BETWEEN_PROGRESS_LINES, return_when=FIRST_EXCEPTION
                    )
                    for future in done:
                        future.result()
                    if left:
                        left_of = sum(not future.done() for future in left)
                        log.info(
                            "judge %s: %d of %d questions answered",
                            self.endpoint.model,
                            len(missing) - left_of,
                            len(missing),
                        )
        return {name: journal.entries[key] for name, key in keys.items()}


def _judgement(entry: Mapping[str, Any], read: Callable[[str], T]) -> Judgement[T]:
    if entry["status"] != "ok":
        return Judgement(None, None, reason=str(entry["reason"]))
    result = entry["result"]
    try:
        return Judgement(result["text"], result["model"], read(result["text"]))
    except ValueError as error:
        return Judgement(
            result["text"], result["model"], reason=f"the judge's reply is unusable: {error}"
        )
