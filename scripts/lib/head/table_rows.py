"""What the rules of tables and figures are told, and which files they read and write.

Called by the rules; nothing here runs a model.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from lib import weights
from lib.benchmarks.judged import JudgedBenchmark
from lib.benchmarks.registry import BENCHMARKS
from lib.blocks import Block, Model, endpoints_in
from lib.config.evaluation import QuestionBenchmark, ReleasedModel, TaskBenchmark
from lib.config.figures import (
    AnswersFigureJob,
    CandidatesFigureJob,
    GuidanceFigureJob,
    SimilarityFigureJob,
)
from lib.config.pairs import ALL, Size
from lib.config.response_ranking import rewards_of
from lib.config.tables import (
    CommonSelectionsJob,
    ComparePicksJob,
    ImageJudgeTableJob,
    ReasonsTableJob,
    RewardLengthTableJob,
    TableScorer,
    rankings_input,
)
from lib.config.training import Experiment
from lib.data.controls import TRAINING_CONTROLS
from lib.head.evaluation import question_sets
from lib.head.plan import Plan
from lib.paired import BY_QUESTION
from lib.report.model_tables import (
    AllScoresJob,
    DescribedScore,
    ModelTableJob,
    ModelTableRow,
)
from lib.report.sidecar import ModelOrigin

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
    "pope_accuracy": "pope/reference_accuracy|accuracy",
}

SIZE_SCORES = {
    "object_halbench_response": "object_halbench/response",
    "object_halbench_mention": "object_halbench/mention",
    "pope": "pope/reference_f1|f1",
    "pope_accuracy": "pope/reference_accuracy|accuracy",
}


def table_files(plan: Plan, name: str) -> dict[str, str]:
    """The files of a table: three formats, and the sidecar that says of every cell where it comes
    from.
    """
    kinds = {"csv": "csv", "markdown": "md", "latex": "tex", "sidecar": "json"}
    return {kind: f"{plan.root}/tables/{name}.{suffix}" for kind, suffix in kinds.items()}


def figure_files(plan: Plan, name: str) -> dict[str, str]:
    """The files of a figure: two formats, and the sidecar with the numbers that are drawn and where
    they come from.
    """
    kinds = {"svg": "svg", "png": "png", "sidecar": "json"}
    return {kind: f"{plan.root}/figures/{name}.{suffix}" for kind, suffix in kinds.items()}


def origin_of(model: Block) -> ModelOrigin:
    """Where a model comes from and what it is, for tables and figures that name it. `model`: a
    Model, or a block with the endpoint of one, which is known by its name there.
    """
    if not isinstance(model, Model):
        (endpoint,) = endpoints_in(model).values()
        return ModelOrigin(model=endpoint.model, revision="")
    identity = weights.folder_identity(model.model) if weights.is_folder(model.model) else None
    return ModelOrigin(model=model.model, revision=model.revision, identity=identity)


def short_name(model: Model) -> str:
    """A model's name without its owner or folder."""
    return model.model.rstrip("/").rsplit("/", 1)[-1]


def ranking_files(plan: Plan, scorers: Iterable[str]) -> dict[str, list[str]]:
    """The rankings of some scorers, as named inputs of a rule."""
    return {rankings_input(name): plan.stages.files(f"image_ranking/{name}") for name in scorers}


# Figures


def _picks(plan: Plan) -> dict[str, Any]:
    """What both figures about picked images are told (`PicksFigureJob`)."""
    config = plan.config
    scorer = config.image_ranking.select_by
    return {
        "scorer": scorer,
        "scorer_model": origin_of(config.image_ranking.scorers[scorer]),
        "image_model": origin_of(config.images) if isinstance(config.images, Model) else None,
        "label": config.label,
    }


def candidates_job(plan: Plan) -> CandidatesFigureJob:
    """What the sheet of candidates is told."""
    return CandidatesFigureJob(
        **_picks(plan),
        prompts=plan.config.figures.sheet_prompts,
        pick=plan.config.image_ranking.pick,
    )


def guidance_job(plan: Plan) -> GuidanceFigureJob:
    """What the figure of guidance scales is told."""
    return GuidanceFigureJob(**_picks(plan), guidance_scales=plan.config.images.scales)


def similarity_job(plan: Plan) -> SimilarityFigureJob | None:
    """What the figure of similarities is told; None where it is left out."""
    embedding = plan.config.figures.embedding
    if embedding is None:
        return None
    return SimilarityFigureJob(embedding=origin_of(embedding), label=plan.config.label)


def answers_files(plan: Plan, file: str) -> list[str]:
    """A file of the base model's and of the experiment's evaluation that the sheet of answers
    shows; none where there is no sheet.
    """
    sheet = plan.answers_sheet
    if sheet is None:
        return []
    models = ("base", sheet.experiment)
    return [f"{plan.root}/evaluation/{model}/{sheet.benchmark}/{file}" for model in models]


def answers_job(plan: Plan) -> AnswersFigureJob | None:
    """What the sheet of answers is told; None where it is left out."""
    sheet = plan.answers_sheet
    if sheet is None:
        return None
    training = plan.config.training
    benchmark = question_sets(plan)[sheet.benchmark]
    return AnswersFigureJob(
        **dict(sheet),
        scorer=benchmark.scorer,
        questions=benchmark.questions,
        images=benchmark.images,
        reference=benchmark.reference,
        language=benchmark.language,
        names=(
            f"{short_name(training.base_model)} (base model)",
            f"{sheet.experiment} ({trained_on(plan, sheet.experiment)})",
        ),
        label=plan.config.label,
    )


def trained_on(plan: Plan, experiment: str) -> str:
    """What an experiment is trained on, in words."""
    trained = plan.config.training.experiments[experiment]
    return f"pairs of {trained.pairs.origin}" if trained.pairs else f"{trained.size} pairs"


# Tables of image scorers and of prompts


def judged_scorers(plan: Plan) -> list[str]:
    """The two scorers whose picks a judge compares; none without a judge."""
    ranking = plan.config.image_ranking
    return [ranking.select_by, ranking.judge.against] if ranking.judge else []


def comparison_files(plan: Plan) -> dict[str, str]:
    """The judge's comparisons of two scorers' picks, and their summary."""
    folder = f"{plan.root}/image_judge"
    return {"comparisons": f"{folder}/comparisons.jsonl", "summary": f"{folder}/summary.json"}


def compare_picks_job(plan: Plan) -> ComparePicksJob | None:
    """What the comparison of two scorers' picks is told; None without a judge."""
    ranking = plan.config.image_ranking
    if ranking.judge is None:
        return None
    scorers = {name: origin_of(ranking.scorers[name]) for name in judged_scorers(plan)}
    return ComparePicksJob(judge=ranking.judge, scorers=scorers)


def seen_by_people(plan: Plan) -> list[str]:
    """The two scorers whose picks people compare: those of the judge, or else the one that picks
    and the first CLIP, or the first other one. Nothing where there is one scorer.
    """
    ranking = plan.config.image_ranking
    if ranking.judge:
        return judged_scorers(plan)
    others = [name for name in ranking.scorers if name != ranking.select_by]
    clips = [name for name in others if ranking.scorers[name].kind == "clip"]
    return [ranking.select_by, (clips or others)[0]] if others else []


def people_inputs(plan: Plan) -> dict[str, list[str]]:
    """What people's verdicts are held against; nothing where there is none."""
    if not plan.verdicts:
        return {}
    rankings = ranking_files(plan, plan.config.image_ranking.scorers)
    return {**rankings, "images": plan.stages.image_files(), "pairs": plan.stages.files("pairs")}


def image_judge_job(plan: Plan) -> ImageJudgeTableJob:
    """What the table of the judge's comparisons is told."""
    ranking = plan.config.image_ranking
    return ImageJudgeTableJob(
        has_judge=ranking.judge is not None,
        kinds={name: scorer.kind for name, scorer in ranking.scorers.items()},
        label=plan.config.label,
        people=plan.verdicts,
        compared=seen_by_people(plan) if plan.verdicts else [],
        scorers=(
            {name: origin_of(scorer) for name, scorer in ranking.scorers.items()}
            if plan.verdicts
            else {}
        ),
    )


def common_selections_job(plan: Plan) -> CommonSelectionsJob:
    """What the table of the scorers' common selections is told."""
    scorers = plan.config.image_ranking.scorers
    return CommonSelectionsJob(
        scorers={
            name: TableScorer(kind=scorer.kind, origin=origin_of(scorer))
            for name, scorer in scorers.items()
        },
        label=plan.config.label,
    )


def reward_length_job(plan: Plan) -> RewardLengthTableJob:
    """What the table of rewards against lengths is told."""
    config = plan.config
    return RewardLengthTableJob(
        judge=" + ".join(reward.kind for reward in rewards_of(config.response_ranking).values()),
        is_controlled=config.pairs.length_control != "none",
        label=config.label,
    )


def reasons_job(plan: Plan) -> ReasonsTableJob:
    """What the table of reasons is told."""
    return ReasonsTableJob(label=plan.config.label)


# Tables of models


def experiments_by_size(plan: Plan) -> list[str]:
    """All experiments, the smallest data set first, then by name; negative controls, which are no
    further sizes, after all others.
    """
    experiments = plan.config.training.experiments
    return sorted(
        experiments,
        key=lambda name: (
            experiments[name].control is not None,
            _as_number(experiments[name].size),
            name,
        ),
    )


def _as_number(size: Size | None) -> float:
    """A size to sort by: `all` pairs, and pairs from elsewhere, after every number."""
    return size if isinstance(size, int) else math.inf


def largest_experiments(plan: Plan) -> list[str]:
    """The experiments on the largest data set of a configured number of pairs, by name, and after
    them their negative controls. Where that is left out, those on the largest that is made stand
    before it; those on all pairs there are follow, and those on pairs from elsewhere.
    """
    experiments = plan.config.training.experiments
    # A control by itself makes no size the largest.
    sizes = {each.size for each in experiments.values() if not each.control} or {
        each.size for each in experiments.values()
    }
    numbers = {size for size in sizes if isinstance(size, int)}
    made = numbers & set(plan.sizes())
    shown = {*sorted(numbers)[-1:], *sorted(made)[-1:], ALL, None}
    return [name for name in experiments_by_size(plan) if experiments[name].size in shown]


def seed_groups(plan: Plan, experiments: Sequence[str]) -> list[list[str]]:
    """The experiments, those together that have the same size and settings but for their training
    seed; in the order given.
    """
    groups: list[list[str]] = []
    for name in experiments:
        for group in groups:
            if _differs_in_seed_only(plan, name, group):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _differs_in_seed_only(plan: Plan, name: str, group: Sequence[str]) -> bool:
    """Whether an experiment is one of the group with another seed than any in it; the same
    experiment under two names is no second seed.
    """
    training = plan.config.training
    one, other = training.experiments[name], training.experiments[group[0]]
    settings = training.settings_of(name)
    seeds = [training.settings_of(each).seed for each in group]
    with_its_seed = settings.model_copy(update={"seed": seeds[0]})
    return (
        (one.size, one.pairs, one.control) == (other.size, other.pairs, other.control)
        and with_its_seed == training.settings_of(group[0])
        and settings.seed not in seeds
    )


def common_name(names: Sequence[str]) -> str:
    """What names of experiments begin with, in whole parts (`dpo-9k-seed1`, `dpo-9k-seed2`:
    `dpo-9k`); else the first and how many more.
    """
    parts = [re.split(r"([-._])", name) for name in names]
    shared = "".join(
        each[0] for each in takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))
    ).rstrip("-._")
    return names[0] if len(names) == 1 else shared or f"{names[0]} and {len(names) - 1} more"


def experiment_row(plan: Plan, names: list[str]) -> ModelTableRow:
    """The row of an experiment, or of several that differ in their seed only."""
    training = plan.config.training
    first = training.experiments[names[0]]
    return ModelTableRow(
        name=common_name(names),
        models=names,
        seeds=[training.settings_of(name).seed for name in names],
        pairs=first.size or ALL,
        data_set=first.pairs.folder if first.pairs else ALL,
        origin=first.pairs.origin if first.pairs else None,
        paper_row=first.paper_row,
        texts={"feedback": _feedback(first)},
        control=TRAINING_CONTROLS[first.control] if first.control else None,
        left_out=plan.left_out.get(str(first.size)),
    )


def _feedback(experiment: Experiment) -> str:
    """Who preferred the chosen answer, as the paper's tables say it."""
    if experiment.control:
        return "control"
    return "own pairs" if experiment.pairs else "RM"


def model_table_job(
    plan: Plan, experiments: Sequence[str], scores: Mapping[str, str]
) -> ModelTableJob:
    """What a table of models is told: the base model's row first, then those of the experiments.
    `scores`: column -> score, as above.
    """
    return ModelTableJob(
        rows=model_rows(plan, experiments),
        scores=dict(scores),
        label=plan.config.label,
        base=origin_of(plan.config.training.base_model),
    )


def model_rows(plan: Plan, experiments: Sequence[str]) -> list[ModelTableRow]:
    """The base model's row, then those of the experiments and of models of others."""
    name = short_name(plan.config.training.base_model)
    base = ModelTableRow(name=name, models=["base"], seeds=[], pairs=0, texts={})
    released = plan.config.evaluation.models
    return [
        base,
        *(experiment_row(plan, names) for names in seed_groups(plan, experiments)),
        *(released_row(name, model) for name, model in released.items()),
    ]


def released_row(name: str, model: ReleasedModel) -> ModelTableRow:
    """The row of a model of others."""
    return ModelTableRow(
        name=name,
        models=[name],
        seeds=[],
        pairs=0,
        texts={},
        released=origin_of(model),
        paper_row=model.paper_row,
    )


def all_scores_job(plan: Plan) -> AllScoresJob:
    """What the table of all scores is told: all models, and all scores of all benchmarks."""
    return AllScoresJob(
        rows=model_rows(plan, experiments_by_size(plan)),
        benchmarks={
            name: described_scores(block)
            for name, block in plan.config.evaluation.benchmarks.items()
        },
        label=plan.config.label,
        base=origin_of(plan.config.training.base_model),
    )


def described_scores(block: TaskBenchmark | QuestionBenchmark) -> list[DescribedScore]:
    """The scores that a configured benchmark gives, those of our scorer beside lmms-eval's
    included.
    """
    if isinstance(block, QuestionBenchmark):
        return _scores_of_scorer(block.scorer)
    unit = ", percent" if block.percent else ""
    theirs = [
        DescribedScore(name=name, what=f"lmms-eval's {metric} of task {block.task}{unit}")
        for name, metric in block.metrics.items()
    ]
    if block.scorer is None or (_asks_judge(block.scorer) and not block.judge):
        return theirs
    return [*theirs, *_scores_of_scorer(block.scorer, "reference_")]


def _asks_judge(scorer: str) -> bool:
    return issubclass(BENCHMARKS.load(scorer), JudgedBenchmark)


def _scores_of_scorer(scorer: str, prefix: str = "") -> list[DescribedScore]:
    """The scores of one of our scorers. `prefix`: what stands before their names."""
    benchmark = BENCHMARKS.load(scorer)
    return [
        DescribedScore(name=f"{prefix}{name}", what=what, better=benchmark.better.get(name))
        for name, what in benchmark.names.items()
    ]


def score_files(plan: Plan, experiments: Sequence[str], scores: Mapping[str, str]) -> list[str]:
    """The scores that a table of models shows, of those benchmarks that this run has."""
    benchmarks = dict.fromkeys(score.split("/")[0] for score in scores.values())
    configured = [name for name in benchmarks if name in plan.config.evaluation.benchmarks]
    return scores_of_models(plan, experiments, configured)


def all_score_files(plan: Plan) -> list[str]:
    """The scores of all models on all benchmarks."""
    return scores_of_models(
        plan, list(plan.config.training.experiments), list(plan.config.evaluation.benchmarks)
    )


def scores_of_models(
    plan: Plan, experiments: Sequence[str], benchmarks: Sequence[str]
) -> list[str]:
    """The scores.json of the base model, of the experiments that the run makes, and of models of
    others.
    """
    made = plan.models()
    return [
        f"{plan.root}/evaluation/{model}/{benchmark}/scores.json"
        for model in [
            "base",
            *(name for name in experiments if name in made),
            *plan.config.evaluation.models,
        ]
        for benchmark in benchmarks
    ]


def with_by_question(scores: Sequence[str]) -> dict[str, list[str]]:
    """The inputs of a table of models: scores.json, and the scores by question beside them."""
    beside = [str(Path(path).with_name(BY_QUESTION)) for path in scores]
    return {"scores": list(scores), "by_question": beside}


def own_data_sets(plan: Plan) -> list[str]:
    """What says how many pairs from elsewhere there are."""
    return [f"{plan.root}/own_pairs/{name}/dataset.json" for name in plan.own_pairs]


def data_set_of_all(plan: Plan, experiments: Sequence[str]) -> list[str]:
    """What says how many pairs there are in all, or from elsewhere, where a table's experiments are
    trained on those; else nothing.
    """
    trained = [plan.config.training.experiments[name] for name in experiments]
    folders = [
        plan.data_set_of(name)
        for name, each in zip(experiments, trained, strict=True)
        if each.pairs or each.size == ALL
    ]
    return [f"{folder}/dataset.json" for folder in dict.fromkeys(folders)]
