"""What can be known before the first GPU is asked for: whether the models, endpoints, keys and
files are there that the jobs of a run need. Only what is to run is asked for, whatever the
configuration names besides.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path

from lib import weights
from lib.benchmarks.lmms_eval.tasks import problems_with_task
from lib.blocks import Block, Endpoint, Model, endpoints_in, models_in
from lib.chat_template import TEMPLATE_FILES, own_template
from lib.config.evaluation import QuestionBenchmark
from lib.config.response_ranking import key_of_reward, rewards_of
from lib.config.run import Config
from lib.endpoint import check_endpoint
from lib.errors import OutOfReachError, UserError
from lib.files import mendable_storage_errors
from lib.head import evaluation, own_pairs
from lib.head.left_out import problems_with_sizes
from lib.head.plan import Plan
from lib.hub_upload import token_of
from lib.model_files import TOKENIZERS, problem_with_any

#: A job that is to run: its rule, and its wildcards by name.
Job = tuple[str, Mapping[str, str]]
#: Whether a snapshot in the hub cache holds what is needed of a model.
IsWhole = Callable[[Path], bool]

#: The key of the model that is trained, whose tokenizer build_pairs reads too.
BASE_MODEL = "training.base_model"
#: The rules that write prompts, and the target that asks for them.
PROMPT_RULES = ("generate_prompts", "add_prompts", "prompts")
#: Reference data that are larger are not read before the run, only looked for.
READ_AT_ONCE = 64 << 20
THREADS = 8


@dataclass
class Needs:
    """What jobs need besides what other jobs of the run make, by configuration key.

    models      with what of each is needed
    endpoints   those that are asked; None where one is needed and none is configured
    benchmarks  the benchmarks of our own whose questions or references are read
    tasks       those that lmms-eval asks
    own_pairs   the pairs that are imported, by their folders' names
    """

    models: dict[str, tuple[Model, IsWhole]] = field(default_factory=dict)
    endpoints: dict[str, Endpoint | None] = field(default_factory=dict)
    benchmarks: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    own_pairs: set[str] = field(default_factory=set)

    def add_models(self, config: Config, key: str) -> None:
        """Adds the models of the configuration's block `key`, with all of their weights."""
        for name, model in _models_of(key, blocks_with_models(config)[key]).items():
            is_tokenizer = name.endswith(".tokenizer")
            self.models[name] = (
                model,
                _holds_a_tokenizer if is_tokenizer else weights.holds_weights,
            )

    def add_endpoints(self, config: Config, key: str) -> None:
        """Adds the endpoints in the configuration's block `key`."""
        block = blocks_with_models(config)[key]
        for name, endpoint in (endpoints_in(block) if block else {}).items():
            self.endpoints[f"{key}.{name}"] = endpoint

    def add_tokenizer(self, config: Config) -> None:
        """Adds what build_pairs reads of the base model, unless all of it is needed anyway."""
        training = config.training
        is_whole = _holds_what_pairs_need if training.prompt_template else _says_how_it_is_asked
        self.models.setdefault(BASE_MODEL, (training.base_model, is_whole))


def _models_of(key: str, block: Block | None) -> dict[str, Model]:
    """The models of the configuration's block `key`, by their own keys."""
    models = models_in(block) if block else {}
    return {key if name == "model" else f"{key}.{name}": model for name, model in models.items()}


def _holds_a_tokenizer(snapshot: Path) -> bool:
    return any(
        (snapshot / name).is_file()
        for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
    )


def _is_never_whole(_: Path) -> bool:
    """Of a data set that was looked for in the cache before."""
    return False


def _holds_what_pairs_need(snapshot: Path) -> bool:
    """The files that build_pairs reads of the base model (`load_context`)."""
    return all((snapshot / name).is_file() for name in ("tokenizer.json", "config.json"))


def _says_how_it_is_asked(snapshot: Path) -> bool:
    """Whether these are there, and the chat template beside them."""
    templates = (name for name in TEMPLATE_FILES if name.startswith("chat_template"))
    return _holds_what_pairs_need(snapshot) and any(
        (snapshot / name).is_file() for name in templates
    )


def blocks_with_models(config: Config) -> dict[str, Block | None]:
    """The blocks of a configuration that models stand in, by key."""
    return {
        "images": config.images,
        **{
            f"image_ranking.scorers.{name}": scorer
            for name, scorer in config.image_ranking.scorers.items()
        },
        "instructions": config.instructions,
        **{
            f"responses.policy_models.{name}": policy
            for name, policy in config.responses.policy_models.items()
        },
        **{
            key_of_reward(name): reward
            for name, reward in rewards_of(config.response_ranking).items()
        },
        **{
            f"pairs.content_check.{name}": checker
            for name, checker in config.pairs.content_check.items()
        },
        "figures.embedding": config.figures.embedding,
        BASE_MODEL: config.training.base_model,
        **{key_of_released(name): model for name, model in config.evaluation.models.items()},
    }


def key_of_released(name: str) -> str:
    """The configuration key of a model of others."""
    return f"evaluation.models.{name}"


def hub_models(config: Config) -> dict[str, Model]:
    """The models of a configuration that come from the hub, by configuration key: those of the
    stages that there are.
    """
    blocks = blocks_with_models(config)
    if not config.training.needs_pairs_of_run:
        keys = (BASE_MODEL, *map(key_of_released, config.evaluation.models))
        blocks = {key: blocks[key] for key in keys}
    return {
        key: model
        for name, block in blocks.items()
        for key, model in _models_of(name, block).items()
        if not weights.is_folder(model.model)
    }


def needs_of(plan: Plan, jobs: Iterable[Job]) -> Needs:
    """What jobs need."""
    needs = Needs()
    for rule, names in jobs:
        _add_models_of(needs, plan.config, rule, names)
        _add_endpoint_of(needs, plan, rule, names)
        if rule in ("answer_questions", "score_answers"):
            in_one = evaluation.questions_together(plan)
            needs.benchmarks |= {names["benchmark"]} if "benchmark" in names else {*in_one}
        if rule in ("answer_benchmark", "answer_part"):
            asked = plan.config.evaluation.asked_together
            needs.tasks |= {names["benchmark"]} if "benchmark" in names else asked.keys()
        if rule in ("import_pairs", "check_own_pairs"):
            needs.own_pairs.add(names["own_pairs"])
    return needs


def _add_models_of(needs: Needs, config: Config, rule: str, names: Mapping[str, str]) -> None:
    match rule:
        case "generate_images":
            needs.add_models(config, "images")
        case "rank_images":
            together = config.image_ranking.scored_together
            for scorer in [names["scorer"]] if "scorer" in names else together:
                needs.add_models(config, f"image_ranking.scorers.{scorer}")
        case "write_instructions":
            needs.add_models(config, "instructions")
        case "generate_responses":
            needs.add_models(config, f"responses.policy_models.{names['policy']}")
        case "rank_responses":
            needs.add_models(config, key_of_reward(names.get("reward", "")))
        case "check_content":
            needs.add_models(config, f"pairs.content_check.{names['checker']}")
        case "embed_texts":
            needs.add_models(config, "figures.embedding")
        case "build_pairs":
            needs.add_tokenizer(config)
        case "train_dpo" | "merge_adapter":
            needs.add_models(config, BASE_MODEL)
        case "answer_benchmark" | "answer_part" | "answer_questions":
            _add_asked_model(needs, config, names["model"])
        case "convert_model":
            needs.add_models(config, BASE_MODEL)
            needs.add_models(config, key_of_released(names["model"]))


def _add_asked_model(needs: Needs, config: Config, model: str) -> None:
    if model == "base":
        needs.add_models(config, BASE_MODEL)
    released = config.evaluation.models.get(model)
    # One that is converted is made by the run: its job asks for it.
    if released and released.layout == "transformers":
        needs.add_models(config, key_of_released(model))


def _add_endpoint_of(needs: Needs, plan: Plan, rule: str, names: Mapping[str, str]) -> None:
    config = plan.config
    match rule:
        case "generate_prompts":
            own = config.generate_prompts.endpoint
            key = "generate_prompts.endpoint" if own else "instructions.endpoint"
            needs.endpoints[key] = own or config.instructions.llm_endpoint
        case "write_instructions" if config.instructions.llm_endpoint:
            needs.endpoints["instructions.endpoint"] = config.instructions.llm_endpoint
        case "generate_responses":
            asked = config.responses.policy_models[names["policy"]].llm_endpoint
            if asked:
                key = f"responses.policy_models.{names['policy']}.endpoint"
                needs.endpoints[key] = asked
        case "rank_images" if "scorer" in names:
            needs.add_endpoints(config, f"image_ranking.scorers.{names['scorer']}")
        case "rank_responses":
            needs.add_endpoints(config, key_of_reward(names.get("reward", "")))
        case "compare_picks" if config.image_ranking.judge:
            needs.endpoints["image_ranking.judge.endpoint"] = config.image_ranking.judge.endpoint
        case "answer_benchmark" | "score_benchmark" | "score_answers":
            if judge := _judge_of(plan, rule, names["benchmark"]):
                needs.endpoints[f"evaluation.benchmarks.{names['benchmark']}.judge"] = judge


def _judge_of(plan: Plan, rule: str, benchmark: str) -> Endpoint | None:
    """The judge that a rule asks of a benchmark: lmms-eval's while it answers, ours while we
    score.
    """
    if rule == "answer_benchmark":
        return evaluation.answer_job(plan, benchmark).judge
    block = plan.config.evaluation.benchmarks[benchmark]
    return block.judge if block.scorer else None


def problem_with_benchmark(name: str, block: QuestionBenchmark) -> list[str]:
    """What is wrong with the files of a benchmark of our own: a question, an image that is not
    there, a reference file.
    """
    from lib.benchmarks.questions import prompt_of, read_questions
    from lib.benchmarks.registry import load_questions_benchmark
    from lib.data.image_files import check_whole

    files = [
        file
        for path in map(Path, block.reference)
        for file in (path.rglob("*") if path.is_dir() else [path])
    ]
    try:
        benchmark = load_questions_benchmark(block.scorer)
        for question in read_questions(benchmark, block.questions, block.images):
            prompt_of(question, block.prompt or benchmark.form.prompts)
            source = question.image or BytesIO(question.embedded or b"")
            name_of_image = f" {question.image}" if question.image else ""
            check_whole(source, f"{question.where}: its image{name_of_image} is", decode=False)
        if sum(file.stat().st_size for file in files) <= READ_AT_ONCE:
            benchmark.read_reference(*map(Path, block.reference))
    except UserError as error:
        return [f"evaluation.benchmarks.{name}: {error}"]
    return []


def check_writable(folder: Path) -> None:
    """Raises a UserError if no file can be written into a folder, which is made if need be."""
    with mendable_storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _check_endpoint(endpoint: Endpoint | None) -> None:
    if endpoint is None:
        raise UserError(
            "there is none, and `instructions` has none in use either. Add"
            " `generate_prompts.endpoint`."
        )
    check_endpoint(endpoint)


def check_folder(model: Model, is_whole: IsWhole) -> None:
    """Raises a UserError if a model's folder lacks files that its job loads."""
    folder = weights.folder_of(model.model)
    problem = (
        model.problem_with_files(folder)
        if is_whole is weights.holds_weights
        else problem_with_any(folder, TOKENIZERS, "tokenizer")
    )
    if problem:
        raise UserError(
            f"`model`: the folder '{model.model}' cannot be loaded: {problem}. Get the model anew,"
            " or name another one."
        )


def _each(*checks: Callable[[], object]) -> None:
    for check in checks:
        check()


def _look_for(check: Callable[[], object]) -> UserError | None:
    try:
        check()
    except UserError as error:
        return error
    return None


def _topics_without_prompts(plan: Plan, jobs: Sequence[Job]) -> list[str]:
    """The topics whose prompts an LLM has yet to write, where jobs are to work with prompts."""
    if all(rule in PROMPT_RULES for rule, _ in jobs):
        return []
    return (
        []
        if not plan.makes_pairs
        else [
            f"{plan.prompts_file(topic)}: there are no prompts yet. Write some, one a line, or have"
            " them written (target `prompts`); or take the topic out of `topics`."
            for topic in plan.config.topics
            if topic not in plan.topics
        ]
    )


def check_run(
    plan: Plan,
    jobs: Sequence[Job],
    *,
    may_be_out_of_reach: bool = False,
    where: Callable[[str], str] = lambda _: "",
) -> list[str]:
    """Raises one UserError with all that would stop these jobs later: keys, endpoints, hub models
    out of reach, model folders that are not whole, files of benchmarks.

    `may_be_out_of_reach`: in a dry run, which changes nothing, servers that cannot be reached from
    this machine are no errors; gives what is to be said of them. `where`: the file and the line of
    a key of the configuration, as a message begins.
    """
    needs = needs_of(plan, jobs)
    checks: dict[str, Callable[[], object]] = {
        key: partial(_check_endpoint, endpoint) for key, endpoint in needs.endpoints.items()
    }
    for key, (model, is_whole) in needs.models.items():
        if not weights.is_folder(model.model):
            checks[key] = partial(weights.check_access, model.model, model.revision, is_whole)
            continue
        checks[key] = partial(check_folder, model, is_whole)
        if key == BASE_MODEL and plan.config.training.prompt_template is None:
            template = partial(own_template, weights.folder_of(model.model))
            checks[key] = partial(_each, checks[key], template)
    for name in needs.own_pairs:
        if not (pairs := plan.own_pairs[name]).is_readable:
            key = own_pairs.key_of(plan, name)
            checks[key] = partial(
                weights.check_access, pairs.source, pairs.revision, _is_never_whole, "dataset"
            )
    if not may_be_out_of_reach:
        checks["results"] = partial(check_writable, plan.config.root)
        if any(rule == "add_prompts" for rule, _ in jobs):
            checks["prompts"] = partial(check_writable, Path(plan.config.prompts))
    if "images" in checks:
        checks["images"] = partial(_each, checks["images"], plan.config.images.check_before_run)
    if plan.config.publish.confirm and any(rule == "publish" for rule, _ in jobs):
        checks["publish.confirm"] = token_of
    with ThreadPoolExecutor(THREADS) as threads:
        keys = sorted(checks)
        found = dict(zip(keys, threads.map(_look_for, map(checks.__getitem__, keys)), strict=True))
    told = [
        f"{where(key)}{key}: {error}"
        for key, error in found.items()
        if may_be_out_of_reach and isinstance(error, OutOfReachError)
    ]
    problems = [f"{where(key)}{key}: {error}" for key, error in found.items() if error]
    problems += _topics_without_prompts(plan, jobs)
    problems += problems_with_sizes(plan, {rule for rule, _ in jobs})
    for name in sorted(needs.own_pairs):
        problems += own_pairs.problems_with(plan, name)
    for name in sorted(needs.benchmarks):
        problems += problem_with_benchmark(name, evaluation.question_sets(plan)[name])
    for name in sorted(needs.tasks):
        found_wrong = problems_with_task(evaluation.tasks(plan)[name])
        problems += [f"evaluation.benchmarks.{name}: {problem}" for problem in found_wrong]
    if problems := [problem for problem in problems if problem not in told]:
        raise UserError("\n".join([*problems, *told]))
    return told
