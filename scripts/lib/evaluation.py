"""Which models meet which benchmarks, and what the jobs and tables of the stage evaluation are told.

Called by the rules; nothing here runs a model.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lib.config import QuestionBenchmark, TaskBenchmark
from lib.plan import Plan

#: The columns of the paper's tables that a run can fill: column of published/*.yaml -> "benchmark/score".
HALLUCINATION_SCORES = {
    "mmhal_score": "mmhal_bench/score",
    "mmhal_hallucination": "mmhal_bench/hallucination",
    "amber_accuracy": "amber/accuracy",
    "amber_f1": "amber/f1",
    "pope": "pope/f1",
}
SIZE_SCORES = {
    "object_halbench_response": "object_halbench/response",
    "object_halbench_mention": "object_halbench/mention",
    "pope": "pope/f1",
}


def pattern(names: Iterable[str]) -> str:
    """A regular expression of just these names, so that anything else asked for is told as a file that no rule makes."""
    return "|".join(map(re.escape, names)) or "(?!)"


def merged_model(plan: Plan, model: str) -> str | list[str]:
    """The folder of an experiment's merged model; an empty list for the base model, which the run does not make."""
    return [] if model == "base" else f"{plan.root}/models/{model}/merged"


def tasks(plan: Plan) -> dict[str, TaskBenchmark]:
    """The benchmarks that lmms-eval answers."""
    return {name: block for name, block in plan.config.evaluation.benchmarks.items() if isinstance(block, TaskBenchmark)}


def question_sets(plan: Plan) -> dict[str, QuestionBenchmark]:
    """The benchmarks that our own rule answers."""
    return {name: block for name, block in plan.config.evaluation.benchmarks.items() if isinstance(block, QuestionBenchmark)}


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


def _model_settings(plan: Plan, model: str) -> dict[str, Any]:
    """Where the model comes from that is asked, and how every benchmark asks it."""
    base = plan.config.training.base_model
    identity = plan.settings(base).get("identity") if model == "base" else None
    origin = {"dtype": base.dtype, "base_model": base.model, "base_revision": base.revision, "base_identity": identity}
    return {**origin, "system_prompt": plan.config.evaluation.system_prompt}


def answer_settings(plan: Plan, model: str, benchmark: str) -> dict[str, Any]:
    """What a model is asked by lmms-eval and how."""
    asked = tasks(plan)[benchmark].model_dump(mode="json", exclude={"percent", "scorer"})
    return {**asked, **_model_settings(plan, model)}


def score_settings(plan: Plan, benchmark: str) -> dict[str, Any]:
    """Our names of a task's scores, their unit, and who else scores its answers."""
    return tasks(plan)[benchmark].model_dump(mode="json", include={"metrics", "percent", "scorer", "judge"})


def question_settings(plan: Plan, model: str, benchmark: str) -> dict[str, Any]:
    """What a model is asked by our own rule and how."""
    asked = question_sets(plan)[benchmark].model_dump(mode="json", exclude={"reference", "judge", "language"})
    evaluation = plan.config.evaluation
    how = {name: getattr(evaluation, name) for name in ("backend", "questions_per_batch", "max_model_len")}
    return {**asked, **how, **_model_settings(plan, model)}


def scorer_settings(plan: Plan, benchmark: str) -> dict[str, Any]:
    """How our scorer scores the answers of a benchmark of our own."""
    return question_sets(plan)[benchmark].model_dump(mode="json", include={"scorer", "reference", "judge", "language"})


def experiments_by_size(plan: Plan) -> list[str]:
    """All experiments, the smallest data set first, then by name."""
    experiments = plan.config.training.experiments
    return sorted(experiments, key=lambda name: (experiments[name].size, name))


def largest_experiments(plan: Plan) -> list[str]:
    """The experiments on the largest data set, by name."""
    experiments = plan.config.training.experiments
    return [name for name in experiments_by_size(plan) if experiments[name].size == max(each.size for each in experiments.values())]


def table_settings(plan: Plan, experiments: Sequence[str], wanted: Mapping[str, str]) -> dict[str, Any]:
    """What a table of models is told: its rows (base model first, with the number of pairs trained on) and its columns."""
    sizes = {name: plan.config.training.experiments[name].size for name in experiments}
    rows = {"base": {"pairs": 0}} | {name: {"pairs": size, "feedback": "RM"} for name, size in sizes.items()}
    return {"models": rows, "wanted": dict(wanted), "label": plan.config.label, "base_model": plan.config.training.base_model.model}


def score_files(plan: Plan, experiments: Sequence[str], wanted: Mapping[str, str]) -> list[str]:
    """The scores that a table of models shows, of those benchmarks that this run has."""
    benchmarks = dict.fromkeys(score.split("/")[0] for score in wanted.values())
    return [
        f"{plan.root}/evaluation/{model}/{benchmark}/scores.json"
        for model in ["base", *experiments]
        for benchmark in benchmarks
        if benchmark in plan.config.evaluation.benchmarks
    ]


def table_files(plan: Plan, name: str) -> dict[str, str]:
    """The three files of a table."""
    return {"csv": f"{plan.root}/tables/{name}.csv", "markdown": f"{plan.root}/tables/{name}.md", "latex": f"{plan.root}/tables/{name}.tex"}
