"""The project's own files and its configuration, from whatever folder it is run: its Snakefile may
be named with `-s`, or be a module of another workflow.

What the configuration names is looked for in the working directory; what belongs to the project, in
the project.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.config.run import Config, load_config
from lib.errors import UserError
from lib.files import PROJECT, expand
from lib.patches import snakemake_module

CONFIG_FILE = "config.yaml"


def path(name: str) -> str:
    """A file or folder of the project: as it is called there where that is the working directory,
    so that what is made in a clone does not depend on where the clone lies.
    """
    return name if Path.cwd() == PROJECT else str(PROJECT / name)


def default_config_file(is_module: bool = False) -> str:
    """The configuration of a run that names none: `config.yaml` of the working directory, or else
    the project's, the paper's run. Where the run is a module's, the former is the other workflow's.
    """
    is_here = Path(CONFIG_FILE).is_file() and not is_module
    return CONFIG_FILE if is_here else path(CONFIG_FILE)


def with_own_prompts(
    values: Mapping[str, Any], files: Sequence[str | Path], command_line: Mapping[str, Any]
) -> dict[str, Any]:
    """A configuration's values, with the project's prompts where the user names none and the
    working directory has none. `files`, `command_line`: where the values come from; the project's
    own configuration is not the user.
    """
    is_projects = [Path(file).resolve() for file in files] == [PROJECT / CONFIG_FILE]
    by_user = "prompts" in command_line or ("prompts" in values and not is_projects)
    if by_user or Path("prompts").is_dir():
        return dict(values)
    return {**values, "prompts": path("prompts")}


def load_as_module(values: Mapping[str, Any], workflow: Any) -> Config:
    """Validates the configuration of the module that `workflow`, another one, is reading; its
    results are under the module's `prefix:`. Errors: UserError that names the module, since nobody
    can say where that workflow has the values from.
    """
    results = values.get("results", Config.model_fields["results"].default)
    try:
        placed = snakemake_module.take_prefix(workflow, expand(results))
    except (TypeError, ValueError):
        placed = results  # what is wrong with it is told below
    try:
        return load_config({**values, "results": placed}, [])
    except UserError as error:
        name = snakemake_module.module_name(workflow)
        lines = str(error).replace("--config: ", "")
        hint = (
            f"\nThese are the keys of what stands after `config:` in `module {name}:`. Give it a"
            ' block of its own in your configuration: `config: config["pds_dpo"]`.'
            if "unknown key" in lines
            else ""
        )
        raise UserError(f"module {name}: {lines}{hint}") from error
