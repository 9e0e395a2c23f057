"""lmms-eval's questions answered by vLLM's engine, put word for word as lmms-eval's own class for
LLaVA puts them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lib.benchmarks.lmms_eval.answer_journal import seed_of
from lib.engine import EngineStream, Prompt, load_engine, places_in_engine, sampling_parameters
from lib.jobs.streams import Ended, Item, Stream, Take
from lib.patches.lmms_eval import prompt_of

Answer = dict[str, Any]  # "response", "tokens"
#: The environment variable with an `Engine`, as JSON; without it, lmms-eval's class answers.
ENGINE = "PDS_DPO_ENGINE"
#: What lmms-eval's class takes where a task says nothing.
TOKENS = 1024


@dataclass(frozen=True)
class Engine:
    """How vLLM is to run a model: `at_once`, how many questions; `max_model_len`, of how many
    tokens each with its answer; `prefix_caching`, whether what questions in a row begin with is
    computed once; `gpus`, how many have a part of each layer; `deterministic`, whether no answer
    may depend on what else is asked.
    """

    dtype: str
    device: str
    at_once: int
    max_model_len: int
    prefix_caching: bool = False
    gpus: int = 1
    deterministic: bool = False

    @property
    def places(self) -> int:
        """How many questions share the engine."""
        return places_in_engine(self.at_once, self.device, self.deterministic)


class EngineAnswers:
    """The answers of a model's folder, which is loaded once there is a question."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder

    @cached_property
    def _llm(self) -> Any:
        engine = self.engine
        return load_engine(
            self.folder,
            engine.dtype,
            engine.device,
            engine.places,
            engine.max_model_len,
            with_images=True,
            prefix_caching=engine.prefix_caching,
            gpus=engine.gpus,
            deterministic=engine.deterministic,
        )

    def of(self, model: Any) -> Stream[Item[Any], Answer]:
        """The stream that answers lmms-eval's requests. `model`: its own, which puts them."""
        return partial(self._stream, model)

    def _stream(self, model: Any, take: Take[Item[Any]]) -> Iterator[Ended[Item[Any], Answer]]:
        first = list(take(1))
        if not first:
            return

        def take_with_first(number: int) -> list[Item[Any]]:
            before = [first.pop()] if first else []
            return [*before, *take(number - len(before))]

        prompt = partial(prompt_for_engine, model)
        for ended in EngineStream(self._llm, self.engine.places, prompt).run(take_with_first):
            yield [(item, _answer_in(output, model.tokenizer)) for item, output in ended]


def prompt_for_engine(model: Any, item: Item[Any]) -> Prompt:
    """A request as lmms-eval's class asks it. Errors: ValueError where it wants beams."""
    text, images, generation = prompt_of(model, item.inputs)
    if generation.get("num_beams", 1) > 1:
        raise ValueError("the task wants beams, which vLLM does not search")
    parameters = sampling_parameters(
        max_tokens=generation.get("max_new_tokens", TOKENS),
        temperature=generation.get("temperature", 0),
        top_p=generation.get("top_p") or 1,
        seed=seed_of(item.key),
        # lmms-eval's class ends an answer at this one token.
        ignore_eos=True,
        stop_token_ids=[model.eot_token_id],
    )
    return Prompt(text, lambda: images, parameters)


def _answer_in(output: Any, tokenizer: Any) -> Answer | Exception:
    if isinstance(output, Exception):
        return output
    completion = output.outputs[0]
    if completion.finish_reason not in ("stop", "length"):
        return RuntimeError(f"vLLM ended the answer for the reason '{completion.finish_reason}'")
    ids = list(completion.token_ids)
    return {"response": tokenizer.decode(ids, skip_special_tokens=True), "tokens": len(ids)}
