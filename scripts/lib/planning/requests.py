"""What a run asks of endpoints: requests, tokens, and their cost by the rates."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lib.benchmarks.judged import JudgedBenchmark
from lib.benchmarks.registry import BENCHMARKS
from lib.blocks import Endpoint, endpoints_in
from lib.config.response_ranking import key_of_reward, rewards_of
from lib.config.run import Config
from lib.data.layouts import PromptCounts
from lib.planning.costs import items_of
from lib.planning.graph import PlannedJob
from lib.planning.rates import Rates

MILLION = 1_000_000
#: The rules whose jobs have the answers to all questions of a benchmark, which judges are asked of.
WITH_ALL_ANSWERS = ("answer_benchmark", "answer_questions")


@dataclass(frozen=True)
class Asked:
    """An endpoint that is asked. `kind`: which of the rates' `requests` its tokens are of."""

    key: str
    kind: str
    endpoint: Endpoint
    items: int


@dataclass(frozen=True)
class RequestCost:
    """What an endpoint is asked: requests, tokens in and out, and their cost; None where the rates
    have no tokens of this kind, or no price of the model.
    """

    asked: Asked
    requests: int
    tokens: tuple[float, float] | None = None
    cost: float | None = None


def endpoints_asked(
    config: Config,
    jobs: Sequence[PlannedJob],
    prompts: PromptCounts,
    questions: Mapping[str, int],
) -> Iterator[Asked]:
    """Every endpoint that a run asks, with the number of items that it asks about."""
    if config.training.needs_pairs_of_run:
        yield from _asked_before_training(config, prompts.total)
    for name, block in config.evaluation.benchmarks.items():
        if block.judge:
            judged = sum(
                items_of(part, config, prompts, questions)
                for job in jobs
                if job.rule in WITH_ALL_ANSWERS
                for part in job.parts
                if part.wildcards["benchmark"] == name
            )
            key, kind = f"evaluation.benchmarks.{name}.judge", block.scorer or name
            yield Asked(key, kind, block.judge, judged * _gradings(block.scorer))


def _asked_before_training(config: Config, prompts: int) -> Iterator[Asked]:
    for name, value in config.instructions:
        if isinstance(value, Endpoint):
            yield Asked(f"instructions.{name}", "instructions", value, prompts)
    for name, policy in config.responses.policy_models.items():
        if endpoint := policy.llm_endpoint:
            key = f"responses.policy_models.{name}.endpoint"
            yield Asked(key, "responses", endpoint, prompts * policy.samples)
    for name, scorer in config.image_ranking.scorers.items():
        for field, endpoint in endpoints_in(scorer).items():
            key = f"image_ranking.scorers.{name}.{field}"
            images = prompts * len(config.images.drawn)
            yield Asked(key, scorer.kind, endpoint, images)
    for name, reward in rewards_of(config.response_ranking).items():
        for field, endpoint in endpoints_in(reward).items():
            answers = prompts * len(config.responses.answer_names)
            yield Asked(f"{key_of_reward(name)}.{field}", reward.kind, endpoint, answers)
    if judge := config.image_ranking.judge:
        count = 2 * min(judge.comparisons, prompts)
        yield Asked("image_ranking.judge.endpoint", "image_ranking", judge.endpoint, count)
    proposals = config.generate_prompts
    writer = proposals.endpoint or getattr(config.instructions, "endpoint", None)
    # Of target `prompts`, at most: what is there already is not asked for.
    if writer and (wanted := sum(map(proposals.wanted, config.topics))):
        yield Asked("generate_prompts.endpoint", "generate_prompts", writer, wanted)


def _gradings(scorer: str | None) -> int:
    """How often an answer is judged."""
    if scorer:
        benchmark = BENCHMARKS.load(scorer)
        if issubclass(benchmark, JudgedBenchmark):
            return benchmark.gradings
    return 1


def cost_of(asked: Asked, rates: Rates) -> RequestCost:
    """The requests of an endpoint, with their tokens and their cost as far as the rates have
    them.
    """
    rate, price = rates.requests.get(asked.kind), rates.prices.get(asked.endpoint.model)
    if rate is None:
        return RequestCost(asked, asked.items)
    requests = math.ceil(asked.items * rate.requests / rate.items)
    tokens = requests * rate.input_tokens, requests * rate.output_tokens
    if price is None:
        return RequestCost(asked, requests, tokens)
    cost = (tokens[0] * price.input + tokens[1] * price.output) / MILLION
    return RequestCost(asked, requests, tokens, cost)


def say_requests(costs: Sequence[RequestCost], rates: Rates, file: object) -> list[str]:
    """A line for each endpoint, and what is missing in the rates file."""
    return [_say(cost, rates, file) for cost in costs]


def _say(cost: RequestCost, rates: Rates, file: object) -> str:
    asked = cost.asked
    model = asked.endpoint.model
    line = f"Endpoint {asked.key} ({model}): {cost.requests:,} requests"
    if cost.tokens is None:
        return f"{line}. Their tokens are not in {file}: add '{asked.kind}' under `requests`."
    rate = rates.requests[asked.kind]
    incoming, outgoing = (_amount(tokens) for tokens in cost.tokens)
    line += f", {incoming} tokens in, {outgoing} out ({rate.kind})"
    if cost.cost is None:
        return (
            f"{line}. No price of '{model}' is in {file}: add it under `prices` (0 for your own)."
        )
    price = rates.prices[model]
    return f"{line}: {cost.cost:,.2f} {price.currency} (price: {price.kind})."


def _amount(tokens: float) -> str:
    return f"{tokens / MILLION:,.2f} million" if tokens >= MILLION / 100 else f"{tokens:,.0f}"
