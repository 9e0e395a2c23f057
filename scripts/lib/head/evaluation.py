"""Model and benchmark pairs, and the parameters of the evaluation rules.

Called by the rules; nothing here runs a model.
"""

import re
from collections.abc import Iterable
from typing import Any

from lib.config.evaluation import BEAMS, JUDGED_TASKS, QuestionBenchmark, TaskBenchmark
from lib.head.plan import Plan


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
