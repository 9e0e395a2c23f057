"""What a configuration needs from the hub: models and benchmarks' data sets, each at its revision,
and which of their files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lib import weights
from lib.benchmarks.lmms_eval.tasks import ONE_SPLIT, hub_data_set
from lib.blocks import Model
from lib.config.evaluation import LLAVA_WEIGHTS, TaskBenchmark
from lib.config.run import Config
from lib.errors import UserError
from lib.head.preflight import hub_models
from lib.models.image_scorers.image_reward import TOKENIZER_FILES
from lib.text_embedding import FILES


@dataclass(frozen=True)
class Download:
    """A hub repository at a revision.

    needed_by   the configuration's key
    also, only  which of its files, as in `weights.fetch`
    or_else     files that are needed where the repository has no safetensors
    """

    repository: str
    revision: str
    kind: weights.Kind
    needed_by: str
    also: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    or_else: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        """Whether the hub cache has its files. The hub is not asked."""
        return weights.is_whole(self.repository, self.revision, self.also, self.only, self.kind)

    def files(self) -> list[Any]:
        """Its files by the hub, as `weights.list_files` has them. Errors: UserError."""
        files = self._list(self.also)
        if self.or_else and not any(file.filename.endswith(".safetensors") for file in files):
            return self._list((*self.also, *self.or_else))
        return files

    def _list(self, also: tuple[str, ...]) -> list[Any]:
        return weights.list_files(self.repository, self.revision, also, self.only, self.kind)

    def fetch(self, files: list[Any]) -> None:
        """Fetches its files into the hub cache. Errors: UserError."""
        names = {file.filename for file in files}
        also = (*self.also, *(name for name in self.or_else if name in names))
        weights.download(self.repository, self.revision, also, self.only, self.kind)


def downloads(config: Config) -> tuple[list[Download], list[str]]:
    """All that a configuration needs from the hub, what it needs twice once; and of which tasks the
    data sets cannot be told, each with the reason.
    """
    found: dict[Any, Download] = {}
    data_sets, problems = _data_sets(config)
    for download in (*_models(config), *data_sets, *_own_pairs(config)):
        where = (download.kind, download.repository, download.revision, download.only)
        found.setdefault(where, download)
    return list(found.values()), problems


def _models(config: Config) -> Iterator[Download]:
    for key, model in hub_models(config).items():
        yield Download(model.model, model.revision, "model", key, **_files_of(key, model, config))


def _files_of(key: str, model: Model, config: Config) -> dict[str, Any]:
    """Which files of a model its job fetches, where these are not all."""
    if key == "figures.embedding":
        return {"only": FILES}
    if getattr(model, "layout", "") == "llava":
        return {"also": LLAVA_WEIGHTS}
    if not key.startswith("image_ranking.scorers."):
        return {}
    if key.endswith(".tokenizer") and model not in list[object](
        config.image_ranking.scorers.values()
    ):
        return {"only": TOKENIZER_FILES}
    if getattr(model, "kind", "") == "image-reward":
        return {"also": ("ImageReward.pt",)}
    return {"or_else": ("pytorch_model.bin",)}


def _own_pairs(config: Config) -> Iterator[Download]:
    for name, experiment in config.training.experiments.items():
        if (pairs := experiment.pairs) and pairs.is_on_hub:
            key = f"training.experiments.{name}.pairs"
            yield Download(pairs.source, pairs.revision, "dataset", key)


def _data_sets(config: Config) -> tuple[list[Download], list[str]]:
    found, problems = [], []
    for name, block in config.evaluation.benchmarks.items():
        if isinstance(block, TaskBenchmark) and not block.data:
            key = f"evaluation.benchmarks.{name}"
            try:
                data_set = hub_data_set(block.task)
            except UserError as error:
                problems.append(f"{key}: which data set it reads is not known: {error}")
                continue
            split = ONE_SPLIT.get(block.task)
            only = ("README.md", *split.values()) if split else None
            revision = block.data_revision or "main"
            found.append(Download(data_set, revision, "dataset", key, only=only))
    return found, problems
