"""Which models meet which benchmarks, and what the jobs and tables of the stage evaluation are
told.

Called by the rules; nothing here runs a model.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from lib.config.run import BEAMS, JUDGED_TASKS, QuestionBenchmark, TaskBenchmark
from lib.data.controls import TRAINING_CONTROLS
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


def pattern(names: Iterable[str]) -> str:
    """A regular expression of just these names, so that anything else asked for is told as a file
    that no rule makes.
    """
    return "|".join(map(re.escape, names)) or "(?!)"


def merged_model(plan: Plan, model: str) -> str | list[str]:
    """The folder of an experiment's merged model; an empty list for the base model, which the run
    does not make.
    """
    return [] if model == "base" else f"{plan.root}/models/{model}/merged"


def tasks(plan: Plan) -> dict[str, TaskBenchmark]:
    """The benchmarks that lmms-eval answers."""
    return {
        name: block
        for name, block in plan.config.evaluation.benchmarks.items()
        if isinstance(block, TaskBenchmark)
    }


def question_sets(plan: Plan) -> dict[str, QuestionBenchmark]:
    """The benchmarks that our own rule answers."""
    return {
        name: block
        for name, block in plan.config.evaluation.benchmarks.items()
        if isinstance(block, QuestionBenchmark)
    }


def data_files(plan: Plan, benchmark: str) -> list[str]:
    """The local data of a task; nothing where its data come from the hub."""
    return list((tasks(plan)[benchmark].data or {}).values())


def question_files(plan: Plan, benchmark: str) -> list[str]:
    """The questions of a benchmark of our own and its folder of images, where it has one."""
    block = question_sets(plan)[benchmark]
    return [*block.questions, *([block.images] if block.images else [])]


def reference_files(plan: Plan, benchmark: str) -> list[str]:
    """What the answers of a benchmark of our own are held against."""
    return list(question_sets(plan)[benchmark].reference)


def local_files(plan: Plan) -> list[str]:
    """The files of questions and folders of images of all benchmarks that are on this machine."""
    files = [path for name in tasks(plan) for path in data_files(plan, name)]
    return list(
        dict.fromkeys(
            [*files, *(path for name in question_sets(plan) for path in question_files(plan, name))]
        )
    )


def contamination_files(plan: Plan) -> list[str]:
    """The shards of training data that are held against the benchmarks; none where there is nothing
    to hold them against.
    """
    return (
        plan.shard_files("contamination")
        if plan.config.evaluation.contamination.check and local_files(plan)
        else []
    )


def index_settings(plan: Plan) -> dict[str, Any]:
    """Of every benchmark, where its questions and images are."""
    kept = {"task", "data", "scorer", "questions", "images"}
    blocks = plan.config.evaluation.benchmarks.items()
    return {
        "benchmarks": {name: block.model_dump(mode="json", include=kept) for name, block in blocks}
    }


def measures(plan: Plan) -> dict[str, Any]:
    """What counts as an overlap."""
    return plan.config.evaluation.contamination.model_dump(
        mode="json", exclude={"check", "exclude"}
    )


def _model_settings(plan: Plan, model: str) -> dict[str, Any]:
    """Where the model comes from that is asked, and how every benchmark asks it."""
    base = plan.config.training.base_model
    identity = plan.settings(base).get("identity") if model == "base" else None
    origin = {
        "dtype": base.dtype,
        "base_model": base.model,
        "base_revision": base.revision,
        "base_identity": identity,
    }
    return {**origin, "system_prompt": plan.config.evaluation.system_prompt}


def answer_settings(plan: Plan, model: str, benchmark: str) -> dict[str, Any]:
    """What a model is asked by lmms-eval and how."""
    block = tasks(plan)[benchmark]
    asked = block.model_dump(mode="json", exclude={"percent", "scorer"})
    if block.scorer and block.task in JUDGED_TASKS:
        asked["judge"] = None  # our scorer asks it, of the kept answers
    return {**asked, **_model_settings(plan, model)}


def score_settings(plan: Plan, benchmark: str) -> dict[str, Any]:
    """Our names of a task's scores, their unit, and who else scores its answers."""
    return tasks(plan)[benchmark].model_dump(
        mode="json", include={"metrics", "percent", "scorer", "judge"}
    )


def question_settings(plan: Plan, model: str, benchmark: str) -> dict[str, Any]:
    """What a model is asked by our own rule and how."""
    block = question_sets(plan)[benchmark]
    asked = block.model_dump(mode="json", exclude={"reference", "judge", "language"})
    asked["beams"] = block.beams or BEAMS.get(block.scorer, 1)
    evaluation = plan.config.evaluation
    how = {
        name: getattr(evaluation, name)
        for name in ("backend", "questions_per_batch", "max_model_len")
    }
    if asked["beams"] > 1:
        how |= {"backend": "transformers", "questions_per_batch": 1}
    return {**asked, **how, **_model_settings(plan, model)}


def scorer_settings(plan: Plan, benchmark: str) -> dict[str, Any]:
    """How our scorer scores the answers of a benchmark of our own."""
    return question_sets(plan)[benchmark].model_dump(
        mode="json", include={"scorer", "reference", "judge", "language"}
    )


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
