"""What rule report is told: what it reads, and what else of the run it shows."""

from collections.abc import Iterator
from pathlib import Path

from lib.blocks import Model
from lib.config.evaluation import QuestionBenchmark, TaskBenchmark
from lib.config.licences import Licences, read_licences
from lib.config.report import PlannedTime, ReportJob, ShownQuestions, ShownTask
from lib.config.run import Config
from lib.head.cards import models_of_data, of_endpoint, of_judge, of_model, portable
from lib.head.plan import Plan
from lib.head.table_rows import seen_by_people
from lib.head.targets import tables_and_figures
from lib.report.licence import UsedModel


def report_job(plan: Plan, planned: dict[str, PlannedTime]) -> ReportJob:
    """What rule report is told. `planned`: by rule, where there are rates."""
    config = plan.config
    return ReportJob(
        run=config.run,
        label=config.label,
        thumbnail_pixels=config.report.thumbnail_pixels,
        scorers=list(config.image_ranking.scorers),
        compared=seen_by_people(plan),
        policies=config.responses.answer_names,
        reviews=portable(config.reviews),
        models=models_of_run(plan),
        experiments=plan.experiments(),
        own_pairs=brought_by(plan),
        evaluated=plan.models(),
        benchmarks={
            name: shown_questions(block) for name, block in config.evaluation.benchmarks.items()
        },
        planned=planned,
        configuration=portable(config.model_dump(mode="json")),
    )


def brought_by(plan: Plan) -> dict[str, list[str]]:
    """The experiments that bring pairs of their own, by the names of these' folders."""
    experiments = plan.config.training.experiments
    return {
        folder: [
            name for name, each in experiments.items() if each.pairs and each.pairs.folder == folder
        ]
        for folder in plan.own_pairs
    }


def shown_questions(block: TaskBenchmark | QuestionBenchmark) -> ShownQuestions | ShownTask:
    """Where the pictures of a benchmark are."""
    if isinstance(block, TaskBenchmark):
        return ShownTask(files=list((block.data or {}).values()))
    return ShownQuestions(scorer=block.scorer, questions=block.questions, images=block.images)


def models_of_run(plan: Plan) -> list[UsedModel]:
    """The models that make the data, the one that is trained on them, and those that judge or are
    held against them.
    """
    config, licences = plan.config, read_licences()
    base = of_model("is trained", config.training.base_model, "train_dpo", licences)
    data = [*models_of_data(config, licences), *_of_checks(config, licences)]
    return [*(data if plan.makes_pairs else []), base, *_of_evaluation(config, licences)]


def _of_checks(config: Config, licences: Licences) -> Iterator[UsedModel]:
    """The models that look at the data and neither make nor rank them."""
    ranking = config.image_ranking
    for name, scorer in ranking.scorers.items():
        if name != ranking.select_by:
            yield of_judge("scores the images, too", scorer, f"rank_images/{name}", licences)
    if ranking.judge:
        does = "compares the picks of image scorers"
        yield of_endpoint(does, ranking.judge.endpoint, licences, makes=False)
    for name, checker in config.pairs.content_check.items():
        if isinstance(checker, Model):
            yield of_model("looks for unsafe content", checker, f"check_content/{name}", licences)
    if config.figures.embedding:
        yield of_model("compares texts", config.figures.embedding, "embed_texts", licences)


def _of_evaluation(config: Config, licences: Licences) -> Iterator[UsedModel]:
    """The models of others that are evaluated, too, and judges of benchmarks."""
    for model in config.evaluation.models.values():
        yield of_model("is evaluated, too", model, "answer_benchmark", licences)
    for name, benchmark in config.evaluation.benchmarks.items():
        if benchmark.judge:
            yield of_endpoint(f"judges answers to {name}", benchmark.judge, licences, makes=False)


def shown_besides(plan: Plan) -> dict[str, str]:
    """What of later stages is there now, and since when: the report shows it and waits for none of
    it, so that pairs can be looked at, and be rejected, before anything is trained on them.
    """
    root = Path(plan.root)
    files = [
        *tables_and_figures(plan),
        f"{plan.root}/quality/pairs.json",
        *(f"{plan.root}/dataset/{size}/dataset.json" for size in plan.sizes()),
        *(f"{plan.root}/own_pairs/{name}/dataset.json" for name in plan.own_pairs),
        *(f"{plan.root}/models/{name}/metrics.jsonl" for name in plan.experiments()),
        *(
            f"{plan.root}/evaluation/{model}/{benchmark}/scores.json"
            for model in plan.models()
            for benchmark in plan.config.evaluation.benchmarks
        ),
    ]
    return {
        path.relative_to(root).as_posix(): str(path.stat().st_mtime_ns)
        for path in map(Path, files)
        if path.is_file()
    }
