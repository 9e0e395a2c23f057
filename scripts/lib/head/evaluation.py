"""Model and benchmark pairs, and the parameters of the evaluation rules.

Called by the rules; nothing here runs a model.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from lib.benchmarks.lmms_eval.parts import WHOLE
from lib.benchmarks.lmms_eval.tasks import DRAWN_BEFORE, JUDGED_TASKS, TaskSettings
from lib.benchmarks.questions import Form, read_questions
from lib.benchmarks.registry import BENCHMARKS, load_questions_benchmark
from lib.config.contamination import (
    CheckContaminationJob,
    IndexBenchmarksJob,
    IndexedQuestions,
    IndexedTask,
    ListOverlapsJob,
    OverlapMeasures,
)
from lib.config.evaluation import (
    AnswerBenchmarkJob,
    AnswerQuestionsJob,
    AskedModel,
    ConvertModelJob,
    QuestionBenchmark,
    ScoreAnswersJob,
    ScoreBenchmarkJob,
    TaskBenchmark,
)
from lib.contents import digest_files, digest_path
from lib.errors import UserError
from lib.files import digest
from lib.head.plan import Plan
from lib.models.response_generators.registry import GENERATORS


def pattern(names: Iterable[str]) -> str:
    """A regular expression of just these names, so that anything else asked for is told as a file
    that no rule makes.
    """
    return "|".join(map(re.escape, names)) or "(?!)"


def merged_model(plan: Plan, model: str) -> str | list[str]:
    """The folder of an experiment's merged model, or of one that is converted; an empty list for
    those that the run does not make.
    """
    if released := plan.config.evaluation.models.get(model):
        is_made = released.layout == "llava"
        return f"{plan.root}/models/{model}/converted" if is_made else []
    return [] if model == "base" else f"{plan.root}/models/{model}/merged"


def converted_models(plan: Plan) -> list[str]:
    """The models of others that are converted first."""
    models = plan.config.evaluation.models.items()
    return [name for name, model in models if model.layout == "llava"]


def convert_job(plan: Plan, model: str) -> ConvertModelJob:
    """Which model is converted."""
    released = plan.config.evaluation.models[model]
    return ConvertModelJob(model=released.plain, base_model=plan.config.training.base_model)


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


def parts(plan: Plan, benchmark: str) -> list[str]:
    """The names of the parts that a task is answered in; none where one job answers all of it."""
    return plan.config.evaluation.parts_of(benchmark)


def divided_tasks(plan: Plan) -> list[str]:
    """The tasks of which jobs answer a part each."""
    together = plan.config.evaluation.asked_together
    return [task for task in tasks(plan) if parts(plan, task) and task not in together]


def all_parts(plan: Plan) -> list[str]:
    """The names of the parts of all divided tasks, each once."""
    return list(dict.fromkeys(part for task in divided_tasks(plan) for part in parts(plan, task)))


def part_files(plan: Plan, model: str, benchmark: str) -> list[str]:
    """What the jobs leave that answer a part of a task each."""
    folder = f"{plan.root}/evaluation/{model}/{benchmark}/parts"
    return [f"{folder}/{part}.json" for part in parts(plan, benchmark)]


def files_together(plan: Plan) -> list[str]:
    """What a job leaves that asks a model about several tasks, with its wildcard. Where there is no
    such job, its rule needs an output all the same.
    """
    folder = f"{plan.root}/evaluation/{{model}}"
    together = plan.config.evaluation.asked_together or ("none",)
    return [f"{folder}/{task}/parts/{WHOLE}.json" for task in together]


def data_together(plan: Plan) -> list[str]:
    """The local data of the tasks that one job asks a model about."""
    together = plan.config.evaluation.asked_together
    return list(dict.fromkeys(file for task in together for file in data_files(plan, task)))


def jobs_together(plan: Plan, model: str) -> list[dict[str, Any]]:
    """The jobs of answer_part that one job of answer_together does (`lib.jobs.turns`)."""
    return [
        {
            "wildcards": {"model": model, "benchmark": task, "part": WHOLE},
            "params": {
                "settings": plan.params(answer_job(plan, task, model)),
                "made_by": made_by_task(plan, task, model),
                "contents": data_contents(plan, task),
            },
        }
        for task in plan.config.evaluation.asked_together
    ]


def data_files(plan: Plan, benchmark: str) -> list[str]:
    """The local data of a task; nothing where its data come from the hub."""
    return list((tasks(plan)[benchmark].data or {}).values())


def question_files(plan: Plan, benchmark: str) -> list[str]:
    """The questions of a benchmark of our own and its folder of images, where it has one."""
    block = question_sets(plan)[benchmark]
    return [*block.questions, *([block.images] if block.images else [])]


def questions_together(plan: Plan) -> list[str]:
    """The benchmarks of our own that one job asks a model about, at least two. Where beams are
    searched, a model of its own answers.
    """
    if not plan.config.evaluation.together:
        return []
    names = [name for name in question_sets(plan) if question_job(plan, name).beams == 1]
    return names if len(names) > 1 else []


def questions_apart(plan: Plan) -> list[str]:
    """The benchmarks of our own that a job asks a model about each."""
    together = questions_together(plan)
    return [name for name in question_sets(plan) if name not in together]


def question_files_together(plan: Plan) -> list[str]:
    """The questions and images of the benchmarks of our own that one job asks a model about."""
    files = [file for name in questions_together(plan) for file in question_files(plan, name)]
    return list(dict.fromkeys(files))


def answers_together(plan: Plan) -> list[str]:
    """What a job publishes that asks a model about several benchmarks of our own, with its
    wildcard: of each, what answer_questions does, in that order. As in `files_together`, there is
    always an output.
    """
    return [
        f"{plan.root}/evaluation/{{model}}/{name}/{file}"
        for name in questions_together(plan) or ["none"]
        for file in ("answers.jsonl", "asked.json")
    ]


def made_by_model(plan: Plan, benchmark: str, model: str) -> dict[str, Any]:
    """What decides a model's answers to a benchmark of our own and stands in no setting:
    `Plan.made_by`.
    """
    return plan.made_by(question_job(plan, benchmark, model), GENERATORS)


def question_jobs_together(plan: Plan, model: str) -> list[dict[str, Any]]:
    """The jobs of answer_questions that one job of answer_questions_together does."""
    return [
        {
            "wildcards": {"model": model, "benchmark": name},
            "params": {
                "settings": plan.params(question_job(plan, name, model)),
                "made_by": made_by_model(plan, name, model),
                "contents": question_contents(plan, name),
            },
        }
        for name in questions_together(plan)
    ]


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


def data_contents(plan: Plan, benchmark: str) -> dict[str, str]:
    """What the local data of a task contain, by path. Snakemake reruns the rules that read them
    when it changes, whatever the files' times say; so too for those below.
    """
    return _contents(data_files(plan, benchmark))


def _contents(paths: Iterable[str]) -> dict[str, str]:
    """What files or folders contain, by path. What is wrong with one is told by what reads it, and
    until then stands for it: Snakemake would put a traceback around it.
    """
    contents = {}
    for path in paths:
        try:
            contents[path] = digest_path(path)
        except UserError as error:
            contents[path] = str(error)
    return contents


def question_contents(plan: Plan, benchmark: str) -> dict[str, str]:
    """What the questions of a benchmark of our own contain, by path, and the images they are
    about.
    """
    block = question_sets(plan)[benchmark]
    contents = _contents(block.questions)
    if block.images:
        contents[block.images] = _asked_images(block.scorer, tuple(block.questions), block.images)
    return contents


@cache
def _asked_images(scorer: str, questions: tuple[str, ...], images: str) -> str:
    """What the images contain that questions are about (their folder may hold all of COCO's), or
    what is wrong with the questions.
    """
    try:
        asked = read_questions(load_questions_benchmark(scorer), questions, images)
        files = list(dict.fromkeys(question.image for question in asked if question.image))
        digests = digest_files(files, Path(images))
    except UserError as error:
        return str(error)
    names = [file.relative_to(images).as_posix() for file in files]
    return digest(dict(zip(names, digests, strict=True)))


def reference_contents(plan: Plan, benchmark: str) -> dict[str, str]:
    """What the answers of a benchmark of our own are held against, by path."""
    return _contents(reference_files(plan, benchmark))


def all_contents(plan: Plan, benchmark: str) -> list[dict[str, str]]:
    """What all files of a benchmark of our own contain, by path."""
    return [question_contents(plan, benchmark), reference_contents(plan, benchmark)]


def local_contents(plan: Plan) -> dict[str, dict[str, str]]:
    """What the questions and images of all benchmarks contain, by benchmark and path."""
    return {name: data_contents(plan, name) for name in tasks(plan)} | {
        name: question_contents(plan, name) for name in question_sets(plan)
    }


def contamination_files(plan: Plan) -> list[str]:
    """The shards of training data that are held against the benchmarks; none where there is nothing
    to hold them against.
    """
    return plan.stages.files("contamination") if is_checked(plan) else []


def is_checked(plan: Plan) -> bool:
    """Whether training data are held against the benchmarks: where these are on this machine."""
    return plan.config.evaluation.contamination.check and bool(local_files(plan))


def index_job(plan: Plan) -> IndexBenchmarksJob:
    """Of every benchmark, where its questions and images are."""
    blocks = plan.config.evaluation.benchmarks.items()
    return IndexBenchmarksJob(
        benchmarks={name: _indexed(block) for name, block in blocks},
        max_image_megapixels=plan.config.max_image_megapixels,
    )


def _indexed(block: TaskBenchmark | QuestionBenchmark) -> IndexedTask | IndexedQuestions:
    if isinstance(block, TaskBenchmark):
        return IndexedTask(task=block.task, data=block.data)
    return IndexedQuestions(scorer=block.scorer, questions=block.questions, images=block.images)


def check_job(plan: Plan) -> CheckContaminationJob:
    """What counts as an overlap."""
    measures = set(OverlapMeasures.model_fields)
    return CheckContaminationJob(
        **plan.config.evaluation.contamination.model_dump(include=measures)
    )


def list_job(plan: Plan) -> ListOverlapsJob:
    """What counts as an overlap, and what became of those that there are."""
    return ListOverlapsJob(**dict(plan.config.evaluation.contamination))


def asked_model(plan: Plan, model: str) -> AskedModel:
    """The base model (of a model of others: itself), and how every benchmark asks it and the models
    made of it.
    """
    config = plan.config
    released = config.evaluation.models.get(model)
    return AskedModel(
        base_model=released.plain if released else config.training.base_model,
        system_prompt=config.evaluation.system_prompt,
        max_image_megapixels=config.max_image_megapixels,
        gpus=(released and released.gpus) or config.evaluation.gpus,
    )


def answer_job(plan: Plan, benchmark: str, model: str = "base") -> AnswerBenchmarkJob:
    """What a model is asked by lmms-eval and how."""
    block = tasks(plan)[benchmark]
    asked = block.model_dump(include=set(TaskSettings.model_fields))
    if block.scorer and block.task in JUDGED_TASKS:
        asked["judge"] = None  # our scorer asks it, of the kept answers
    return AnswerBenchmarkJob(**asked, **_engine(plan), **dict(asked_model(plan, model)))


def _engine(plan: Plan) -> dict[str, Any]:
    """What runs a model on lmms-eval's questions, where that is not lmms-eval itself."""
    evaluation = plan.config.evaluation
    if evaluation.task_backend == "transformers":
        return {}
    return {
        "backend": evaluation.task_backend,
        "questions_per_batch": evaluation.questions_per_batch,
        "max_model_len": evaluation.max_model_len,
        "prefix_caching": evaluation.prefix_caching,
        "deterministic": evaluation.deterministic,
    }


def made_by_task(plan: Plan, benchmark: str, model: str) -> dict[str, Any]:
    """What decides a task's answers and stands in no setting: `Plan.made_by`, and that those are
    greedy which were not once.
    """
    made = plan.made_by(answer_job(plan, benchmark, model))
    is_new = tasks(plan)[benchmark].task in DRAWN_BEFORE
    return made | ({"answers": "greedy"} if is_new else {})


def score_job(plan: Plan, benchmark: str) -> ScoreBenchmarkJob:
    """Our names of a task's scores, their unit, and who else scores its answers."""
    block = tasks(plan)[benchmark]
    return ScoreBenchmarkJob(
        metrics=block.metrics, percent=block.percent, scorer=block.scorer, judge=block.judge
    )


def question_job(plan: Plan, benchmark: str, model: str = "base") -> AnswerQuestionsJob:
    """What a model is asked by our own rule and how. Several beams are searched by transformers
    alone, one question at a time.
    """
    block, evaluation = question_sets(plan)[benchmark], plan.config.evaluation
    form = form_of(block)
    beams = block.beams or form.beams
    return AnswerQuestionsJob(
        scorer=block.scorer,
        questions=block.questions,
        images=block.images,
        prompt=block.prompt or dict(form.prompts),
        max_new_tokens=block.max_new_tokens or form.max_new_tokens,
        beams=beams,
        limit=block.limit,
        backend="transformers" if beams > 1 else evaluation.backend,
        questions_per_batch=1 if beams > 1 else evaluation.questions_per_batch,
        max_model_len=evaluation.max_model_len,
        prefix_caching=evaluation.prefix_caching,
        deterministic=evaluation.deterministic,
        **dict(asked_model(plan, model)),
    )


def form_of(block: QuestionBenchmark) -> Form:
    """How a benchmark's questions are put unless the configuration says otherwise."""
    return load_questions_benchmark(block.scorer).form


def score_answers_job(plan: Plan, benchmark: str) -> ScoreAnswersJob:
    """How our scorer scores the answers of a benchmark of our own."""
    block = question_sets(plan)[benchmark]
    return ScoreAnswersJob(
        scorer=block.scorer,
        reference=block.reference,
        judge=block.judge,
        language=block.language,
    )


def made_by_scorer(plan: Plan, benchmark: str) -> dict[str, Any]:
    """The VERSION of the scorer of a benchmark, where ours scores it."""
    block = plan.config.evaluation.benchmarks[benchmark]
    return plan.made_by(block, BENCHMARKS) if block.scorer else {}
