"""What the rules of cards are told: which models a run uses, for what and under what terms, and the
configuration that its data stand on.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import urlsplit

from lib import weights
from lib.blocks import Block, Endpoint, Model, endpoints_in, models_in
from lib.config.licences import Licences, read_licences
from lib.config.response_ranking import rewards_of
from lib.config.run import Config
from lib.data.controls import TRAINING_CONTROLS
from lib.head import evaluation
from lib.head.plan import Plan
from lib.head.table_rows import described_scores, origin_of
from lib.models.content_checkers.settings import ContentCheckerSettings
from lib.report.data_set_card import DataSetCardJob
from lib.report.licence import UsedModel
from lib.report.model_card import ModelCardJob
from lib.report.sidecar import ModelOrigin

#: Where instructions come from that no model writes, by their author's kind.
INSTRUCTIONS = {"file": "was written by hand", "template": "was drawn from a list"}
#: The blocks of the configuration that decide the data.
BLOCKS = (
    *("seed", "topics", "generate_prompts", "images", "image_ranking", "instructions"),
    *("responses", "response_ranking", "pairs"),
)
#: ... and those fields of the others that do.
OF_PAIRS = ("min_margin", "sizes", "validation", "content_check")
OF_TRAINING = ("base_model", "prompt_template", "system_prompt")


def data_set_card_job(plan: Plan) -> DataSetCardJob:
    """What rule data_set_card is told."""
    config = plan.config
    return DataSetCardJob(
        run=config.run,
        label=config.label,
        license=config.pairs.card.license,
        languages=config.pairs.card.languages,
        code=config.pairs.card.code,
        models=list(models_of_data(config, read_licences())),
        instructions=INSTRUCTIONS.get(
            str(getattr(config.instructions, "backend", "")), "was written by a model, too"
        ),
        content_checks={
            name: said_of(checker) for name, checker in config.pairs.content_check.items()
        },
        configuration=portable(configuration_of(config)),
        rewards_that_see=_how_many_see(config),
    )


def _how_many_see(config: Config) -> Literal["none", "some", "all"]:
    """How many of the rewards see the picture."""
    see = {reward.SEES_IMAGE for reward in rewards_of(config.response_ranking).values()}
    return "some" if len(see) > 1 else "all" if see.pop() else "none"


def model_card_job(plan: Plan, experiment: str) -> ModelCardJob:
    """What rule model_cards is told of an experiment."""
    config, licences = plan.config, read_licences()
    training, card = config.training, config.pairs.card
    control, own = training.experiments[experiment].control, training.experiments[experiment].pairs
    base = training.base_model
    return ModelCardJob(
        run=config.run,
        experiment=experiment,
        label=config.label,
        base=of_model("is trained", base, "train_dpo", licences, makes=True),
        base_is_on_hub=not weights.is_folder(base.model),
        data_models=[] if own else list(models_of_data(config, licences)),
        license=card.license,
        languages=card.languages,
        code=card.code,
        own_pairs=own.origin if own else None,
        control=TRAINING_CONTROLS[control] if control else None,
        prompt_template=training.prompt_template,
        system_prompt=training.system_prompt,
        training=training.settings_of(experiment).model_dump(mode="json"),
        scores={
            name: {score.name: score.what for score in described_scores(block)}
            for name, block in config.evaluation.benchmarks.items()
        },
    )


def said_of(checker: ContentCheckerSettings) -> str:
    """What a content checker is, as a card says it."""
    looks_for = getattr(checker, "labels", None) or getattr(checker, "entities", [])
    who = f"`{portable(checker.model)}`" if isinstance(checker, Model) else checker.kind
    return f"{who} for {', '.join(looks_for)}, from a score of {checker.min_score:g} on"


def configuration_of(config: Config) -> dict[str, Any]:
    """What of a configuration decides the data, as a configuration."""
    values = config.model_dump(mode="json")
    training = {name: values["training"][name] for name in OF_TRAINING}
    training["settings"] = {"max_length": values["training"]["settings"]["max_length"]}
    contamination = {"contamination": values["evaluation"]["contamination"]}
    kept = {name: values[name] for name in BLOCKS}
    # Their order decides nothing, and the same data have the same card.
    kept["topics"] = sorted(kept["topics"])
    picking = values["image_ranking"]["select_by"]
    scorers = {picking: values["image_ranking"]["scorers"][picking]}
    kept["image_ranking"] = {**values["image_ranking"], "scorers": scorers, "judge": None}
    del kept["image_ranking"]["together"]
    kept["pairs"] = {name: values["pairs"][name] for name in OF_PAIRS}
    if (control := values["pairs"]["length_control"]) != "none":
        kept["pairs"]["length_control"] = control
    if (most := values["pairs"]["max_disagreement"]) is not None:
        kept["pairs"]["max_disagreement"] = most
    kept["responses"] = _said_once(values["responses"])
    return {**kept, "training": training, "evaluation": contamination}


def _said_once(responses: dict[str, Any]) -> dict[str, Any]:
    """The block of the responses, in which a policy model says what is its own."""
    shared = {"backend": responses["backend"], "samples": 1}
    policies = {
        name: {key: value for key, value in policy.items() if shared.get(key) != value}
        for name, policy in responses["policy_models"].items()
    }
    return {**responses, "policy_models": policies}


def portable(value: Any) -> Any:
    """A configuration without what is of this machine alone: of absolute paths their last name."""
    if isinstance(value, Mapping):
        return {name: portable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [portable(each) for each in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value


def models_of_data(config: Config, licences: Licences) -> Iterator[UsedModel]:
    """The models that the data are made with, in the order of the stages."""
    if config.generate_prompts.count:
        yield from _of_prompts(config, licences)
    if isinstance(config.images, Model):
        yield of_model("makes the images", config.images, "generate_images", licences, makes=True)
    else:
        pictures = ModelOrigin(model="pictures of the maker's own", revision="")
        yield UsedModel(does="are the images", makes=True, origin=pictures)
    picking = config.image_ranking.select_by
    scorer = config.image_ranking.scorers[picking]
    yield of_judge("picks one of them", scorer, f"rank_images/{picking}", licences)
    yield from _of_author(config.instructions, licences)
    for name, policy in config.responses.policy_models.items():
        yield from _of_writer("answers", policy, f"generate_responses/{name}", licences)
    for name, reward in rewards_of(config.response_ranking).items():
        rule = f"rank_responses/{name}" if name else "rank_responses"
        yield of_judge("ranks the answers", reward, rule, licences)


def of_model(
    does: str, model: Model, rule: str, licences: Licences, makes: bool = False
) -> UsedModel:
    """A model with its terms."""
    return UsedModel(
        does=does,
        makes=makes,
        origin=origin_of(model),
        rule=rule,
        terms=licences.terms_of(model.model),
    )


def of_judge(does: str, judge: Block, rule: str, licences: Licences) -> UsedModel:
    """What scores pictures or answers, and writes nothing of the data: a model, or an endpoint."""
    if isinstance(judge, Model):
        return of_model(does, judge, rule, licences)
    (endpoint,) = endpoints_in(judge).values()
    return of_endpoint(does, endpoint, licences, makes=False)


def _of_prompts(config: Config, licences: Licences) -> Iterator[UsedModel]:
    """Who writes the prompts that topics lack: an endpoint, or that of the instructions."""
    does = "writes prompts where topics have too few"
    endpoint = config.generate_prompts.endpoint
    if endpoint is not None:
        yield of_endpoint(does, endpoint, licences)
    else:
        for model in _of_author(config.instructions, licences):
            yield model.model_copy(update={"does": does, "rule": ""})


def of_endpoint(does: str, endpoint: Endpoint, licences: Licences, makes: bool = True) -> UsedModel:
    """An endpoint with its terms. `makes`: whether its texts are in the data."""
    host = urlsplit(endpoint.base_url).hostname or ""
    return UsedModel(
        does=does,
        makes=makes,
        origin=ModelOrigin(model=endpoint.model, revision=""),
        host=host,
        terms=licences.terms_of(host),
    )


def _of_author(author: Any, licences: Licences) -> Iterator[UsedModel]:
    """Who writes the instructions."""
    yield from _of_writer("writes the instructions", author, "write_instructions", licences)


def _of_writer(does: str, writer: Any, rule: str, licences: Licences) -> Iterator[UsedModel]:
    """Who writes texts of the data: an endpoint, or a local model; nobody, where people did."""
    endpoint = getattr(writer, "endpoint", None)
    if isinstance(endpoint, Endpoint):
        yield of_endpoint(does, endpoint, licences)
    for model in models_in(writer).values():
        yield of_model(does, model, rule, licences, makes=True)


def scores_of_model(plan: Plan, model: str) -> list[str]:
    """The files of a model's scores, of every benchmark."""
    folder = f"{plan.root}/evaluation/{model}"
    return [f"{folder}/{name}/scores.json" for name in plan.config.evaluation.benchmarks]


def contamination_inputs(plan: Plan) -> dict[str, str]:
    """The files that tell what the data have in common with benchmarks, where it is looked for."""
    if not evaluation.contamination_files(plan):
        return {}
    folder = f"{plan.root}/contamination"
    return {"coverage": f"{folder}/coverage.json", "overlaps": f"{folder}/overlaps.jsonl"}
