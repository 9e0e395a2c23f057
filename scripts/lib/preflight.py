"""What can be known before the first GPU is asked for: endpoints and hub models that the run will need."""

import tempfile
from pathlib import Path

from lib import models
from lib.config import Config, Model
from lib.endpoint import check_endpoint
from lib.errors import UserError
from lib.files import mendable_storage_errors
from lib.plan import Plan


def hub_models(config: Config) -> dict[str, Model]:
    """The models of a configuration that come from the hub, by configuration key."""
    return {key: model for key, (model, _) in _models(config).items() if not models.is_folder(model.model)}


def _models(config: Config) -> dict[str, tuple[Model, str]]:
    """Every model by configuration key, with the stage whose files tell whether it is still needed."""
    found: dict[str, tuple[Model, str]] = {"images": (config.images, "images")}
    for name, scorer in config.image_ranking.scorers.items():
        found[f"image_ranking.scorers.{name}"] = (scorer, f"image_ranking/{name}")
        if scorer.tokenizer:
            found[f"image_ranking.scorers.{name}.tokenizer"] = (scorer.tokenizer, f"image_ranking/{name}")
    if config.instructions.llm and config.instructions.backend in ("transformers", "vllm"):
        found["instructions.llm"] = (config.instructions.llm, "instructions")
    for name, policy in config.responses.policy_models.items():
        found[f"responses.policy_models.{name}"] = (policy, f"responses/{name}")
    found["response_ranking"] = (config.response_ranking, "response_ranking")
    if config.figures.embedding:
        found["figures.embedding"] = (config.figures.embedding, "embeddings")
    found["training.base_model"] = (config.training.base_model, "evaluation")
    return found


def _is_made(plan: Plan, stage: str) -> bool:
    """Whether all files of a stage are there: its model will not be asked for unless something changed."""
    if stage == "evaluation":
        files = [path for path in plan.targets() if path.startswith((f"{plan.root}/models/", f"{plan.root}/evaluation/"))]
    else:
        files = plan.shard_files(stage)
    return all(Path(path).exists() for path in files)


def check(plan: Plan) -> None:
    """Raises one UserError with everything that would stop this run later: keys, endpoints, hub models out of reach."""
    config = plan.config
    problems = []
    unwritten = not _is_made(plan, "instructions")
    judge = config.image_ranking.judge
    endpoints = {
        "instructions.endpoint": config.instructions.endpoint if config.instructions.backend == "openai" and unwritten else None,
        "image_ranking.judge.endpoint": judge.endpoint if judge and not Path(plan.comparisons).exists() else None,
        "generate_prompts.endpoint": config.generate_prompts.endpoint if config.generate_prompts.count else None,
    }
    for key, endpoint in endpoints.items():
        try:
            if endpoint:
                check_endpoint(endpoint)
        except UserError as error:
            problems.append(f"{key}: {error}")
    for key, (model, stage) in _models(config).items():
        if models.is_folder(model.model) or _is_made(plan, stage):
            continue
        try:
            models.check_access(model.model, model.revision)
        except UserError as error:
            problems.append(f"{key}: {error}")
    try:
        with mendable_storage_errors(config.root):
            config.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=config.root):
                pass
    except UserError as error:
        problems.append(f"results: {error}")
    if problems:
        raise UserError("\n".join(problems))
