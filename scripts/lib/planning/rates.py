"""What a job of each stage costs: rates, and where each comes from.

A stage is a rule. An item is what a rate counts in: an image (stages images and image ranking), a
response (responses and their ranking), an update (training), a question (evaluation), a pair
(merge_pairs, import_pairs, check_own_pairs), a prompt in every other job of a shard, and the job
itself everywhere else.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from lib.blocks import Block
from lib.config.yaml_files import explain, read_yaml, say_where
from lib.errors import UserError
from lib.planning.graph import PlannedJob

ANSWERING = ("answer_benchmark", "answer_part", "answer_questions")
#: Rules whose jobs do what another rule's do, at its rates.
AT_RATES_OF = {"answer_part": "answer_benchmark"}
#: Rules whose jobs that are done in one load its model once.
LOADED_ONCE = ("answer_part", "answer_questions")
#: Rules whose rates may depend on how the configuration has them done: `<rule>@<how>`.
HOW = {
    "answer_benchmark": ("vllm", "prefix_caching", "joined"),
    "rank_images": ("decoded",),
}

#: Rules whose jobs differ so much that each of these wildcards may have a rate of its own,
#: `<rule>/<wildcard's value>`.
OWN_RATES = {
    "generate_responses": "policy",
    "rank_images": "scorer",
    "rank_responses": "reward",
} | dict.fromkeys(ANSWERING, "benchmark")


class Basis(Block):
    """Where a rate comes from: exactly one of the three."""

    measured: str | None = Field(
        None, min_length=1, description="The run and machine that measured it."
    )
    published: str | None = Field(None, min_length=1, description="Who published it.")
    assumed: str | None = Field(
        None, min_length=1, description="The reasoning; nobody has measured it."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.measured, self.published, self.assumed)) != 1:
            raise ValueError(
                "say where the rate comes from, with exactly one of `measured`, `published` and"
                " `assumed`"
            )
        return self

    @property
    def kind(self) -> str:
        """One word for the table."""
        return "measured" if self.measured else "published" if self.published else "assumed"


class Rate(Basis):
    """What a job of one stage costs: so much an item, and so much a job."""

    seconds: NonNegativeFloat = Field(description="Seconds an item.")
    load_seconds: NonNegativeFloat = Field(0, description="Seconds a job, for loading its model.")
    megabytes: NonNegativeFloat = Field(0, description="MB (10^6 bytes) an item.")
    files: NonNegativeFloat = Field(0, description="Files an item.")
    megabytes_per_job: NonNegativeFloat = Field(0, description="MB a job.")
    files_per_job: NonNegativeFloat = Field(0, description="Files a job.")


class RequestRate(Basis):
    """What a request to an endpoint holds."""

    input_tokens: NonNegativeFloat = Field(description="Tokens that are sent, an image's included.")
    output_tokens: NonNegativeFloat = Field(description="Tokens that come back.")
    items: PositiveInt = Field(1, description="Items that a request asks for.")
    requests: PositiveFloat = Field(1, description="Requests that an item takes, on average.")


class Price(Basis):
    """What an endpoint's model costs."""

    input: NonNegativeFloat = Field(description="For a million tokens that are sent.")
    output: NonNegativeFloat = Field(description="For a million tokens that come back.")
    currency: str = Field("USD", min_length=1, description="Of both.")


class HubSize(Basis):
    """What a hub repository takes in the hub cache, of the files that jobs fetch."""

    gigabytes: NonNegativeFloat = Field(description="GB (10^9 bytes).")


class EveryJob(Basis):
    """What a job costs before its script begins."""

    seconds: NonNegativeFloat = Field(description="Seconds a job.")


class Rates(Block):
    """The rates file."""

    every_job: EveryJob
    stages: dict[str, Rate] = Field(
        description=(
            "By rule, or `<rule>/<policy model, scorer, reward or benchmark>`; of answer_benchmark"
            " also with `@vllm`, `@prefix_caching` or `@joined` behind it, of rank_images with"
            " `@decoded`."
        )
    )
    other_jobs: Rate = Field(description="Jobs that hold no GPU and have no rate of their own.")
    questions: dict[str, PositiveInt] = Field(
        default_factory=dict, description="Benchmark -> questions that a model answers."
    )
    requests: dict[str, RequestRate] = Field(
        default_factory=dict,
        description=(
            "What an endpoint is asked: `instructions`, `responses`, `image_ranking`,"
            " `generate_prompts`, the `kind` of a scorer or reward, or a judged benchmark's scorer."
        ),
    )
    prices: dict[str, Price] = Field(
        default_factory=dict, description="By the model's name at its endpoint."
    )
    hub: dict[str, HubSize] = Field(
        default_factory=dict, description="By hub repository; data sets as `datasets/owner/name`."
    )

    def of(self, job: PlannedJob, how: str = "") -> Rate:
        """The rate of a job that is done in a way of `HOW`, where that is said. A UserError if it
        holds a GPU and has none.
        """
        rule = AT_RATES_OF.get(job.rule, job.rule)
        own = f"{rule}/{job.wildcards.get(OWN_RATES.get(rule, ''), '')}"
        of_all = [f"{rule}@{how}", own]
        # Reading pictures is little of a scorer's rate where that is its own.
        names = [f"{own}@{how}", *(of_all[::-1] if how == "decoded" else of_all), rule]
        rate = next((self.stages[name] for name in names if name in self.stages), None)
        if rate is None and job.gpus:
            raise UserError(
                f"the rates have none for '{job.rule}', which needs a GPU. Add it under `stages`"
            )
        return rate or self.other_jobs


def read_rates(path: Path, rules: Iterable[str]) -> Rates:
    """Reads a rates file; `rules` are those that there are. Errors: UserError with file, line and
    key, all mistakes at once.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file. Correct --rates; the project's is"
            " profiles/slurm/rates.yaml"
        )
    values = read_yaml(path)
    try:
        rates = Rates.model_validate(values)
    except ValidationError as error:
        raise explain(error, Rates, values, [path], "docs/planning.md") from error
    known = set(rules)
    for name in rates.stages:
        stage, _, how = name.partition("@")
        rule, _, own = stage.partition("/")
        if (
            rule not in known
            or (own and rule not in OWN_RATES)
            or (how and how not in HOW.get(rule, ()))
        ):
            where = say_where(["stages", name], [path])
            raise UserError(
                f"{where}stages: there is no stage '{name}'. There are: {', '.join(sorted(known))}"
            )
    return rates
