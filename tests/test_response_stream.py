"""vLLM's engine kept full: how many steps it takes for answers of uneven length, which are set here
and are otherwise the model's to choose.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.stream import (
    BATCH,
    in_batches,
    lengths_of,
    streamed,
    without_gaps,
)
from benchmarks.stream import LONGEST as CAP
from PIL import Image

from lib.engine import Prompt, sampling_parameters
from lib.jobs.streams import Item, handing_out
from lib.models.response_generators.requests import Request, Sampling
from lib.models.response_generators.vllm import VllmGenerator

PLACES = 256  # how many requests the engine has at once


class SetLengths(VllmGenerator):
    """Answers whose length in tokens is the request's seed; a request for none cannot be asked."""

    def prompt_of(self, request: Request) -> Prompt:
        parameters = sampling_parameters(max_tokens=request.seed, temperature=0, ignore_eos=True)
        return Prompt(request.text, list, parameters)


@pytest.fixture(scope="module")
def engine(demo_models: Path) -> Any:
    """A loaded model that counts its engine's steps, and fails one while it has some request."""
    model, sampling = demo_models / "instruct-llm", Sampling(CAP, 0)
    generator = SetLengths(model, "float32", "cpu", sampling, False, PLACES, CAP + 100)
    generator.ends = []
    seen = SimpleNamespace(generator=generator, steps=0, fails_with=None)
    step = generator.llm.llm_engine.step

    def counted() -> Any:
        seen.steps += 1
        lengths = [
            state.max_tokens_param
            for state in generator.llm.llm_engine.output_processor.request_states.values()
        ]
        if seen.fails_with in lengths:
            raise RuntimeError("an illegal instruction")
        return step()

    generator.llm.llm_engine.step = counted
    return seen


def answer(engine: Any, lengths: Sequence[int], places: int) -> dict[str, Any]:
    """The answers by the position of their length; `engine.steps` are those that it took."""
    engine.steps, engine.generator.batch_size = 0, places
    items = [Item(str(n), "", Request("word", length)) for n, length in enumerate(lengths)]
    stream = engine.generator.stream(handing_out(items), print)
    return {item.id: answer for ended in stream for item, answer in ended}


@pytest.mark.slow
def test_500_answers_take_hardly_more_steps_than_they_have_to_and_a_third_of_those_of_batches(
    engine: Any,
) -> None:
    lengths = lengths_of(500, seed=0)
    answers = answer(engine, lengths, PLACES)
    assert [answers[str(number)].tokens for number in range(500)] == lengths
    assert engine.steps <= 1.1 * max(max(lengths), sum(lengths) / PLACES)
    assert engine.steps <= in_batches(lengths, BATCH) / 3


@pytest.mark.slow
@pytest.mark.parametrize("places", [1, 4, 8])
def test_no_place_of_the_engine_stands_empty_while_a_request_waits(
    engine: Any, places: int
) -> None:
    lengths = lengths_of(12 * places, seed=places)
    answer(engine, lengths, places)
    assert engine.steps == without_gaps(lengths, places) == streamed(lengths, places)


@pytest.mark.slow
def test_a_step_that_fails_fails_the_request_at_fault_and_no_other(engine: Any) -> None:
    lengths = [5, 30, 7, 6, 9, 8, 4]
    engine.fails_with = 30
    try:
        answers = answer(engine, lengths, 3)
    finally:
        engine.fails_with = None
    assert str(answers.pop("1")) == "an illegal instruction"
    assert {n: each.tokens for n, each in answers.items()} == {
        str(n): length for n, length in enumerate(lengths) if length != 30
    }
    assert answer(engine, [3], 3)["0"].tokens == 3


#: The last test of this file: vLLM's engines in one process share what a later one sets anew.
@pytest.mark.slow
def test_with_prefix_caching_a_picture_is_read_once_for_questions_in_a_row(
    demo_models: Path, tmp_path: Path
) -> None:
    """And each answer is that without it."""
    requests = []
    for colour in ("red", "blue"):
        picture = tmp_path / f"{colour}.png"
        Image.new("RGB", (64, 64), colour).save(picture)
        for thing in ("cats", "dogs", "cups", "hats"):
            text = f"{'Look closely. ' * 20}How many {thing}?"
            requests.append(Request(text, 0, picture))

    def outputs(prefix_caching: bool) -> Any:
        settings = VllmGenerator.Settings(
            backend="vllm",
            model=str(demo_models / "llava-1.5"),
            dtype="float32",
            max_model_len=2048,
            prefix_caching=prefix_caching,
        )
        generator = VllmGenerator.load(
            settings, "cpu", Sampling(8, 0), with_images=True, batch_size=2
        )
        return generator._outputs([generator.prompt_of(request) for request in requests])

    without, with_caching = outputs(False), outputs(True)
    answers = [[output.outputs[0].token_ids for output in each] for each in (without, with_caching)]
    assert answers[0] == answers[1]
    assert not any(output.num_cached_tokens for output in without)
    read = [output.num_cached_tokens > 0 for output in with_caching]
    # Of each picture's four, the first one reads it, and one that is asked with it may.
    assert sum(read) >= len(requests) - 2 * 2
