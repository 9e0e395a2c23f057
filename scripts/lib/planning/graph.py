"""The jobs of a run as Snakemake plans them, with what each needs, also for prompts that are not
written yet.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib.config.run import Config, load_config
from lib.config.yaml_files import read_yaml
from lib.data.layouts import PromptCounts
from lib.errors import UserError
from lib.files import PROJECT
from lib.head.project import with_own_prompts
from lib.jobs.turns import TOGETHER
from lib.patches.snakemake_graph import build_graph, own_name


@dataclass(frozen=True)
class PlannedJob:
    """A job: its rule, its wildcards by name, how many GPUs it holds, its time limit at the first
    attempt in minutes (0: none), the names of the jobs that it waits for, and the wildcards of the
    jobs that it does where these are several.
    """

    rule: str
    wildcards: dict[str, str]
    gpus: int = 0
    minutes: int = 0
    needs: tuple[str, ...] = ()
    together: tuple[dict[str, str], ...] = ()

    @property
    def parts(self) -> list["PlannedJob"]:
        """The jobs that it does: itself, or several."""
        if not self.together:
            return [self]
        return [PlannedJob(self.rule, part, self.gpus, self.minutes) for part in self.together]

    @property
    def name(self) -> str:
        """Its name in the graph."""
        return _name(self.rule, self.wildcards)


def _name(rule: str, wildcards: dict[str, str]) -> str:
    return "/".join((rule, *wildcards.values()))


def read_configuration(files: list[Path]) -> tuple[dict[str, Any], Config]:
    """The configuration that `snakemake --configfile FILES` would have: its values, and them
    validated. Errors: UserError.
    """
    values: dict[str, Any] = {}
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: there is no such file. Correct --configfile")
        _update(values, read_yaml(file))
    values = with_own_prompts(values, files, {})
    return values, load_config(values, files)


def _update(values: dict[str, Any], more: dict[str, Any]) -> None:
    """Merges a configuration into another one as Snakemake does: blocks key by key, anything else
    as a whole.
    """
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _update(values[key], value)
        else:
            values[key] = value


def made_up_prompts(config: Config, folder: Path, per_topic: int) -> None:
    """Writes a prompts folder of `per_topic` lines a topic."""
    folder.mkdir()
    for topic in config.topics:
        lines = [
            f"A prompt on {topic} that is not written yet, number {number}\n"
            for number in range(per_topic)
        ]
        (folder / f"{topic}.txt").write_text("".join(lines), encoding="utf-8")


def plan_jobs(
    values: dict[str, Any], config: Config, per_topic: int | None
) -> tuple[list[PlannedJob], PromptCounts, list[str]]:
    """All jobs of the run from its beginning, whatever is made already; the prompts in each shard;
    and the names of all rules.

    `per_topic`: plan for so many prompts a topic, as if they were written; None: for those that
    are. Data sets that are larger than the prompts allow are left out, as in the run.
    """
    with tempfile.TemporaryDirectory(prefix="plan-") as name:
        scratch = Path(name)
        prompts = Path(config.prompts).absolute()
        if per_topic is not None:
            prompts = scratch / "prompts"
            made_up_prompts(config, prompts, per_topic)
        values = {
            **values,
            "prompts": str(prompts),
            "results": str(scratch / "results"),
        }
        # A file has nothing for prompts that are not written; an endpoint's jobs need what a file's
        # do.
        endpoint = {
            "backend": "openai",
            "endpoint": {"base_url": "http://localhost/v1", "model": "none"},
        }
        if config.instructions.backend == "file":
            values["instructions"] = endpoint
        values["responses"] = config.responses.model_dump(mode="json")
        for name, policy in config.responses.policy_models.items():
            if policy.backend == "file":
                values["responses"]["policy_models"][name] = {
                    **endpoint,
                    "samples": policy.samples,
                }
        (scratch / "config.yaml").write_text(
            yaml.safe_dump(values, allow_unicode=True), encoding="utf-8"
        )
        return _graph(scratch / "config.yaml")


def _planned(job: Any, needs: Iterable[str]) -> PlannedJob:
    gpus, minutes = (job.resources.get(name, 0) for name in ("gpu", "runtime"))
    return PlannedJob(
        own_name(job.rule),
        dict(job.wildcards_dict),
        int(gpus or 0),
        int(minutes or 0),
        tuple(sorted(needs)),
        tuple(part["wildcards"] for part in job.params.get(TOGETHER, ())),
    )


def _graph(configfile: Path) -> tuple[list[PlannedJob], PromptCounts, list[str]]:
    """The jobs that Snakemake would run, by its own interface, the prompts that the Snakefile read
    for them, and all rules that do something; nothing is run.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

    printed = io.StringIO()
    before = logging.getLogger().level
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=True)) as api,
        ):
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=1_000_000),
                config_settings=ConfigSettings(configfiles=[configfile]),
                snakefile=PROJECT / "Snakefile",
            )
            planned = build_graph(workflow)
            jobs = [job for job in planned.dag.jobs if job.rule.script]
            rules = list(dict.fromkeys(own_name(each) for each in planned.rules if each.script))
            # Read by this process once: a million prompts take it half a minute.
            shards = planned.globals["PLAN"].shards
            counts = PromptCounts({place: len(shard.prompts) for place, shard in shards.items()})
            names = {
                job: _name(own_name(job.rule), dict(job.wildcards_dict)) for job in planned.dag.jobs
            }
            needed = planned.dag.dependencies
            planned_jobs = [_planned(job, map(names.__getitem__, needed[job])) for job in jobs]
            return planned_jobs, counts, rules
    except (Exception, SystemExit) as error:
        raise UserError(
            f"the workflow could not be planned: {error}\n{printed.getvalue().strip()}"
        ) from error
    finally:
        logging.getLogger().setLevel(before)
