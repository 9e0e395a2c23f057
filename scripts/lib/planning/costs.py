"""What a run costs, planned from rates and measured from its own records: hours, GPU-hours, storage
and files by stage.

A stage is a rule. An item is what a rate counts in: an image (stages images and image ranking), a
response (response ranking), an update (training), a question (evaluation), a pair (merge_pairs), a
prompt in every other job of a shard, and the job itself everywhere else.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationError, model_validator

from lib.blocks import Block
from lib.config.run import Config
from lib.config.yaml_files import read_yaml, say_where
from lib.errors import UserError
from lib.head.summary import ORDER, read_records
from lib.planning.graph import PlannedJob

ANSWERING = ("answer_benchmark", "answer_questions")
#: Rules whose jobs differ so much that each of these wildcards may have a rate of its own,
#: `<rule>/<wildcard's value>`.
OWN_RATES = {"generate_responses": "policy", "rank_images": "scorer"} | dict.fromkeys(
    ANSWERING, "benchmark"
)
#: The folder under results/<run>/ whose files a rule publishes. models/ and evaluation/ are shared;
#: see `rule_of_file`.
FOLDERS = {
    "proposed_prompts": "generate_prompts",
    "images": "generate_images",
    "image_ranking": "rank_images",
    "instructions": "write_instructions",
    "responses": "generate_responses",
    "response_ranking": "rank_responses",
    "pairs": "build_pairs",
    "dataset": "merge_pairs",
    "prompts": "tell_prompt",
}
#: A job that is planned for more than this share of its time limit is told.
SHARE_OF_LIMIT = 0.8
PICTURES = {".png", ".webp", ".jpeg"}
#: Rules whose storage does not grow with their items.
STORED_BY_JOB = ("train_dpo", "merge_adapter")


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


class EveryJob(Basis):
    """What a job costs before its script begins."""

    seconds: NonNegativeFloat = Field(description="Seconds a job.")


class Rates(Block):
    """The rates file."""

    every_job: EveryJob
    stages: dict[str, Rate] = Field(
        description="By rule, or `<rule>/<policy model, scorer or benchmark>`."
    )
    other_jobs: Rate = Field(description="Jobs that hold no GPU and have no rate of their own.")
    questions: dict[str, PositiveInt] = Field(
        default_factory=dict, description="Benchmark -> questions that a model answers."
    )

    def of(self, job: PlannedJob) -> Rate:
        """The rate of a job. A UserError if it holds a GPU and has none."""
        own = job.wildcards.get(OWN_RATES.get(job.rule, ""), "")
        rate = self.stages.get(f"{job.rule}/{own}") or self.stages.get(job.rule)
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
        raise UserError("\n".join(_mistake(path, problem) for problem in error.errors())) from error
    known = set(rules)
    for name in rates.stages:
        if name.split("/")[0] not in known or ("/" in name and name.split("/")[0] not in OWN_RATES):
            where = say_where(["stages", name], [path])
            raise UserError(
                f"{where}stages: there is no stage '{name}'. There are: {', '.join(sorted(known))}"
            )
    return rates


def _mistake(path: Path, problem: Any) -> str:
    place = list(problem["loc"])
    key = ".".join(map(str, place)) or "the file"
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        text = "this key is missing. Add it"
    elif problem["type"] == "extra_forbidden":
        text = "unknown key. Correct or delete it"
    elif isinstance(problem.get("input"), str | int | float):
        text = f"{text} (found {problem['input']!r})"
    return f"{say_where(place, [path])}{key}: {text}."


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
        """Takes another cost in."""
        self.jobs += other.jobs
        self.items += other.items
        self.seconds += other.seconds
        self.gpu_seconds += other.gpu_seconds
        self.longest = max(self.longest, other.longest)
        self.bytes += other.bytes
        self.files += other.files


@dataclass
class Plan:
    """The planned cost by rule, what each is based on, and what the plan leaves out."""

    costs: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))
    bases: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    notes: list[str] = field(default_factory=list)


def updates(
    pairs: int, epochs: float, batch_size: int, gradient_accumulation: int, processes: int
) -> int:
    """Optimiser updates of a training, as transformers' Trainer counts them."""
    batches = math.ceil(pairs / (batch_size * processes))
    return math.ceil(epochs * max(1, math.ceil(batches / gradient_accumulation)))


def items_of(
    job: PlannedJob,
    config: Config,
    shards: Mapping[tuple[str, str], int],
    questions: Mapping[str, int],
) -> int:
    """How many items a job has; 0 for a benchmark of which the number of questions is not known."""
    names = job.wildcards
    if {"topic", "shard"} <= names.keys():
        prompts = shards.get((names["topic"], names["shard"]), 0)
        if job.rule in ("generate_images", "rank_images"):
            return prompts * len(config.images.guidance_scales)
        return (
            prompts * len(config.responses.policy_models)
            if job.rule == "rank_responses"
            else prompts
        )
    if job.rule == "train_dpo":
        settings = config.training.settings_of(names["experiment"])
        size = config.training.experiments[names["experiment"]].size
        return updates(
            size,
            settings.epochs,
            settings.batch_size,
            settings.gradient_accumulation,
            settings.processes,
        )
    if job.rule == "merge_pairs":
        return int(names["size"])
    if job.rule in ANSWERING:
        known = questions.get(names["benchmark"], 0)
        limit = getattr(config.evaluation.benchmarks[names["benchmark"]], "limit", None)
        return min(known, limit) if known and limit else limit or known
    return 1


def plan(
    jobs: Sequence[PlannedJob], config: Config, shards: Mapping[tuple[str, str], int], rates: Rates
) -> Plan:
    """The cost of all jobs at the given rates. A UserError if a stage that needs a GPU has no rate."""
    made = Plan()
    unknown = set()
    too_long: dict[str, tuple[str, float]] = {}
    limits: dict[str, int] = {}
    for job in jobs:
        rate = rates.of(job)
        items = items_of(job, config, shards, rates.questions)
        if job.rule in ANSWERING and not items:
            unknown.add(job.wildcards["benchmark"])
        seconds = rates.every_job.seconds + rate.load_seconds + items * rate.seconds
        size = rate.megabytes_per_job + items * rate.megabytes
        files = rate.files_per_job + items * rate.files
        made.costs[job.rule].add(
            Cost(1, items, seconds, seconds * job.gpus, seconds, size * 1e6, files)
        )
        made.bases[job.rule].add(rate.kind)
        if seconds > job.minutes * 60 * SHARE_OF_LIMIT and job.minutes:
            name, longest = too_long.get(job.rule, ("", 0.0))
            too_long[job.rule] = max(
                (name, longest), (name_of(job), seconds), key=lambda entry: entry[1]
            )
            limits[job.rule] = job.minutes
    for rule, (name, seconds) in too_long.items():
        made.notes.append(
            f"{rule} {name} is planned for {seconds / 3600:.1f} h, and its time limit is"
            f" {limits[rule] / 60:.1f} h (`runtime`). A job that runs out of time goes on where it"
            " stopped, in another attempt; raise the limit, or split the work, to need none."
        )
    if unknown:
        made.notes.append(
            "How many questions these benchmarks have is not in the rates, so answering them is"
            f" planned as loading alone: {', '.join(sorted(unknown))}. Add them under `questions`."
        )
    return made


@dataclass
class JobUse:
    """What one job's record and journal say: items computed so far, seconds on them, seconds of its
    last loading, and in all.
    """

    rule: str
    name: str
    finished: str
    items: int
    item_seconds: float
    load_seconds: float
    seconds: float


def read_uses(root: Path) -> list[JobUse]:
    """What the jobs of a run used.

    A job that ran again with nothing to do has overwritten its record; the journal still has the
    seconds of each of its items, those that were computed by earlier settings included. The loading
    times of such a job's earlier runs are lost, and so is the time of jobs that were killed before
    they wrote anything.
    """
    return [_use(root, record) for record in read_records(root)]


def _use(root: Path, record: dict[str, Any]) -> JobUse:
    items, seconds = int(record["computed"]), float(record["compute_seconds"])
    if record["computed"] < record["items"]:
        journalled = _journalled_seconds(
            root / "work" / record["rule"] / f"{record['job']}.journal.jsonl"
        )
        if sum(journalled) > seconds:
            items, seconds = len(journalled), sum(journalled)
    load = float(record["load_seconds"])
    in_all = max(float(record["wall_seconds"]), seconds + load)
    return JobUse(record["rule"], record["job"], record["finished"], items, seconds, load, in_all)


def _journalled_seconds(path: Path) -> list[float]:
    seconds = []
    try:
        with open(path, "rb") as stream:
            for line in stream:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and "seconds" in entry:
                    seconds.append(float(entry["seconds"]))
    except OSError:
        pass
    return seconds


def rule_of_file(parts: Sequence[str], answering: Mapping[str, str]) -> str:
    """The rule that a file of a run belongs to, by its path's parts there. `answering`: benchmark
    -> the rule that answers it.
    """
    if parts[0] in ("work", "logs") and len(parts) > 1:
        return parts[1].removesuffix(".log")
    if parts[0] == "models":
        return "merge_adapter" if "merged" in parts else "train_dpo"
    if parts[0] == "evaluation" and len(parts) > 2:
        answers = answering.get(parts[2], "answer_benchmark")
        return (
            answers.replace("answer_", "score_")
            if parts[-1] == "scores.json" and answers == "answer_benchmark"
            else answers
        )
    return FOLDERS.get(parts[0], "others")


def storage(root: Path, answering: Mapping[str, str]) -> dict[str, Cost]:
    """Bytes and files of a run by rule; the pictures of stage images apart, under "pictures". Links
    are not followed.
    """
    found: dict[str, Cost] = defaultdict(Cost)
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        parts = path.relative_to(root).parts
        rule = (
            "pictures"
            if parts[0] == "images" and path.suffix in PICTURES
            else rule_of_file(parts, answering)
        )
        found[rule].add(Cost(bytes=path.stat().st_size, files=1))
    return found


def used(root: Path, jobs: Sequence[PlannedJob]) -> dict[str, Cost]:
    """What the run under `root` used, by rule, as far as its records tell."""
    gpus = {job.rule: job.gpus for job in jobs}
    found: dict[str, Cost] = defaultdict(Cost)
    for use in read_uses(root):
        found[use.rule].add(
            Cost(1, use.items, use.seconds, use.seconds * gpus.get(use.rule, 0), use.seconds)
        )
    stored = storage(root, _answering(jobs))
    stored["generate_images"].add(stored.pop("pictures", Cost()))
    for rule, cost in stored.items():
        found[rule].add(cost)
    return {rule: cost for rule, cost in found.items() if cost.jobs or cost.files}


def _answering(jobs: Sequence[PlannedJob]) -> dict[str, str]:
    return {job.wildcards["benchmark"]: job.rule for job in jobs if job.rule in ANSWERING}


def name_of(job: PlannedJob) -> str:
    """The name of a job in its record."""
    return "/".join(job.wildcards.values()) or job.rule


def measured_rates(
    root: Path,
    jobs: Sequence[PlannedJob],
    config: Config,
    shards: Mapping[tuple[str, str], int],
    rates: Rates,
) -> dict[str, Any]:
    """A rates file's content with what the run under `root` measured; what it did not measure is
    taken over from `rates`.
    """
    uses = {(use.rule, use.name): use for use in read_uses(root)}
    if not uses:
        raise UserError(
            f"{root}: holds no records of jobs (work/**/*.json). Name the folder of a run that has"
            " been made"
        )
    groups: dict[str, list[tuple[PlannedJob, JobUse]]] = defaultdict(list)
    for job in jobs:
        use = uses.get((job.rule, name_of(job)))
        if use is not None and use.items and (use.item_seconds > 0 or not job.gpus):
            own = job.wildcards.get(OWN_RATES.get(job.rule, ""), "")
            groups[f"{job.rule}/{own}" if own else job.rule].append((job, use))
    stored = storage(root, _answering(jobs))
    made = Counter(job.rule for job in jobs)
    stages = {name: rate.model_dump(exclude_defaults=True) for name, rate in rates.stages.items()}
    questions = dict(rates.questions)
    for name, group in groups.items():
        rule = name.split("/")[0]
        units = sum(use.items * _units_per_record_item(job, config) for job, use in group)
        loads = [use.load_seconds for _, use in group if use.load_seconds > 0]
        rate: dict[str, Any] = {
            "seconds": _rounded(sum(use.item_seconds for _, use in group) / units),
            "load_seconds": _rounded(sum(loads) / len(loads)) if loads else 0.0,
        }
        all_items = sum(
            items_of(job, config, shards, {**questions, **_counted(uses, job)})
            for job in jobs
            if job.rule == rule
        )
        rate |= _storage_rate(rule, stored, all_items, made[rule])
        last = max(use.finished for _, use in group)[:10]
        rate["measured"] = f"{root}: {len(group)} job{'s' * (len(group) > 1)}, the last of {last}"
        stages[name] = rate
        for job, _ in group:
            questions |= _counted(uses, job)
    return {
        "every_job": rates.every_job.model_dump(exclude_defaults=True),
        "stages": stages,
        "other_jobs": rates.other_jobs.model_dump(exclude_defaults=True),
        "questions": questions,
    }


def _counted(uses: Mapping[tuple[str, str], JobUse], job: PlannedJob) -> dict[str, int]:
    use = uses.get((job.rule, name_of(job)))
    return (
        {job.wildcards["benchmark"]: use.items}
        if job.rule in ANSWERING and use and use.items
        else {}
    )


def _units_per_record_item(job: PlannedJob, config: Config) -> int:
    """A record counts prompts where a rate counts images or responses."""
    if job.rule in ("generate_images", "rank_images"):
        return len(config.images.guidance_scales)
    return len(config.responses.policy_models) if job.rule == "rank_responses" else 1


def _storage_rate(rule: str, stored: Mapping[str, Cost], items: int, jobs: int) -> dict[str, float]:
    own = stored.get(rule, Cost())
    if rule == "generate_images":
        pictures = stored.get("pictures", Cost())
        return {
            "megabytes": _rounded(pictures.bytes / 1e6 / max(1, items)),
            "files": _rounded(pictures.files / max(1, items)),
            "megabytes_per_job": _rounded(own.bytes / 1e6 / jobs),
            "files_per_job": _rounded(own.files / jobs),
        }
    if rule in STORED_BY_JOB or not items:
        return {
            "megabytes_per_job": _rounded(own.bytes / 1e6 / jobs),
            "files_per_job": _rounded(own.files / jobs),
        }
    return {
        "megabytes": _rounded(own.bytes / 1e6 / items),
        "files_per_job": _rounded(own.files / jobs),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def in_order(rules: Iterable[str]) -> list[str]:
    """Rules in the order of the flow."""
    known = {rule: place for place, rule in enumerate(ORDER)}
    return sorted(rules, key=lambda rule: (known.get(rule, len(known)), rule))
