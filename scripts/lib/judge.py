"""The one client for judges: a model at an OpenAI-compatible endpoint that rates, grades or
compares.

Every reply is kept as it came in a journal (lib/jobs/journal.py), under a hash of the whole
question: model, text, images, sampling. So a rerun asks nothing twice, a kill loses the requests
that were under way and nothing else, and the raw judgements can be read afterwards. A reply that
cannot be read as what was asked for is asked for again, with another seed and some temperature; if
no attempt gives one, the judgement has a reason and no value. A request that the endpoint refused
or did not answer has a reason, too, and is asked again by the next run.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypedDict, TypeVar

from lib.blocks import Endpoint, deciding
from lib.endpoint import Client
from lib.errors import ItemError, printable
from lib.files import digest, digest_of_file
from lib.jobs.journal import Journal, finished_elsewhere
from lib.progress import SECONDS_BETWEEN_PROGRESS_LINES, log

if TYPE_CHECKING:
    from lib.jobs.job import Job

T = TypeVar("T")

VERSION = 1
ATTEMPTS = 3
#: The first attempt is greedy; a greedy judge says the same again, so the later ones are not.
TEMPERATURES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class JudgeQuestion:
    """What a judge is asked: a text and, before it, images in this order. Questions that differ in
    `seed` alone are asked separately.
    """

    id: str
    text: str
    images: tuple[Path, ...] = ()
    seed: int = 0


class Reply(TypedDict):
    """A judge's reply as the journal holds it."""

    text: str
    model: str
    finish_reason: str


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

    def __init__(
        self,
        endpoint: Endpoint,
        cache: Path,
        attempts: int = ATTEMPTS,
        elsewhere: Iterable[tuple[Path, Path]] = (),
    ) -> None:
        """`cache`: the journal's file, one a job; it is made where it does not exist. `elsewhere`:
        journals that may hold replies, each after the folder of its run.
        """
        self.endpoint = endpoint
        self.cache = Path(cache)
        self.attempts = attempts
        self.asked = self.reused = 0
        #: Of the reused replies: those of each run's other journals.
        self.taken_over: Counter[Path] = Counter()
        self._elsewhere = list(elsewhere)
        self._models: set[str] = set()

    @classmethod
    def of_job(cls, job: "Job[Any]", endpoint: Endpoint, suffix: str = "judge") -> Self:
        """The judge of a job, which looks for replies in other jobs' journals, too. `suffix`: what
        its own is called.
        """
        cache = job.work / f"{job.name}.{suffix}.jsonl"
        return cls(endpoint, cache, elsewhere=job.journals_elsewhere(cache))

    def put_on_record(self, job: "Job[Any]") -> None:
        """Notes in a job's record whom it asked, how often, and where replies came from."""
        job.note(f"judge {self.name}: {self.asked} asked, {self.reused} reused")
        for run, replies in self.taken_over.items():
            job.took_over(run, replies)

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
        questions: Sequence[JudgeQuestion],
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
        images = {image for question in questions for image in question.images}
        digests = {image: digest_of_file(image) for image in images}
        judged: dict[str, Judgement[T]] = {}
        left = list(questions)
        with Journal(self.cache, "judge") as journal:
            self._tell_of_damage(journal)
            for number in range(self.attempts):
                attempt = _Attempt(number, again, max_tokens, digests)
                replies = self._replies(left, attempt, journal)
                judged |= {name: _judgement(entry, read) for name, entry in replies.items()}
                # One that the endpoint did not answer is for the next run.
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

    def _tell_of_damage(self, journal: Journal) -> None:
        if journal.dropped_lines:
            log.warning(
                "%s: %d damaged line(s) dropped; their questions are asked again",
                self.cache,
                journal.dropped_lines,
            )

    def _replies(
        self, questions: Sequence[JudgeQuestion], attempt: "_Attempt", journal: Journal
    ) -> dict[str, dict[str, Any]]:
        """The journal's entry for every question by id, asking for those that it does not hold.
        Equal questions are asked once.
        """
        keys = {question.id: attempt.key(question, self.endpoint) for question in questions}
        missing: dict[str, JudgeQuestion] = {}
        for question in questions:
            if journal.finished(keys[question.id]) is None:
                missing.setdefault(keys[question.id], question)
        self._take_over(missing, journal)
        self.reused += len(set(keys.values())) - len(missing)
        if missing:
            with Client(self.endpoint) as client:
                self._wait_for(
                    [
                        client.submit(self._ask_one, client, journal, key, question, attempt)
                        for key, question in missing.items()
                    ]
                )
        return {name: journal.entries[key] for name, key in keys.items()}

    def _take_over(self, missing: dict[str, JudgeQuestion], journal: Journal) -> None:
        """Takes replies from other journals, and their questions out of the missing ones."""
        for run, path in self._elsewhere if missing else ():
            for found in finished_elsewhere(path, missing.__contains__):
                journal.take_over(found, missing.pop(found.key).id, found.result)
                self.taken_over[run] += 1
        journal.flush()

    def _ask_one(
        self,
        client: Client,
        journal: Journal,
        key: str,
        question: JudgeQuestion,
        attempt: "_Attempt",
    ) -> None:
        """Asks one question; the journal gets the reply, or why there is none."""
        started = time.monotonic()
        try:
            answer = client.ask(
                attempt.text_of(question),
                temperature=attempt.temperature,
                max_tokens=attempt.max_tokens,
                seed=question.seed + attempt.number,
                images=question.images,
            )
        except ItemError as error:
            seconds = time.monotonic() - started
            journal.add(key, question.id, seconds=seconds, reason=str(error))
            return
        reply: Reply = {
            "text": encodable(answer.text),
            "model": answer.model or self.endpoint.model,
            "finish_reason": answer.finish_reason,
        }
        journal.add(key, question.id, seconds=time.monotonic() - started, result=reply)
        self.asked += 1

    def _wait_for(self, requests: Sequence[Future[None]]) -> None:
        """Waits for the end of all requests, telling how far they are; raises what one raised."""
        left = set(requests)
        while left:
            done, left = wait(
                left, timeout=SECONDS_BETWEEN_PROGRESS_LINES, return_when=FIRST_EXCEPTION
            )
            for future in done:
                future.result()
            if left:
                log.info(
                    "judge %s: %d of %d questions answered",
                    self.endpoint.model,
                    sum(future.done() for future in requests),
                    len(requests),
                )


@dataclass(frozen=True)
class _Attempt:
    """One attempt at some questions: its number from 0, what is added to the text from the second
    one on, the length limit, and the sha256 of each image.
    """

    number: int
    again: str
    max_tokens: int
    digests: Mapping[Path, str]

    @property
    def temperature(self) -> float:
        return TEMPERATURES[min(self.number, len(TEMPERATURES) - 1)]

    def text_of(self, question: JudgeQuestion) -> str:
        return encodable(question.text) + (self.again if self.number else "")

    def key(self, question: JudgeQuestion, endpoint: Endpoint) -> str:
        """A hash of all that is asked."""
        return digest(
            {
                "judge": VERSION,
                **deciding(endpoint),
                "text": self.text_of(question),
                "images": [self.digests[image] for image in question.images],
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
                "seed": question.seed,
                "attempt": self.number,
            }
        )


def _judgement(entry: Mapping[str, Any], read: Callable[[str], T]) -> Judgement[T]:
    if entry["status"] != "ok":
        return Judgement(None, None, reason=str(entry["reason"]))
    reply: Reply = entry["result"]
    text, model = reply["text"], reply["model"]
    try:
        return Judgement(text, model, read(text))
    except (ValueError, RecursionError) as error:
        reason = f"the judge's reply is unusable: {printable(str(error))}"
        return Judgement(text, model, reason=reason)
