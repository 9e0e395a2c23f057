"""What can be known before the first GPU is asked for: endpoints and hub models that the run will
need.
"""

import tempfile
from pathlib import Path

from lib import weights
from lib.blocks import Endpoint, Model
from lib.config.run import Config
from lib.endpoint import check_endpoint
from lib.errors import UserError
from lib.files import mendable_storage_errors
from lib.head import evaluation
from lib.head.plan import Plan


def hub_models(config: Config) -> dict[str, Model]:
    """The models of a configuration that come from the hub, by configuration key."""
    return {
        key: model
        for key, (model, _) in _models(config).items()
        if not weights.is_folder(model.model)
    }


def _models(config: Config) -> dict[str, tuple[Model, str]]:
    """Every model by configuration key, with the stage whose files tell whether it is still needed."""
    found: dict[str, tuple[Model, str]] = {"images": (config.images, "images")}
    for name, scorer in config.image_ranking.scorers.items():
        found[f"image_ranking.scorers.{name}"] = (scorer, f"image_ranking/{name}")
        if scorer.tokenizer:
            found[f"image_ranking.scorers.{name}.tokenizer"] = (
                scorer.tokenizer,
                f"image_ranking/{name}",
            )
    if config.instructions.llm and config.instructions.backend in ("transformers", "vllm"):
        found["instructions.llm"] = (config.instructions.llm, "instructions")
    for name, policy in config.responses.policy_models.items():
        found[f"responses.policy_models.{name}"] = (policy, f"responses/{name}")
    found["response_ranking"] = (config.response_ranking, "response_ranking")
    if config.figures.embedding:
        found["figures.embedding"] = (config.figures.embedding, "embeddings")
    found["training.base_model"] = (config.training.base_model, "evaluation")
    return found


def _is_made(plan: Plan, stage: str, tables_only: bool = False) -> bool:
    """Whether all files of a stage are there: its model will not be asked for unless something
    changed.
    """
    if stage == "evaluation":
        folders = (
            (f"{plan.root}/evaluation/",)
            if tables_only
            else (f"{plan.root}/models/", f"{plan.root}/evaluation/")
        )
        files = [path for path in plan.targets() if path.startswith(folders)]
    else:
        files = plan.shard_files(stage)
    return all(Path(path).exists() for path in files)


#: Reference data that are larger are not read before the run, only looked for.
READ_AT_ONCE = 64 << 20


def benchmark_judges(plan: Plan) -> dict[str, Endpoint]:
    """The judges of those benchmarks that are not scored yet, by configuration key."""
    found = {}
    for name, block in plan.config.evaluation.benchmarks.items():
        scores = [
            Path(plan.root, "evaluation", model, name, "scores.json") for model in plan.models()
        ]
        if block.judge and not all(path.exists() for path in scores):
            found[f"evaluation.benchmarks.{name}.judge"] = block.judge
    return found


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


def check(plan: Plan, tables_only: bool = False) -> None:
    """Raises one UserError with all that would stop this run later: keys, endpoints, hub models out
    of reach, files of benchmarks.

    `tables_only`: the run was asked for tables and figures, which need a trained model only for
    scores that are not there.
    """
    config = plan.config
    problems = []
    unwritten = not _is_made(plan, "instructions")
    judge = config.image_ranking.judge
    endpoints = {
        "instructions.endpoint": (
            config.instructions.endpoint
            if config.instructions.backend == "openai" and unwritten
            else None
        ),
        "image_ranking.judge.endpoint": (
            judge.endpoint if judge and not Path(plan.comparisons).exists() else None
        ),
        "generate_prompts.endpoint": (
            config.generate_prompts.endpoint if config.generate_prompts.count else None
        ),
        **benchmark_judges(plan),
    }
    for key, endpoint in endpoints.items():
        try:
            if endpoint:
                check_endpoint(endpoint)
        except UserError as error:
            problems.append(f"{key}: {error}")
    for key, (model, stage) in _models(config).items():
        if weights.is_folder(model.model) or _is_made(plan, stage, tables_only):
            continue
        try:
            weights.check_access(model.model, model.revision)
        except UserError as error:
            problems.append(f"{key}: {error}")
    problems += problems_with_benchmarks(plan)
    try:
        with mendable_storage_errors(config.root):
            config.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=config.root):
                pass
    except UserError as error:
        problems.append(f"results: {error}")
    if problems:
        raise UserError("\n".join(problems))
