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
    blocks: dict[str, Model | None] = {
        "images": config.images,
        "response_ranking": config.response_ranking,
        "training.base_model": config.training.base_model,
        "instructions.llm": config.instructions.llm if config.instructions.backend in ("transformers", "vllm") else None,
        **{f"image_ranking.scorers.{name}": scorer for name, scorer in config.image_ranking.scorers.items()},
        **{f"image_ranking.scorers.{name}.tokenizer": scorer.tokenizer for name, scorer in config.image_ranking.scorers.items()},
        **{f"responses.policy_models.{name}": policy for name, policy in config.responses.policy_models.items()},
    }
    return {key: model for key, model in blocks.items() if model and not models.is_folder(model.model)}


def check(plan: Plan) -> None:
    """Raises one UserError with everything that would stop this run later: keys, endpoints, hub models out of reach."""
    config = plan.config
    problems = []
    unwritten = any(not Path(path).exists() for path in plan.shard_files("instructions"))
    endpoints = {
        "instructions.endpoint": config.instructions.endpoint if config.instructions.backend == "openai" and unwritten else None,
        "generate_prompts.endpoint": config.generate_prompts.endpoint if config.generate_prompts.count else None,
    }
    for key, endpoint in endpoints.items():
        try:
            if endpoint:
                check_endpoint(endpoint)
        except UserError as error:
            problems.append(f"{key}: {error}")
    for key, model in hub_models(config).items():
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
