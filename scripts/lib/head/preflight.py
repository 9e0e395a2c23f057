"""What can be known before the first GPU is asked for: endpoints and hub models that the run will
need.
"""

import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from lib import weights
from lib.blocks import Block, Endpoint, Model, models_in
from lib.config.run import Config
from lib.endpoint import check_endpoint
from lib.errors import UserError
from lib.files import mendable_storage_errors
from lib.head import evaluation
from lib.head.plan import Plan
from lib.head.table_rows import comparison_files
from lib.head.targets import targets

#: Rules that make a trained model.
TRAINING_RULES = ("train_dpo", "merge_adapter")


def hub_models(config: Config) -> dict[str, Model]:
    """The models of a configuration that come from the hub, by configuration key."""
    return {
        key: model
        for key, (model, _) in models_of(config).items()
        if not weights.is_folder(model.model)
    }


def models_of(config: Config) -> dict[str, tuple[Model, str]]:
    """Every model by configuration key, with the stage whose files tell whether it is still
    needed.
    """
    blocks: dict[str, tuple[Block | None, str]] = {
        "images": (config.images, "images"),
        **{
            f"image_ranking.scorers.{name}": (scorer, f"image_ranking/{name}")
            for name, scorer in config.image_ranking.scorers.items()
        },
        "instructions": (config.instructions, "instructions"),
        **{
            f"responses.policy_models.{name}": (policy, f"responses/{name}")
            for name, policy in config.responses.policy_models.items()
        },
        "response_ranking": (config.response_ranking, "response_ranking"),
        "figures.embedding": (config.figures.embedding, "embeddings"),
        "training.base_model": (config.training.base_model, "evaluation"),
    }
    return {
        key if name == "model" else f"{key}.{name}": (model, stage)
        for key, (block, stage) in blocks.items()
        if block
        for name, model in models_in(block).items()
    }


def _is_made(plan: Plan, stage: str, rules: Collection[str]) -> bool:
    """Whether all files of a stage are there: its model will not be asked for unless something
    changed. `rules`: those that are to run.
    """
    if stage != "evaluation":
        return all(Path(path).exists() for path in plan.shard_files(stage))
    trained = (f"{plan.root}/models/",) if set(rules) & set(TRAINING_RULES) else ()
    folders = (f"{plan.root}/evaluation/", *trained)
    files = [path for path in targets(plan) if path.startswith(folders)]
    return all(Path(path).exists() for path in files)


#: Reference data that are larger are not read before the run, only looked for.
READ_AT_ONCE = 64 << 20


def benchmark_judges(plan: Plan) -> dict[str, Endpoint]:
    """The judges of those benchmarks that are not scored yet, by configuration key."""
    judges = {}
    for name, block in plan.config.evaluation.benchmarks.items():
        scores = [
            Path(plan.root, "evaluation", model, name, "scores.json") for model in plan.models()
        ]
        if block.judge and not all(path.exists() for path in scores):
            judges[f"evaluation.benchmarks.{name}.judge"] = block.judge
    return judges


def problems_with_benchmarks(plan: Plan) -> list[str]:
    """What is wrong with the files of benchmarks that are not answered yet: a question, an image
    that is not there, a reference file.
    """
    from lib.benchmarks.questions import prompt_of, read_questions
    from lib.benchmarks.registry import load_questions_benchmark

    problems = []
    for name, block in evaluation.question_sets(plan).items():
        if all(
            Path(plan.root, "evaluation", model, name, "answers.jsonl").exists()
            for model in plan.models()
        ):
            continue
        files = [
            file
            for path in map(Path, block.reference)
            for file in (path.rglob("*") if path.is_dir() else [path])
        ]
        try:
            benchmark = load_questions_benchmark(block.scorer)
            for question in read_questions(benchmark, block.questions, block.images):
                prompt_of(question, block.prompt or benchmark.form.prompts)
            if sum(file.stat().st_size for file in files) <= READ_AT_ONCE:
                benchmark.read_reference(*map(Path, block.reference))
        except UserError as error:
            problems.append(f"evaluation.benchmarks.{name}: {error}")
    return problems


def endpoints_of(plan: Plan) -> dict[str, Endpoint]:
    """The endpoints that a run may ask, by configuration key; those whose answers are all there are
    left out.
    """
    config = plan.config
    endpoints: dict[str, Endpoint] = {}
    if not _is_made(plan, "instructions", ()):
        endpoints |= {
            f"instructions.{name}": value
            for name, value in config.instructions
            if isinstance(value, Endpoint)
        }
    judge = config.image_ranking.judge
    if judge and not Path(comparison_files(plan)["comparisons"]).exists():
        endpoints["image_ranking.judge.endpoint"] = judge.endpoint
    if config.generate_prompts.count and config.generate_prompts.endpoint:
        endpoints["generate_prompts.endpoint"] = config.generate_prompts.endpoint
    return endpoints | benchmark_judges(plan)


def problem_of(key: str, check: Callable[[], object]) -> list[str]:
    """What a check of the configuration's `key` finds."""
    try:
        check()
    except UserError as error:
        return [f"{key}: {error}"]
    return []


def check_writable(folder: Path) -> None:
    """Raises a UserError if no file can be written into a folder, which is made if need be."""
    with mendable_storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def check_run(plan: Plan, rules: Collection[str]) -> None:
    """Raises one UserError with all that would stop this run later: keys, endpoints, hub models out
    of reach, files of benchmarks.

    `rules`: those that are to run. Tables and figures alone need a trained model only for scores
    that are not there.
    """
    problems = []
    for key, endpoint in endpoints_of(plan).items():
        problems += problem_of(key, partial(check_endpoint, endpoint))
    for key, (model, stage) in models_of(plan.config).items():
        if not weights.is_folder(model.model) and not _is_made(plan, stage, rules):
            problems += problem_of(key, partial(weights.check_access, model.model, model.revision))
    problems += problems_with_benchmarks(plan)
    problems += problem_of("results", partial(check_writable, plan.config.root))
    if problems:
        raise UserError("\n".join(problems))
