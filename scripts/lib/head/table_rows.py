"""What the tables of models and the sheet of answers are told: rows, columns, and the files of scores.

Called by the rules; nothing here runs a model.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from lib.data.controls import TRAINING_CONTROLS
from lib.head.evaluation import question_sets
from lib.head.plan import Plan

#: The columns of the paper's tables that a run can fill: column of published/*.yaml ->
#: "benchmark/score", or "benchmark/one|other": the first of these scores that there is. POPE's
#: published F1 is the mean over its splits, and MM-Vet's total the mean of several gradings, which
#: lmms-eval's own are not.
VISION_LANGUAGE_SCORES = {
    "mme_perception": "mme/perception",
    "mmbench": "mmbench/accuracy",
    "vqav2": "vqav2/accuracy",
    "textvqa": "textvqa/accuracy",
    "scienceqa": "scienceqa/accuracy",
    "mm_vet": "mm_vet/reference_total|score",
}


HALLUCINATION_SCORES = {
    "mmhal_score": "mmhal_bench/score",
    "mmhal_hallucination": "mmhal_bench/hallucination",
    "amber_accuracy": "amber/accuracy",
    "amber_f1": "amber/f1",
    "pope": "pope/reference_f1|f1",
}


SIZE_SCORES = {
    "object_halbench_response": "object_halbench/response",
    "object_halbench_mention": "object_halbench/mention",
    "pope": "pope/reference_f1|f1",
}


def answers_files(plan: Plan, file: str) -> list[str]:
    """A file of the base model's and of the experiment's evaluation that the sheet of answers
    shows; none where there is no sheet.
    """
    sheet = plan.config.figures.answers
    return (
        [
            f"{plan.root}/evaluation/{model}/{sheet.benchmark}/{file}"
            for model in ("base", sheet.experiment)
        ]
        if sheet
        else []
    )


def answers_settings(plan: Plan) -> dict[str, Any]:
    """What the sheet of answers is told: benchmark, how it is scored, where its questions are, and
    both models' names.
    """
    sheet = plan.config.figures.answers
    if sheet is None:
        return {}
    training = plan.config.training
    base = training.base_model.model.rstrip("/").rsplit("/", 1)[-1]
    names = [
        f"{base} (base model)",
        f"{sheet.experiment} ({training.experiments[sheet.experiment].size} pairs)",
    ]
    block = question_sets(plan)[sheet.benchmark].model_dump(
        mode="json", include={"scorer", "questions", "images", "reference", "language"}
    )
    return {**sheet.model_dump(mode="json"), **block, "names": names, "label": plan.config.label}


def experiments_by_size(plan: Plan) -> list[str]:
    """All experiments, the smallest data set first, then by name; negative controls, which are no
    further sizes, after all others.
    """
    experiments = plan.config.training.experiments
    return sorted(
        experiments,
        key=lambda name: (experiments[name].control is not None, experiments[name].size, name),
    )


def largest_experiments(plan: Plan) -> list[str]:
    """The experiments on the largest data set, by name, and after them their negative controls."""
    experiments = plan.config.training.experiments
    # A control by itself makes no size the largest.
    sizes = [each.size for each in experiments.values() if not each.control] or [
        each.size for each in experiments.values()
    ]
    return [name for name in experiments_by_size(plan) if experiments[name].size == max(sizes)]


def seed_groups(plan: Plan, experiments: Sequence[str]) -> list[list[str]]:
    """The experiments, those together that have the same size and settings but for their training
    seed; in the order given.
    """
    training = plan.config.training
    groups: list[tuple[dict[str, Any], dict[int, str]]] = []
    for name in experiments:
        about = training.experiments[name]
        settings = {
            "size": about.size,
            "control": about.control,
            **training.settings_of(name).model_dump(mode="json"),
        }
        seed = settings.pop("seed")
        # The same experiment under two names is no second seed.
        found = next(
            (names for same, names in groups if same == settings and seed not in names), None
        )
        if found is None:
            groups.append((settings, found := {}))
        found[seed] = name
    return [list(names.values()) for _, names in groups]


def common_name(names: Sequence[str]) -> str:
    """What names of experiments begin with, in whole parts (`dpo-9k-seed1`, `dpo-9k-seed2`:
    `dpo-9k`); else the first and how many more.
    """
    parts = [re.split(r"([-._])", name) for name in names]
    shared = "".join(
        each[0] for each in takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))
    ).rstrip("-._")
    return names[0] if len(names) == 1 else shared or f"{names[0]} and {len(names) - 1} more"


def table_settings(
    plan: Plan, experiments: Sequence[str], wanted: Mapping[str, str]
) -> dict[str, Any]:
    """What a table of models is told: its rows (base model first, with the number of pairs trained
    on) and its columns.
    """
    training = plan.config.training
    base = training.base_model.model
    rows = [
        {
            "name": base.rstrip("/").rsplit("/", 1)[-1],
            "models": ["base"],
            "seeds": [],
            "pairs": 0,
            "texts": {},
        }
    ]
    for names in seed_groups(plan, experiments):
        seeds = [training.settings_of(name).seed for name in names]
        first = training.experiments[names[0]]
        row = {
            "name": common_name(names),
            "models": names,
            "seeds": seeds,
            "pairs": first.size,
            "texts": {"feedback": "RM"},
        }
        if first.control:
            row |= {"control": TRAINING_CONTROLS[first.control], "texts": {"feedback": "control"}}
        rows.append(row)
    return {
        "rows": rows,
        "wanted": dict(wanted),
        "label": plan.config.label,
        "base": plan.origin(training.base_model),
    }


def score_files(plan: Plan, experiments: Sequence[str], wanted: Mapping[str, str]) -> list[str]:
    """The scores that a table of models shows, of those benchmarks that this run has."""
    benchmarks = dict.fromkeys(score.split("/")[0] for score in wanted.values())
    return [
        f"{plan.root}/evaluation/{model}/{benchmark}/scores.json"
        for model in ["base", *experiments]
        for benchmark in benchmarks
        if benchmark in plan.config.evaluation.benchmarks
    ]
