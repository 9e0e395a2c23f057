"""Rule generate_prompts: proposals for the prompts that a topic lacks, by an LLM (the paper's
prompts are GPT-4's).

An item is a request for some proposals, with some of the topic's prompts as examples. What comes
back is checked and compared with all prompts of all topics and with each other. The result is a
file that can be read and edited; rule add_prompts adds it to the topic's prompts.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypedDict

from lib.blocks import Endpoint, deciding
from lib.config.prompts import GeneratePrompts, GeneratePromptsJob
from lib.data.prompt_selection import Selection
from lib.data.prompts import read_prompts, seed_of
from lib.endpoint import Client
from lib.errors import UserError
from lib.files import digest, write_text
from lib.jobs.batches import Batches
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item
from lib.models.instruction_authors.checks import unwrapped

VERSION = 1
PROPOSALS_A_REQUEST = 10
EXAMPLES_A_REQUEST = 5
#: Of an answer; each is compared with all prompts.
MOST_PROPOSALS = 10 * PROPOSALS_A_REQUEST
#: Requests in all, as a multiple of those that would do if every proposal were good.
MOST_REQUESTS = 4
TOKENS_A_WORD = 4


def parse(answer: str) -> list[str]:
    """The proposals in an LLM's answer: a JSON list of strings, or one a line without bullets,
    numbers, quotation and other marks.
    """
    try:
        values = json.loads(re.sub(r"^```\w*\n|\n?```$", "", answer.strip()))
    except (ValueError, RecursionError):
        values = None
    is_list = isinstance(values, list) and all(isinstance(value, str) for value in values)
    lines: list[str] = values if is_list else answer.split("\n")
    texts = [unicodedata.normalize("NFC", " ".join(line.split())) for line in lines]
    proposals = [unwrapped(re.sub(r"^(?:[-*•]|\(?\d{1,3}[.):])\s+", "", text)) for text in texts]
    return [proposal for proposal in proposals if proposal]


class ProposedTexts(TypedDict):
    """The result of an item: the proposals in an answer, not looked at yet."""

    proposals: list[str]


@dataclass(frozen=True)
class ProposalRequest:
    """What the LLM is sent for some proposals."""

    text: str
    seed: int


#: Sends the requests of a batch.
Ask = Callable[[Sequence[Item[ProposalRequest]]], Sequence[Future[ProposedTexts]]]


class Requests:
    """The requests of one topic."""

    def __init__(
        self, job: Job[GeneratePromptsJob], endpoint: Endpoint, topic: str, examples: Sequence[str]
    ) -> None:
        """`examples`: the topic's prompts; some of them are shown in each request."""
        self.job, self.topic, self.examples = job, topic, examples
        self.settings = job.settings.proposals
        self.author = deciding(endpoint) | {"temperature": self.settings.temperature}

    def item(self, number: int) -> Item[ProposalRequest]:
        """The item of a request."""
        seed = seed_of(self.job.seed, "prompts", self.topic, number)
        text = self._text(sorted(self.examples, key=lambda text: digest([seed, text])))
        return Item(
            f"{self.topic}-request-{number:03d}",
            self.job.key(text=text, author=self.author, seed=seed),
            ProposalRequest(text, seed),
        )

    def _text(self, examples: Sequence[str]) -> str:
        values = {
            "count": PROPOSALS_A_REQUEST,
            "topic": self.topic.replace("_", " "),
            "min_words": self.settings.min_words,
            "max_words": self.settings.max_words,
            "examples": "\n".join(examples[:EXAMPLES_A_REQUEST]),
        }
        # In one pass, so that braces in an example stay text.
        template = self.settings.template
        return re.sub(r"\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), template)

    def ask(
        self, client: Client, batch: Sequence[Item[ProposalRequest]]
    ) -> list[Future[ProposedTexts]]:
        """Sends the requests of a batch, all at once."""
        return [client.submit(self._ask, client, item.inputs) for item in batch]

    def _ask(self, client: Client, request: ProposalRequest) -> ProposedTexts:
        answer = client.ask(
            request.text,
            temperature=self.settings.temperature,
            max_tokens=PROPOSALS_A_REQUEST * self.settings.max_words * TOKENS_A_WORD,
            seed=request.seed,
        )
        # No file holds a lone surrogate; a NUL in its place has the proposal dropped all the same.
        texts = parse(answer.text)[:MOST_PROPOSALS]
        proposals = [re.sub("[\ud800-\udfff]", "\0", text) for text in texts]
        return {"proposals": proposals[:-1] if answer.finish_reason == "length" else proposals}


def count_and_endpoint(settings: GeneratePrompts, topic: str) -> tuple[int, Endpoint]:
    """How many prompts are wanted, and of whom. Errors: UserError where one is not configured."""
    count = settings.wanted(topic)
    if not count:
        raise UserError(
            f"generate_prompts.count: has no topic '{topic}'. Add `{topic}: <how many>`."
        )
    if settings.endpoint is None:
        raise UserError(
            "generate_prompts.endpoint: there is none, and `instructions` has none in use either."
            " Add one."
        )
    return count, settings.endpoint


def select(requests: Requests, endpoint: Endpoint, count: int, selection: Selection) -> int:
    """Asks until so many proposals are accepted, or too often in vain; gives the requests made."""
    sent, limit = 0, MOST_REQUESTS * -(-count // PROPOSALS_A_REQUEST)
    with ExitStack() as connections:

        @cache
        def connect() -> Client:
            return connections.enter_context(Client(endpoint))

        # Not the connection itself, which would be left after the first of several runs.
        batches = Batches[ProposalRequest, Ask, ProposedTexts](
            requests.job,
            load=lambda: partial(requests.ask, connect()),
            compute=lambda ask, batch: ask(batch),
            batch_size=endpoint.concurrency,
        )
        while len(selection.accepted) < count and sent < limit:
            wanted = -(-(count - len(selection.accepted)) // PROPOSALS_A_REQUEST)
            numbers = range(sent, min(sent + wanted, limit))
            outcomes = batches.run([requests.item(number) for number in numbers])
            for _, outcome in sorted(outcomes.items()):
                for proposal in outcome.result["proposals"] if outcome.result else ():
                    selection.offer(proposal)
            sent = numbers.stop
    return sent


def read_present(snakemake: Any, settings: GeneratePromptsJob) -> dict[str, list[str]]:
    """The prompts that are there already, by topic."""
    return {
        topic: [
            prompt.text
            for prompt in read_prompts(Path(path), topic, settings.max_prompt_characters)
        ]
        for topic, path in zip(settings.topics, snakemake.input, strict=True)
    }


def main(snakemake: Any) -> None:
    with Job(snakemake, GeneratePromptsJob, VERSION) as job:
        topic, settings = snakemake.wildcards.topic, job.settings.proposals
        count, endpoint = count_and_endpoint(settings, topic)
        job.record.models["endpoint"] = endpoint.model
        present = read_present(snakemake, job.settings)
        own = present.get(topic, [])
        missing = max(0, count - len(own))
        selection = Selection(
            [text for texts in present.values() for text in texts],
            settings.min_words,
            settings.max_words,
            job.settings.max_prompt_characters,
            settings.max_similarity,
        )
        sent = select(Requests(job, endpoint, topic, own), endpoint, missing, selection)
        accepted = selection.accepted[:missing]
        for reason, number in sorted(selection.dropped.items()):
            job.note(f"{number} proposal(s) dropped: {reason}")
        if len(accepted) < missing:
            job.note(
                f"only {len(accepted)} of {missing} proposals after {sent} requests; change the"
                " template, or ask another model"
            )
        write_text(Path(snakemake.output[0]), "".join(f"{text}\n" for text in accepted))


if __name__ == "__main__":
    run_script(main)
