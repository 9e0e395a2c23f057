"""How many steps an engine takes for answers of uneven length: what they cost, since it writes a
token of each answer that it has in one step.

    PYTHONPATH=scripts python benchmarks/stream.py [--seeds N] [--answers N] [--places N ...]

The engine is made up and writes nothing; what hands requests to it is the workflow's own stream
(lib/engine.py). Lengths are drawn from a lognormal distribution. No schedule takes fewer steps than
the longest answer has tokens, nor than all tokens over the places that there are. In batches each
ends with its longest answer.
"""

import argparse
import heapq
import math
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from rich.table import Table

from lib.engine import EngineStream, Prompt
from lib.jobs.streams import handing_out

#: In tokens: the median of answers, and their longest.
MEDIAN, LONGEST = 120, 1000
SIGMA = 0.8
#: How many requests a batch had before there was a stream.
BATCH = 32


def lengths_of(answers: int, seed: int) -> list[int]:
    """Lengths in tokens of a lognormal distribution."""
    draw = random.Random(seed)  # noqa: S311  # nothing is to be secret
    lengths = (round(draw.lognormvariate(math.log(MEDIAN), SIGMA)) for _ in range(answers))
    return [min(LONGEST, max(1, length)) for length in lengths]


def in_batches(lengths: Sequence[int], size: int) -> int:
    """The steps of batches, each of which ends with its longest answer."""
    return sum(max(lengths[start : start + size]) for start in range(0, len(lengths), size))


def without_gaps(lengths: Sequence[int], places: int) -> int:
    """The steps where each takes the first place that is free, in their order: the fewest without
    knowing the lengths.
    """
    ends = [0] * places
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def fewest(lengths: Sequence[int], places: int) -> float:
    """The larger of what no schedule can do without."""
    return max(max(lengths), sum(lengths) / places)


@dataclass
class MadeUpEngine:
    """Takes requests whose parameters are their lengths, as vLLM's engine takes requests."""

    steps: int = 0
    left: list[tuple[int, str]] = field(default_factory=list)

    def add_request(self, name: str, prompt: None, length: int) -> None:
        """A request that ends so many steps from now."""
        heapq.heappush(self.left, (self.steps + length, name))

    def step(self) -> Iterator[Any]:
        """Those that end with the next step."""
        self.steps += 1
        while self.left and self.left[0][0] == self.steps:
            yield SimpleNamespace(request_id=heapq.heappop(self.left)[1], finished=True)


class MadeUpStream(EngineStream[int]):
    """The stream of that engine: there is nothing to read, to render, or to take back."""

    def _prepared(
        self, item: int, readers: ThreadPoolExecutor, renderer: ThreadPoolExecutor
    ) -> Future[tuple[Any, Any]]:
        prepared: Future[tuple[Any, Any]] = Future()
        prepared.set_result((None, item))
        return prepared

    def _abort(self) -> None:
        self._asked.clear()


def streamed(lengths: Sequence[int], places: int) -> int:
    """The steps of the workflow's stream."""
    engine = MadeUpEngine()
    llm = SimpleNamespace(llm_engine=engine)
    stream = MadeUpStream(llm, places, lambda length: Prompt("", list, length))
    answered = sum(len(ended) for ended in stream.run(handing_out(lengths)))
    assert answered == len(lengths)
    return engine.steps


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200, help="draws of the lengths")
    parser.add_argument("--answers", type=int, default=500)
    parser.add_argument("--places", type=int, nargs="+", default=[4, 32, 64, 256])
    arguments = parser.parse_args()
    draws = [lengths_of(arguments.answers, seed) for seed in range(arguments.seeds)]
    table = Table(
        "places",
        "steps / fewest",
        "most of all draws",
        "steps / those of batches of as many",
        title=f"{arguments.answers} answers, medians of {arguments.seeds} draws of their lengths",
        title_justify="left",
    )
    for places in arguments.places:
        steps = [streamed(lengths, places) for lengths in draws]
        over = [
            taken / fewest(lengths, places) for taken, lengths in zip(steps, draws, strict=True)
        ]
        batched = [
            taken / in_batches(lengths, places) for taken, lengths in zip(steps, draws, strict=True)
        ]
        table.add_row(
            str(places), f"{median(over):.2f}", f"{max(over):.2f}", f"{median(batched):.2f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
