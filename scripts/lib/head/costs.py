"""What a run's jobs cost where results are there already: which prompts are computed, which stages
are computed anew, and what follows from changed pairs.

It is said before anything runs, and so without the items' keys, which depend on what earlier stages
will give: how many items at most.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lib.data.prompts import Shard
from lib.files import read_jsonl
from lib.head.job_table import JobToRun
from lib.head.plan import Plan
from lib.jobs.published import SHARD_RULES


def tell_costs(plan: Plan, jobs: Sequence[JobToRun]) -> list[str]:
    """What the jobs cost, a line each; nothing for a run that has no results yet."""
    edited = _Edits(plan)
    written = _prompts_to_write(plan, jobs)
    if not edited.published:
        return written
    return [*written, *edited.tell(), *_changed_stages(plan, jobs, edited), *_what_follows(jobs)]


def _prompts_to_write(plan: Plan, jobs: Sequence[JobToRun]) -> list[str]:
    """How many prompts an LLM is to write."""
    if not any(job.rule == "add_prompts" for job in jobs):
        return []
    lacking = Counter(plan.lacking)
    return [f"{lacking.total()} prompts are to be written and added ({_by_topic(lacking)})."]


class _Edits:
    """How the prompts differ from those of the published images."""

    def __init__(self, plan: Plan) -> None:
        self.published: set[tuple[str, str]] = set()
        self.shards: set[tuple[str, str]] = set()
        self.new: Counter[str] = Counter()
        self.gone: Counter[str] = Counter()
        for place, shard in plan.shards.items():
            path = Path(plan.root, "images", shard.topic, f"{shard.name}.jsonl")
            if path.is_file():
                self.published.add(place)
                self._compare(place, shard, {str(row.get("id")) for row in read_jsonl(path)})

    def _compare(self, place: tuple[str, str], shard: Shard, before: set[str]) -> None:
        now = {prompt.id for prompt in shard.prompts}
        if now != before:
            self.shards.add(place)
            self.new[shard.topic] += len(now - before)
            self.gone[shard.topic] += len(before - now)

    def tell(self) -> list[str]:
        """The prompts that are new, and those that are gone."""
        lines = []
        if new := self.new.total():
            lines.append(
                f"{_prompts(new)} new or edited ({_by_topic(self.new)}): computed once in every"
                " stage, for every scorer and policy model. What is finished of the others stays."
            )
        if gone := self.gone.total():
            lines.append(f"{_prompts(gone)} gone ({_by_topic(self.gone)}): nothing is computed.")
        return lines


def _prompts(count: int) -> str:
    return "1 prompt is" if count == 1 else f"{count} prompts are"


def _by_topic(counts: Counter[str]) -> str:
    return ", ".join(f"{topic} {count}" for topic, count in counts.items() if count)


def _changed_stages(plan: Plan, jobs: Sequence[JobToRun], edits: _Edits) -> list[str]:
    """The stages that something else than an edited prompt has changed."""
    rules_of_shards = {rule for rules in SHARD_RULES.values() for rule in rules}
    prompts: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for job in jobs:
        if job.rule not in rules_of_shards or not job.is_changed:
            continue
        place = job.wildcards["topic"], job.wildcards["shard"]
        drawn = set(plan.stages.images_behind(job.rule, *place))
        if drawn and drawn <= edits.published - edits.shards:
            count[job.rule] += 1
            prompts[job.rule] += sum(len(plan.shards[each].prompts) for each in drawn)
    return [
        f"{rule}, {'1 job' if of_rule == 1 else f'{of_rule} jobs'}: the configuration, a model or"
        f" the code has changed. At most {prompts[rule]} items are computed anew: those whose"
        " result it decides."
        for rule, of_rule in count.items()
    ]


def _what_follows(jobs: Sequence[JobToRun]) -> list[str]:
    """The trainings and answers that are repeated where a pair of a data set changes."""
    count = Counter(job.rule for job in jobs)
    answers = count["answer_benchmark"] + count["answer_questions"]
    if not count["train_dpo"] and not answers:
        return []
    jobs_there = f"{_number(count['train_dpo'], 'training')} and {_number(answers, 'evaluation')}"
    if count["merge_pairs"] and count["train_dpo"]:
        line = (
            f"{jobs_there} follow: computed anew where a pair of their data set changes."
            " `pairs.freeze: true` keeps data sets, and what is trained on them, as they are."
        )
        return [line]
    return [f"{jobs_there} run; what they have finished under the same settings is reused."]


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
