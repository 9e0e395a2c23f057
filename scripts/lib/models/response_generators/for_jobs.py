"""Generators in the jobs of rules: which one a job asks for, and what goes on its record."""

from collections.abc import Iterator, Sequence
from typing import Any, NotRequired, TypedDict

from lib.blocks import Block, deciding
from lib.jobs.device import spread_over
from lib.jobs.job import Job
from lib.jobs.streams import Ended, Item, Stream, Take
from lib.models.response_generators.base import Generator
from lib.models.response_generators.chat import neutralised
from lib.models.response_generators.own_settings import FILE, left_out_of
from lib.models.response_generators.registry import GENERATORS
from lib.models.response_generators.requests import Generated, Request, Sampling
from lib.models.response_generators.settings import GeneratorSettings
from lib.registry import version_in_key


class GeneratedText(TypedDict):
    """An answer as journals hold it: `Generated`; `tokens` where they are known."""

    text: str
    finish_reason: str
    tokens: NotRequired[int]


def generator_settings(*blocks: Block) -> GeneratorSettings:
    """The settings of the backend that the blocks name, gathered from all of them, of which the
    last one counts; what is not the generator's is passed over.
    """
    values = {name: value for block in blocks for name, value in block}
    fields = GENERATORS.settings_of(values["backend"]).model_fields
    settings: GeneratorSettings = GENERATORS.validate(
        {name: value for name, value in values.items() if name in fields}
    )
    return settings


def generator_in_key(settings: GeneratorSettings) -> dict[str, Any]:
    """What of a generator decides its answers, besides the model's identity. transformers' of a
    model with penalties of its own were once drawn with these.
    """
    was_applied = settings.backend == "transformers" and left_out_of(
        settings.model, settings.revision
    )
    return (
        deciding(settings)
        | version_in_key(GENERATORS.load(settings.backend))
        | ({"own_settings": "left out"} if was_applied else {})
    )


def load_for_job(
    job: Job[Any],
    settings: GeneratorSettings,
    sampling: Sampling,
    *,
    with_images: bool,
    batch_size: int,
    of: str,
    loaded: Generator | None = None,
) -> Generator:
    """Loads a generator for a job, whose record tells that several items are answered at once.
    `batch_size`: how many; `of`: what they are ("prompts"); `loaded`: the same one, where another
    job of the process has loaded it.
    """
    for name, value in left_out_of(settings.model, settings.revision).items():
        job.note(
            f"{settings.model}: its {FILE} has {name} {value}, which is left out: answers are drawn"
            " as the configuration says, by every backend alike"
        )
    generator = GENERATORS.load(settings.backend)
    if settings.deterministic:
        job.note(f"deterministic: {generator.independence(job.device)}")
    elif batch_size > 1:
        job.note(f"batches of up to {batch_size} {of}: low bits may depend on what shares a batch")
    if (gpus := spread_over(job.device, settings.gpus)) > 1:
        job.note(f"spread over {gpus} GPUs: with vLLM, low bits may depend on how many")
    if loaded is not None:
        return loaded.with_sampling(sampling)
    return generator.load(
        settings, job.device, sampling, with_images=with_images, batch_size=batch_size
    )


def answers_for_job(
    job: Job[Any], generator: Generator, what: str
) -> Stream[Item[Request], GeneratedText]:
    """A stream of answers as journals hold them; the record tells of texts with a special token.
    `what`: what the texts are.
    """

    def stream(take: Take[Item[Request]]) -> Iterator[Ended[Item[Request], GeneratedText]]:
        def take_and_look(number: int) -> Sequence[Item[Request]]:
            items = take(number)
            for item in items:
                if neutralised(item.inputs.text, generator.processor) != item.inputs.text:
                    job.note(
                        f"{item.id}: the {what} holds a special token of this model; it is given to"
                        " it with a blank inside, as text"
                    )
            return items

        for ended in generator.stream(take_and_look, job.note):
            yield [(item, _as_journalled(answer)) for item, answer in ended]

    return stream


def _as_journalled(answer: Generated | Exception) -> GeneratedText | Exception:
    if isinstance(answer, Exception):
        return answer
    return {"text": answer.text, "finish_reason": answer.finish_reason, "tokens": answer.tokens}
