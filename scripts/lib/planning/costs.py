"""What a run will cost by the rates: hours, GPU-hours, storage and files by stage (a stage is a
rule, an item what its rate counts in: lib/planning/rates.py).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from lib.config.pairs import ALL
from lib.config.run import Config
from lib.config.training import Experiment
from lib.data.layouts import PromptCounts
from lib.data.own_pairs import count_own_pairs
from lib.data.pair_forms.settings import OwnPairs
from lib.head.summary import ORDER
from lib.planning.graph import PlannedJob
from lib.planning.rates import ANSWERING, AT_RATES_OF, HOW, LOADED_ONCE, Rate, Rates

#: A job that is planned for more than this share of its time limit is told.
SHARE_OF_LIMIT = 0.8


@dataclass
class Cost:
    """What some jobs cost."""

    jobs: int = 0
    items: float = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    longest: float = 0.0
    bytes: float = 0.0
    files: float = 0.0

    def add(self, other: "Cost") -> None:
        """Add another cost in place."""
        self.jobs += other.jobs
        self.items += other.items
        self.seconds += other.seconds
        self.gpu_seconds += other.gpu_seconds
        self.longest = max(self.longest, other.longest)
        self.bytes += other.bytes
        self.files += other.files


@dataclass
class CostPlan:
    """The planned cost by rule, what each is based on, what the plan leaves out, and the seconds of
    each job, in their order.
    """

    costs: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))
    bases: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    notes: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def updates(
    pairs: int, epochs: float, batch_size: int, gradient_accumulation: int, processes: int
) -> int:
    """Optimiser updates of a training, as transformers' Trainer counts them."""
    batches = math.ceil(pairs / (batch_size * processes))
    return math.ceil(epochs * max(1, math.ceil(batches / gradient_accumulation)))


def pairs_trained_on(experiment: Experiment, prompts: PromptCounts) -> int:
    """How many pairs an experiment is trained on; 0 where nobody knows before they are there."""
    if experiment.pairs is None:
        return pairs_of(experiment.size or ALL, prompts)
    return known_pairs(experiment.pairs) or experiment.paper_row or 0


@cache
def known_pairs(pairs: OwnPairs) -> int:
    """How many pairs from elsewhere there are; 0 for those of the hub that are not here yet."""
    return count_own_pairs(pairs) if pairs.is_readable else 0


def pairs_of(size: int | str, prompts: PromptCounts) -> int:
    """How many pairs a data set has; at most as many as there are prompts."""
    return prompts.total if size == ALL else int(size)


def items_of(
    job: PlannedJob,
    config: Config,
    prompts: PromptCounts,
    questions: Mapping[str, int],
) -> int:
    """How many items a job has; 0 for a benchmark of which the number of questions is not known."""
    names = job.wildcards
    if {"topic", "shard"} <= names.keys():
        of_shard = prompts.of(names["topic"], names["shard"])
        if job.rule in ("generate_images", "rank_images"):
            return of_shard * config.images.images_per_prompt
        if job.rule == "rank_responses":
            return of_shard * len(config.responses.answer_names)
        if job.rule == "generate_responses":
            return of_shard * config.responses.policy_models[names["policy"]].samples
        return of_shard
    if job.rule == "train_dpo":
        settings = config.training.settings_of(names["experiment"])
        return updates(
            pairs_trained_on(config.training.experiments[names["experiment"]], prompts),
            settings.epochs,
            settings.batch_size,
            settings.gradient_accumulation,
            settings.processes,
        )
    if job.rule == "check_pairs":
        return prompts.total
    if job.rule in ("import_pairs", "check_own_pairs"):
        return known_pairs(config.training.own_pairs[names["own_pairs"]])
    if job.rule == "merge_pairs":
        return pairs_of(names["size"], prompts)
    if job.rule in ANSWERING:
        known = questions.get(names["benchmark"], 0)
        limit = getattr(config.evaluation.benchmarks[names["benchmark"]], "limit", None)
        asked = min(known, limit) if known and limit else limit or known
        parts = int(names["part"].partition("-of-")[2]) if "part" in names else 1
        return math.ceil(asked / parts)
    return 1


def parts_of(job: PlannedJob, config: Config) -> list[tuple[PlannedJob, str]]:
    """The jobs that a job does, each with its way of `HOW`, if it has one. For all scorers but the
    first, pictures are decoded already.
    """
    return [
        (part, "decoded" if number and job.rule == "rank_images" else how_of(part, config))
        for number, part in enumerate(job.parts)
    ]


def how_of(job: PlannedJob, config: Config) -> str:
    """In which way of `HOW` a job answers lmms-eval's questions; empty where it has none, or
    transformers answers.
    """
    if job.rule not in ANSWERING:
        return ""
    if AT_RATES_OF.get(job.rule, job.rule) not in HOW:
        return ""
    evaluation = config.evaluation
    if "part" not in job.wildcards and evaluation.parts_of(job.wildcards["benchmark"]):
        return "joined"
    if evaluation.task_backend != "vllm":
        return ""
    return "prefix_caching" if evaluation.prefix_caching else "vllm"


def rate_of(job: PlannedJob, how: str, config: Config, rates: Rates) -> Rate:
    """The rate of a job that is done in a way of `HOW`, if it has one; where the images are the
    user's own, what is stored of one only, since nothing draws it.
    """
    rate = rates.of(job, how)
    if job.rule != "generate_images" or config.images.IS_DRAWN:
        return rate
    other = rates.other_jobs
    return rate.model_copy(update={"seconds": other.seconds, "load_seconds": other.load_seconds})


def plan_costs(
    jobs: Sequence[PlannedJob], config: Config, prompts: PromptCounts, rates: Rates
) -> CostPlan:
    """The cost of all jobs at the given rates. Errors: UserError if a stage with GPUs has none."""
    planned = CostPlan()
    unknown = set()
    too_long: dict[str, tuple[str, float]] = {}
    limits: dict[str, int] = {}
    for job in jobs:
        cost = Cost(1, seconds=rates.every_job.seconds)
        for number, (part, how) in enumerate(parts_of(job, config)):
            rate = rate_of(part, how, config, rates)
            load_seconds = 0 if number and job.rule in LOADED_ONCE else rate.load_seconds
            items = items_of(part, config, prompts, rates.questions)
            if job.rule in ANSWERING and not items:
                unknown.add(part.wildcards["benchmark"])
            size = rate.megabytes_per_job + items * rate.megabytes
            cost.add(
                Cost(
                    items=items,
                    seconds=load_seconds + items * rate.seconds,
                    bytes=size * 1e6,
                    files=rate.files_per_job + items * rate.files,
                )
            )
            planned.bases[job.rule].add(rate.kind)
        seconds = cost.longest = cost.seconds
        cost.gpu_seconds = seconds * job.gpus
        planned.costs[job.rule].add(cost)
        planned.seconds.append(seconds)
        if seconds > job.minutes * 60 * SHARE_OF_LIMIT and job.minutes:
            name, longest = too_long.get(job.rule, ("", 0.0))
            too_long[job.rule] = max(
                (name, longest), (name_of(job), seconds), key=lambda entry: entry[1]
            )
            limits[job.rule] = job.minutes
    for rule, (name, seconds) in too_long.items():
        planned.notes.append(
            f"{rule} {name} is planned for {seconds / 3600:.1f} h, and its time limit is"
            f" {limits[rule] / 60:.1f} h (`runtime`). A job that runs out of time goes on where it"
            " stopped, in another attempt; raise the limit, or split the work, to need none."
        )
    planned.notes += _notes_on_own_pairs(config)
    if unknown:
        planned.notes.append(
            "How many questions these benchmarks have is not in the rates, so answering them is"
            f" planned as loading alone: {', '.join(sorted(unknown))}. Add them under `questions`."
        )
    return planned


def _notes_on_own_pairs(config: Config) -> list[str]:
    """What is not known of pairs from elsewhere."""
    of_hub = {
        name: experiment
        for name, experiment in config.training.experiments.items()
        if experiment.pairs and not known_pairs(experiment.pairs)
    }
    if not of_hub:
        return []
    unknown = [name for name, experiment in of_hub.items() if not experiment.paper_row]
    rest = ", or, without one, as loading alone" if unknown else ""
    note = (
        "How many pairs these experiments have is not known before their data are here (`make"
        f" fetch`): {', '.join(of_hub)}. They are planned with the number of their"
        f" `paper_row`{rest}."
    )
    return [note]


def name_of(job: PlannedJob) -> str:
    """The name of a job in its record."""
    return "/".join(job.wildcards.values()) or job.rule


def in_order(rules: Iterable[str]) -> list[str]:
    """Rules in the order of the flow."""
    known = {rule: place for place, rule in enumerate(ORDER)}
    return sorted(rules, key=lambda rule: (known.get(rule, len(known)), rule))
