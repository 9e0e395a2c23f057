"""A job of one rule: what it is asked, the keys of its items, and the record of what it did."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pydantic import ValidationError

from lib import weights
from lib.blocks import Block, Model, first_mistake, models_in
from lib.errors import UserError
from lib.files import digest, write_json, write_jsonl
from lib.jobs.versions import loaded_versions
from lib.progress import log

S = TypeVar("S", bound=Block)


class Common(Block):
    """What the jobs of all rules are told: the run's folder, its device, its seed, and the share of
    failed items above which a job stops.
    """

    root: Path
    device: str
    seed: int
    max_failed_fraction: float


class NoSettings(Block):
    """For a rule that is told nothing of its own."""


@dataclass
class Record:
    """What one job did; written to `results/<run>/work/<rule>/<job>.json` and shown as a table at
    the end of a run. `versions`: of the libraries that its results were computed under, as far as
    journals say so; several of one library where they are of several sessions.
    """

    rule: str
    job: str
    retry: str
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )
    finished: str = ""
    items: int = 0
    computed: int = 0
    reused: int = 0
    failed: int = 0
    load_seconds: float = 0.0
    compute_seconds: float = 0.0
    wall_seconds: float = 0.0
    models: dict[str, str] = field(default_factory=dict)
    versions: dict[str, list[str]] | None = None
    notes: list[str] = field(default_factory=list)


def mixed_versions(versions: Mapping[str, Sequence[str]]) -> str:
    """The libraries of which there are several versions, in words; empty where there are none."""
    return ", ".join(
        f"{package} {' and '.join(several)}"
        for package, several in sorted(versions.items())
        if len(several) > 1
    )


def read_record(path: Path) -> Record | None:
    """The record in a file under `work/`; None where the file holds none, or is gone."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    needed = {"rule", "job", "retry", "computed", "finished"}
    if not isinstance(values, dict) or not needed <= values.keys():
        return None
    names = {each.name for each in fields(Record)}
    return Record(**{name: value for name, value in values.items() if name in names})


class Job(Generic[S]):
    """A job of one rule. Its record is written at the end of a `with` block that ended well:

    with Job(snakemake, GenerateImagesJob, VERSION) as job: ...
    """

    def __init__(self, snakemake: Any, settings: type[S], version: int) -> None:
        """`settings`: the block of the rule's parameters. `version`: the stage's, part of every
        key. Raise it when a change of the rule's code changes results.
        """
        self.rule: str = snakemake.rule
        self.version = version
        self.name = "/".join(snakemake.wildcards) or self.rule
        self.settings = self._validated(settings, snakemake.params.get("settings", {}))
        common = Common.model_validate(snakemake.params.common)
        self.root, self.device, self.seed = common.root, common.device, common.seed
        self.max_failed_fraction = common.max_failed_fraction
        self.work = self.root / "work" / self.rule
        self.record = Record(self.rule, self.name, retry=snakemake.params.get("retry", ""))
        self._began = time.monotonic()

    def _validated(self, settings: type[S], values: Mapping[str, Any]) -> S:
        """The settings; a UserError where they are wrong here, though they were right where the run
        began (a model's folder that this machine does not have).
        """
        try:
            return settings.model_validate(values)
        except ValidationError as error:
            key, mistake = first_mistake(error)
            raise UserError(f"{self.rule} {self.name}: `{key}`: {mistake}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.write_record()

    def key(self, **inputs: Any) -> str:
        """The key of an item: a hash of the stage, its version, the device and `inputs`, which must
        hold all that determines the result.
        """
        return digest({"rule": self.rule, "version": self.version, "device": self.device, **inputs})

    def identify(self, model: Model, name: str | None = None) -> str:
        """What determines a model's weights (`weights.identity`), put on record under its name."""
        identity = weights.identity(model.model, model.revision)
        self.record.models[name or model.model] = identity
        return identity

    def identify_all(self, block: Block) -> dict[str, str]:
        """The identities of a block's models: its own as "model", those of its fields by name."""
        return {name: self.identify(model) for name, model in models_in(block).items()}

    def note(self, text: str) -> None:
        """Puts something unusual on record (a halved batch, a dropped journal line), once, and into
        the log.
        """
        log.warning("%s %s: %s", self.rule, self.name, text)
        if text not in self.record.notes:
            self.record.notes.append(text)

    def computed_under(self, versions: Mapping[str, str]) -> None:
        """Puts the versions on record that some of the job's results were computed under; a job
        that says none was computed under what is loaded at its end.
        """
        known = self.record.versions = self.record.versions or {}
        for package, version in versions.items():
            if version not in (there := known.setdefault(package, [])):
                there.append(version)

    def count(self, items: int) -> None:
        """Puts on record that so many items were looked at, by a job that computes all of them."""
        self.record.items = self.record.computed = items

    def publish(self, path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a file of rows: one canonical JSON line each, in the given order."""
        write_jsonl(Path(path), rows)

    def write_record(self) -> None:
        """Writes what this job did. Its times are of this machine and day, which is why it stands
        under `work/`.
        """
        record = self.record
        if record.versions is None:
            self.computed_under(loaded_versions())
        if mixed := mixed_versions(record.versions or {}):
            self.note(f"its results are of several versions of libraries: {mixed}")
        record.finished = datetime.now(UTC).isoformat(timespec="milliseconds")
        record.wall_seconds = time.monotonic() - self._began
        values = {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in vars(record).items()
        }
        write_json(self.work / f"{self.name}.json", values)
        log.info(
            "%s %s: %d computed, %d reused, %d failed; loading %.1f s, computing %.1f s",
            self.rule,
            self.name,
            record.computed,
            record.reused,
            record.failed,
            record.load_seconds,
            record.compute_seconds,
        )
