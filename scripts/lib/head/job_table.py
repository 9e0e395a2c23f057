"""The jobs that are to run, by rule, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib.head.summary import ORDER


@dataclass(frozen=True)
class JobToRun:
    """A job that is to run, and why. `is_changed`: for a reason of its own (its settings, its
    prompts, its code), not only because a job before it runs.
    """

    rule: str
    wildcards: Mapping[str, str]
    is_changed: bool
    why: str = ""


def job_table(jobs: Sequence[JobToRun]) -> list[str]:
    """A line a rule, in the order of the flow: how many jobs, and why they run."""
    by_rule: dict[str, list[JobToRun]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    known = {rule: place for place, rule in enumerate(ORDER)} | {"all": len(by_rule) + len(ORDER)}
    rules = sorted(by_rule, key=lambda rule: known.get(rule, len(ORDER)))
    width = max([len("total"), *map(len, rules)])
    return [
        "Job stats:",
        f"{'rule':<{width}}  jobs  why",
        *(f"{rule:<{width}}  {len(by_rule[rule]):>4}  {_why(by_rule[rule])}" for rule in rules),
        f"{'total':<{width}}  {len(jobs):>4}",
        "",
    ]


def _why(jobs: Sequence[JobToRun]) -> str:
    """The reasons of a rule's jobs, with their numbers where there are several."""
    reasons = Counter(job.why for job in jobs)
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{why} ({count})" for why, count in reasons.most_common())
