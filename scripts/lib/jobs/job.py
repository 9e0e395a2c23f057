"""A job of one rule: what it is asked, the keys of its items, and the record of what it did."""

import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pydantic import ValidationError

from lib import weights
from lib.blocks import Block, Model, endpoints_in, first_mistake, models_in
from lib.errors import UserError, printable
from lib.files import digest, digest_of_file, files_below, sync, write_json, write_jsonl
from lib.jobs.kept import is_sealed
from lib.jobs.published import refuse_changed_file
from lib.jobs.record import Record
from lib.jobs.stopwatch import Stopwatch
from lib.jobs.versions import loaded_versions
from lib.progress import log

S = TypeVar("S", bound=Block)


#: Environment variable with the folders of runs whose items are taken over. It is no parameter of
#: the rules: naming a run there changes no result, and is to make no job run.
REUSE_FROM = "PDS_DPO_REUSE_FROM"
#: Stands for the topic in the names of jobs and files over all topics. No topic begins so.
ALL_TOPICS = "_all"


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


def mixed_versions(versions: Mapping[str, Sequence[str]]) -> str:
    """The libraries of which there are several versions, in words; empty where there are none."""
    return ", ".join(
        f"{package} {' and '.join(several)}"
        for package, several in sorted(versions.items())
        if len(several) > 1
    )


def paths_in(files: Any) -> list[Path]:
    """The paths of a rule's input or output: a path, several, or an object with some in each
    attribute.
    """
    if isinstance(files, str | Path):
        return [Path(files)]
    parts = files if isinstance(files, Iterable) else vars(files).values()
    return [path for part in parts for path in paths_in(part)]


def _may_share_items(own: Path, other: Path) -> bool:
    """Whether a journal may hold items of another one of its rule. Two shards of the same division
    over all topics have none in common.
    """
    folders = {own.parent.name, other.parent.name}
    if folders == {ALL_TOPICS}:
        number, _, count = own.name.partition("-of-")
        other_number, _, other_count = other.name.partition("-of-")
        return number == other_number or count != other_count
    return len(folders) == 1 or ALL_TOPICS in folders or own.name == other.name


def _likelihood(own: Path, other: Path) -> tuple[bool, bool]:
    """What sorts the journals first that are likely to hold items of another one; both from their
    rule's folder on.
    """
    return other != own, other.parts[:-2] != own.parts[:-2]


def digest_of_params(params: Mapping[str, Any]) -> str:
    """A digest of a rule's parameters: of all that decides what its job makes, besides its inputs.
    The folder of the run is not part of it.
    """
    asked = dict(params)
    asked["common"] = {
        name: value for name, value in asked.get("common", {}).items() if name != "root"
    }
    return digest(asked)[:16]


class Job(Generic[S]):
    """A job of one rule. What it reads of the run is held against the records of the jobs that
    published it; its own record is written at the end of a `with` block that ended well:

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
        params = dict(snakemake.params.items())
        self.record = Record(self.rule, self.name, asked=digest_of_params(params))
        #: "topic/shard" -> the digest of its prompts, of the shards that are read.
        self.prompts: dict[str, str] = dict(params.get("prompts") or {})
        self._inputs = paths_in(getattr(snakemake, "input", ()))
        self._outputs = paths_in(getattr(snakemake, "output", ()))
        #: What it failed of, where that is to keep no other job of its process from ending well.
        self.failure = ""
        #: The job's own seconds, without those of others in its process.
        self.clock = Stopwatch()

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
        for path in self._inputs:
            refuse_changed_file(self.root, path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and not self.failure:
            self._digest_outputs()
            self.write_record()

    def fail(self, error: UserError) -> None:
        """Has the job leave no record. Only the message is kept: the exception holds what it met on
        its way, such as a model.
        """
        self.failure = str(error)

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
        """The identities of a block's models: its own as "model", those of its fields by name. Its
        endpoints are put on record.
        """
        for name, endpoint in endpoints_in(block).items():
            self.record.models[name] = endpoint.model
        return {name: self.identify(model) for name, model in models_in(block).items()}

    def runs(self) -> list[Path]:
        """The folders of this run and of those in `REUSE_FROM`."""
        named = os.environ.get(REUSE_FROM, "")
        return [self.root, *map(Path, filter(None, named.split(os.pathsep)))]

    def folders_of_runs(self) -> list[Path]:
        """The rule's folders under work/, of this run and of those in `REUSE_FROM`."""
        return [(root / "work" / self.rule).absolute() for root in self.runs()]

    def journals_elsewhere(self, own: Path) -> Iterator[tuple[Path, Path]]:
        """Journals that may hold items of a journal of this job, and the folders of their runs: of
        the topic's other shards (there may have been fewer or more, or shards over all topics), of
        the benchmark's other models (one may have had another name), and of the runs in
        `REUSE_FROM`. The likeliest first.
        """
        relative = own.relative_to(self.work)
        for root in self.runs():
            folder = root / "work" / self.rule
            alike = [
                path
                for path in sorted(folder.rglob(f"*{''.join(own.suffixes[-2:])}"))
                if _may_share_items(own, path)
            ]
            alike.sort(key=lambda path: _likelihood(relative, path.relative_to(folder)))
            yield from ((root, path) for path in alike if path != own)

    def kept_elsewhere(self, pattern: str) -> tuple[Path, Path] | None:
        """A whole folder of finished results of this rule, be it of another job of this run or of a
        run in `REUSE_FROM`, and the folder of its run. `pattern`: of its path, from the rule's
        folder under work/ on.
        """
        for root in self.runs():
            for folder in sorted((root / "work" / self.rule).glob(pattern)):
                if is_sealed(folder):
                    return root, folder
        return None

    def took_over(self, source: Path, items: int) -> None:
        """Puts on record that so many items were found in a run that no job of this rule and name
        had computed here.
        """
        name = source.as_posix()
        self.record.taken_over[name] = self.record.taken_over.get(name, 0) + items

    def note(self, text: str) -> None:
        """Puts something unusual on record (a halved batch, a dropped journal line), once, and into
        the log.
        """
        text = printable(text)
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

    def also_publishes(self, paths: Iterable[Path], known: MutableMapping[str, str]) -> None:
        """Puts files and folders on record that the job published beside its rule's outputs, which
        a rule cannot name where it does not know how many there will be.

        `known`: the sha256 (hex) of files in them that need not be read for it, nor waited for, by
        their names from the run's folder on. Those of all other files are added.
        """
        self.record.files = known
        for path in paths:
            if path.is_dir():
                self._outputs.append(path)
            elif path not in self._outputs:
                self.record.beside[self._name_of(path)] = digest_of_file(path)

    def _digest_outputs(self) -> None:
        """Puts the sha256 (hex) of each published file on record, which is on the disk from here
        on.
        """
        for output in self._outputs:
            name, path = self._name_of(output), str(output)
            if output.is_dir():
                self.record.folders.append(name)
            folders = {str(output.parent)}
            for file in files_below(path):
                folders.add(file.rpartition(os.sep)[0])
                inside = name + file.removeprefix(path)
                if inside not in self.record.files:
                    self.record.files[inside] = digest_of_file(Path(file))
                    sync(Path(file))
            for folder in sorted(folders):
                sync(Path(folder))

    def _name_of(self, file: Path) -> str:
        inside = file.is_relative_to(self.root)
        return (file.relative_to(self.root) if inside else file).as_posix()

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
        record.wall_seconds = self.clock.seconds()
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
