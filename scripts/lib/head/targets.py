"""What a run is to have at its end: every file that its rules make, one by one, so that one that is
deleted is made again.
"""

from lib.files import PROJECT
from lib.head import evaluation, own_pairs
from lib.head.plan import FIGURES, TABLES, Plan
from lib.head.table_rows import comparison_files, figure_files, table_files

#: The files of a trained model in the experiment's folder; `merged` is a model's folder.
MODEL_FILES = (
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "metrics.jsonl",
    "training.svg",
    "training.png",
    "merged",
    "cards/adapter/README.md",
    "cards/merged/README.md",
)
#: The tables and figures of models; all others are of the stages before training.
OF_MODELS = (
    *("vision_language_table", "hallucination_table", "size_table", "all_scores_table"),
    "answers_figure",
)


def less_than_rankings() -> set[str]:
    """The targets that need not have the rankings of all image scorers."""
    rules = {path.stem for path in (PROJECT / "scripts").glob("*.py")}
    return rules | {"prompts", "images", "responses", "pairs"}


def targets(plan: Plan) -> list[str]:
    """The files of the whole run."""
    config = plan.config
    files = [
        *(data_sets(plan) if plan.makes_pairs else []),
        *(f"{plan.root}/own_pairs/{name}/dataset.json" for name in plan.own_pairs),
        *rankings(plan),
        *_files_of_contamination(plan),
        *(
            f"{plan.root}/models/{experiment}/{name}"
            for experiment in plan.experiments()
            for name in MODEL_FILES
        ),
        *(f"{plan.root}/models/{each}/converted" for each in evaluation.converted_models(plan)),
        *(
            f"{plan.root}/evaluation/{model}/{benchmark}/{name}"
            for model in plan.models()
            for benchmark in config.evaluation.benchmarks
            for name in _files_of_evaluation(plan, benchmark)
        ),
        *(
            comparison_files(plan).values()
            if config.image_ranking.judge and plan.makes_pairs
            else []
        ),
        *(plan.stages.files("embeddings") if config.figures.embedding else []),
        *tables_and_figures(plan),
    ]
    return list(dict.fromkeys(files))


def images(plan: Plan) -> list[str]:
    """The shard files of the images."""
    return plan.stages.files("images")


def rankings(plan: Plan) -> list[str]:
    """The shard files of every image scorer's ranking."""
    return [
        file
        for scorer in plan.config.image_ranking.scorers
        for file in plan.stages.files(f"image_ranking/{scorer}")
    ]


def responses(plan: Plan) -> list[str]:
    """The shard files of all responses, and of the stages that lead to them: not of the image
    scorers that do not pick.
    """
    config = plan.config
    stages = [
        f"image_ranking/{config.image_ranking.select_by}",
        "instructions",
        *(f"responses/{policy}" for policy in config.responses.policy_models),
    ]
    # Where images are gathered, these stand for the files that they are gathered from.
    return [
        *plan.stages.image_files(),
        *(file for stage in stages for file in plan.stages.files(stage)),
    ]


def data_sets(plan: Plan) -> list[str]:
    """The data sets, and the shard files of all stages that lead to them."""
    rankings_of_responses = dict.fromkeys([*plan.reward_stages.values(), "response_ranking"])
    return [
        *responses(plan),
        *(file for stage in rankings_of_responses for file in plan.stages.files(stage)),
        *(
            file
            for checker in plan.config.pairs.content_check
            for file in plan.stages.files(f"content/{checker}")
        ),
        *plan.stages.files("pairs"),
        f"{plan.root}/quality/pairs.json",
        *(file for size in plan.sizes() for file in plan.data_set_files(size)),
        *([f"{plan.root}/dataset/README.md"] if plan.sizes() else []),
    ]


def _files_of_evaluation(plan: Plan, benchmark: str) -> list[str]:
    """A benchmark's files of each model: answers, how they came about, scores."""
    scores = ["scores.json", "by_question.jsonl"]
    if benchmark in evaluation.tasks(plan):
        return ["answers.jsonl", "results.json", *scores]
    return ["answers.jsonl", "asked.json", *scores, "scored.jsonl"]


def _files_of_contamination(plan: Plan) -> list[str]:
    if not plan.config.evaluation.contamination.check:
        return []
    names = ("benchmarks.jsonl", "coverage.json", "overlaps.jsonl", "overlaps.csv", "overlaps.md")
    return [
        *(f"{plan.root}/contamination/{name}" for name in names),
        *evaluation.contamination_files(plan),
        *own_pairs.contamination_files(plan),
    ]


def tables_and_figures(plan: Plan) -> list[str]:
    """The files of all tables and figures that are not left out."""
    figures = plan.config.figures
    needs = {name: name in OF_MODELS or plan.makes_pairs for name in (*TABLES, *FIGURES)}
    needs["guidance_figure"] = plan.makes_pairs and plan.config.images.IS_DRAWN
    needs["similarity_figure"] = plan.makes_pairs and figures.embedding is not None
    needs["answers_figure"] = plan.answers_sheet is not None
    return [
        *(file for table in TABLES if needs[table] for file in table_files(plan, table).values()),
        *(
            file
            for figure in FIGURES
            if needs[figure]
            for file in figure_files(plan, figure).values()
        ),
    ]
