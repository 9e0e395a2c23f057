"""Rule generate_prompts (off by default): proposals for more prompts on a topic, by an LLM (the
paper's prompts are GPT-4's).

An item is a request for some proposals, with some of the topic's prompts as examples. What comes
back is checked and compared with all prompts of all topics and with each other. The result is a
file to read and choose from: nothing is added to `prompts/` but by you.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lib.blocks import Endpoint
from lib.data.prompts import read_prompts, seed_of
from lib.endpoint import Client
from lib.errors import UserError
from lib.files import digest, write_text
from lib.jobs.batches import Item
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.models.instruction_authors.checks import SPECIAL_TOKEN, unwrapped

VERSION = 1
PROPOSALS_A_REQUEST = 10
EXAMPLES_A_REQUEST = 5
#: Requests in all, as a multiple of those that would do if every proposal were good.
MOST_REQUESTS = 4
TOKENS_A_WORD = 4


def parse(answer: str) -> list[str]:
    """The proposals in an LLM's answer: a JSON list of strings, or one a line without bullets,
    numbers, quotation and other marks.
    """
    try:
        values = json.loads(re.sub(r"^```\w*\n|\n?```$", "", answer.strip()))
    except ValueError:
        values = None
    is_list = isinstance(values, list) and all(isinstance(value, str) for value in values)
    lines: list[str] = values if is_list else answer.split("\n")
    found = []
    for line in lines:
        text = unicodedata.normalize("NFC", " ".join(line.split()))
        text = unwrapped(re.sub(r"^(?:[-*•]|\(?\d{1,3}[.):])\s+", "", text))
        if text:
            found.append(text)
    return found


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The word 3-shingles of a text, in lower case and without punctuation; a shorter text is one
    shingle.
    """
    words = re.findall(r"\w+", text.casefold())
    return frozenset(tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2)))


def jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    """The share of what two sets have in common in all that they have; 1 for two empty ones."""
    return len(one & other) / len(one | other) if one or other else 1.0


class Selection:
    """Accepts proposals that are well-formed and unlike everything accepted or present before;
    `dropped` counts the others by reason.
    """

    def __init__(
        self,
        present: Iterable[str],
        min_words: int,
        max_words: int,
        max_characters: int,
        max_similarity: float,
    ) -> None:
        self.min_words, self.max_words, self.max_characters = min_words, max_words, max_characters
        self.max_similarity = max_similarity
        self.accepted: list[str] = []
        self.dropped: Counter[str] = Counter()
        self._seen: list[tuple[str, frozenset[tuple[str, ...]]]] = []
        self._folded: set[str] = set()
        for text in present:
            self._remember(text)

    def _remember(self, text: str) -> None:
        self._seen.append((text, shingles(text)))
        self._folded.add(_folded(text))

    def problem_with(self, text: str) -> str | None:
        """Why a proposal is dropped; None for a good one."""
        words = len(text.split())
        if not self.min_words <= words <= self.max_words:
            return f"not {self.min_words} to {self.max_words} words"
        if len(text) > self.max_characters:
            return f"over {self.max_characters} characters"
        if SPECIAL_TOKEN.search(text) or any(
            unicodedata.category(character)[0] == "C" for character in text
        ):
            return "special token or control character"
        if _folded(text) in self._folded:
            return "the same as a prompt"
        own = shingles(text)
        if any(jaccard(own, other) >= self.max_similarity for _, other in self._seen):
            return "too similar to a prompt"
        return None

    def offer(self, text: str) -> None:
        """Accepts a proposal, or counts why not."""
        if problem := self.problem_with(text):
            self.dropped[problem] += 1
        else:
            self.accepted.append(text)
            self._remember(text)


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    topic: str = snakemake.wildcards.topic
    count: int = settings["count"]
    if not count:
        raise UserError(
            f"generate_prompts.count: has no topic '{topic}'. Add `{topic}: <how many>`."
        )
    if settings["endpoint"] is None:
        raise UserError(
            "generate_prompts.endpoint: there is none, and no `instructions.endpoint` either. Add"
            " one."
        )
    endpoint = Endpoint.model_validate(settings["endpoint"])
    job.record.models["endpoint"] = endpoint.model
    present = {
        name: [
            prompt.text
            for prompt in read_prompts(Path(path), name, settings["max_prompt_characters"])
        ]
        for name, path in zip(settings["topics"], snakemake.input, strict=True)
    }
    selection = Selection(
        [text for texts in present.values() for text in texts],
        settings["min_words"],
        settings["max_words"],
        settings["max_prompt_characters"],
        settings["max_similarity"],
    )

    def request(number: int) -> Item:
        seed = seed_of(job.seed, "prompts", topic, number)
        examples = sorted(present[topic], key=lambda text: digest([seed, text]))[
            :EXAMPLES_A_REQUEST
        ]
        values = {
            "count": PROPOSALS_A_REQUEST,
            "topic": topic.replace("_", " "),
            "min_words": settings["min_words"],
            "max_words": settings["max_words"],
            "examples": "\n".join(examples),
        }
        # In one pass, so that braces in an example stay text.
        text = re.sub(
            r"\{(\w+)\}", lambda found: str(values.get(found[1], found[0])), settings["template"]
        )
        author = {
            "model": endpoint.model,
            "parameters": endpoint.parameters,
            "temperature": settings["temperature"],
        }
        return Item(
            f"{topic}-request-{number:03d}",
            job.key(text=text, author=author, seed=seed),
            (text, seed),
        )

    def ask(client: Client, batch: Sequence[Item]) -> list[Future[dict[str, Any]]]:
        def ask_one(text: str, seed: int) -> dict[str, Any]:
            most = PROPOSALS_A_REQUEST * settings["max_words"] * TOKENS_A_WORD
            answer = client.ask(
                text, temperature=settings["temperature"], max_tokens=most, seed=seed
            )
            proposals = parse(answer.text)
            return {"proposals": proposals[:-1] if answer.finish_reason == "length" else proposals}

        return [client.submit(ask_one, *item.inputs) for item in batch]

    asked, limit = 0, MOST_REQUESTS * -(-count // PROPOSALS_A_REQUEST)
    with ExitStack() as stack:
        clients: list[Client] = []

        def load() -> Client:
            if not clients:
                clients.append(stack.enter_context(Client(endpoint)))
            return clients[0]

        while len(selection.accepted) < count and asked < limit:
            wanted = -(-(count - len(selection.accepted)) // PROPOSALS_A_REQUEST)
            numbers = range(asked, min(asked + wanted, limit))
            outcomes = job.run(
                [request(number) for number in numbers],
                load=load,
                compute=ask,
                batch_size=endpoint.concurrency,
            )
            for item_id in sorted(outcomes):
                if (result := outcomes[item_id].result) is not None:
                    for proposal in result["proposals"]:
                        selection.offer(proposal)
            asked = numbers.stop
    accepted = selection.accepted[:count]
    for reason, number in sorted(selection.dropped.items()):
        job.note(f"{number} proposal(s) dropped: {reason}")
    if len(accepted) < count:
        job.note(
            f"only {len(accepted)} of {count} proposals after {asked} requests; change the"
            " template, or ask another model"
        )
    write_text(Path(snakemake.output[0]), "".join(f"{text}\n" for text in accepted))
    job.write_record()


if __name__ == "__main__":
    run_script(main)
