"""What a run has cost, by its own records, and the rates that these give."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.benchmarks.lmms_eval.answer_journal import PART_RULE
from lib.config.run import Config
from lib.data.layouts import PromptCounts
from lib.errors import UserError
from lib.head.summary import read_records
from lib.jobs.record import Record
from lib.planning.costs import Cost, items_of, name_of, parts_of
from lib.planning.graph import PlannedJob
from lib.planning.rates import ANSWERING, AT_RATES_OF, LOADED_ONCE, OWN_RATES, Rates

#: The folder under results/<run>/ whose files a rule publishes. models/ and evaluation/ are shared;
#: see `rule_of_file`.
FOLDERS = {
    "proposed_prompts": "generate_prompts",
    "images": "generate_images",
    "image_ranking": "rank_images",
    "instructions": "write_instructions",
    "responses": "generate_responses",
    "response_rewards": "rank_responses",
    "response_ranking": "rank_responses",
    "content": "check_content",
    "pairs": "build_pairs",
    "quality": "check_pairs",
    "dataset": "merge_pairs",
    "own_pairs": "import_pairs",
    "prompts": "tell_prompt",
    "report": "report",
}


PICTURES = {".png", ".webp", ".jpeg"}


#: Rules whose storage does not grow with their items.
STORED_BY_JOB = ("train_dpo", "merge_adapter", "convert_model")


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


def _use(root: Path, record: Record) -> JobUse:
    items, seconds = record.computed, record.compute_seconds
    is_joined = (root / "work" / PART_RULE / record.job).is_dir()  # its answers are its parts'
    if record.computed < record.items and not is_joined:
        journalled = _journalled_seconds(
            root / "work" / record.rule / f"{record.job}.journal.jsonl"
        )
        if sum(journalled) > seconds:
            items, seconds = len(journalled), sum(journalled)
    load = record.load_seconds
    in_all = max(record.wall_seconds, seconds + load)
    return JobUse(record.rule, record.job, record.finished, items, seconds, load, in_all)


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
        made_by = {"merged": "merge_adapter", "converted": "convert_model"}
        return next((made_by[part] for part in parts if part in made_by), "train_dpo")
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
    costs: dict[str, Cost] = defaultdict(Cost)
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        parts = path.relative_to(root).parts
        rule = (
            "pictures"
            if parts[0] == "images" and path.suffix in PICTURES
            else rule_of_file(parts, answering)
        )
        costs[rule].add(Cost(bytes=path.stat().st_size, files=1))
    return costs


def read_usage(root: Path, jobs: Sequence[PlannedJob]) -> dict[str, Cost]:
    """What the run under `root` used, by rule, as far as its records tell."""
    gpus = {(part.rule, name_of(part)): part.gpus for job in jobs for part in job.parts}
    of_rule = {job.rule: job.gpus for job in jobs}  # of jobs that are not planned any more
    costs: dict[str, Cost] = defaultdict(Cost)
    for use in read_uses(root):
        held = gpus.get((use.rule, use.name), of_rule.get(use.rule, 0))
        costs[use.rule].add(Cost(1, use.items, use.seconds, use.seconds * held, use.seconds))
    stored = storage(root, _answering(jobs))
    stored["generate_images"].add(stored.pop("pictures", Cost()))
    for rule, cost in stored.items():
        costs[rule].add(cost)
    return {rule: cost for rule, cost in costs.items() if cost.jobs or cost.files}


def _answering(jobs: Sequence[PlannedJob]) -> dict[str, str]:
    return {
        part.wildcards["benchmark"]: AT_RATES_OF.get(job.rule, job.rule)
        for job in jobs
        if job.rule in ANSWERING
        for part in job.parts
    }


def measured_rates(
    root: Path,
    jobs: Sequence[PlannedJob],
    config: Config,
    prompts: PromptCounts,
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
    done = [part for job in jobs for part in parts_of(job, config)]
    jobs = [job for job, _ in done]
    for job, how in done:
        use = uses.get((job.rule, name_of(job)))
        if use is not None and use.items and (use.item_seconds > 0 or not job.gpus):
            groups[name_of_rate(job, how)].append((job, use))
    stored = storage(root, _answering(jobs))
    made = Counter(job.rule for job in jobs)
    stages = {name: rate.model_dump(exclude_defaults=True) for name, rate in rates.stages.items()}
    questions = dict(rates.questions)
    for name, group in groups.items():
        rule = group[0][0].rule
        units = sum(use.items * _units_per_record_item(job, config) for job, use in group)
        loads = loads_of(use for _, use in group)
        if not loads and rule in LOADED_ONCE:
            loads = loads_of(use for use in uses.values() if use.rule == rule)
        rate: dict[str, Any] = {
            "seconds": _rounded(sum(use.item_seconds for _, use in group) / units),
            "load_seconds": _rounded(sum(loads) / len(loads)) if loads else 0.0,
        }
        all_items = sum(
            items_of(job, config, prompts, {**questions, **_counted(uses, job)})
            for job in jobs
            if job.rule == rule
        )
        rate |= _storage_rate(rule, stored, all_items, made[rule])
        last = max(use.finished for _, use in group)[:10]
        rate["measured"] = f"{root}: {len(group)} job{'s' * (len(group) > 1)}, the last of {last}"
        stages[name] = rate
        for job, _ in group:
            if job.rule in ANSWERING and not _limit(job, config):
                questions |= _counted(uses, job)
    kept = rates.model_dump(exclude_defaults=True)
    return kept | {"stages": stages, "questions": questions}


def loads_of(uses: Iterable[JobUse]) -> list[float]:
    """The seconds of loading of those jobs that loaded."""
    return [use.load_seconds for use in uses if use.load_seconds > 0]


def name_of_rate(job: PlannedJob, how: str) -> str:
    """The stage of a rates file that a measured job gives the rate of. `how`: its way of `HOW`, if
    it has one.
    """
    rule = AT_RATES_OF.get(job.rule, job.rule)
    own = job.wildcards.get(OWN_RATES.get(rule, ""), "")
    return rule + (f"/{own}" if own else "") + (f"@{how}" if how else "")


def _counted(uses: Mapping[tuple[str, str], JobUse], job: PlannedJob) -> dict[str, int]:
    use = uses.get((job.rule, name_of(job)))
    return (
        {job.wildcards["benchmark"]: use.items}
        if job.rule in ANSWERING and "part" not in job.wildcards and use and use.items
        else {}
    )


def _limit(job: PlannedJob, config: Config) -> int | None:
    """How many questions of a benchmark are asked at most: a run with a limit does not tell how
    many there are.
    """
    return config.evaluation.benchmarks[job.wildcards["benchmark"]].limit


def _units_per_record_item(job: PlannedJob, config: Config) -> int:
    """A record counts prompts where a rate counts images or responses."""
    if job.rule in ("generate_images", "rank_images"):
        return config.images.images_per_prompt
    return len(config.responses.answer_names) if job.rule == "rank_responses" else 1


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
