"""Where a model comes from: a folder, or a pinned revision of a hub repository. Nothing here
imports torch.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lib.contents import digest_files, files_under
from lib.errors import UserError, cannot_be_reached
from lib.files import digest, expand
from lib.model_files import WEIGHTS

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

#: What a folder must hold to be a model; the diffusers, transformers and ImageReward layouts.
MODEL_MARKS = ("model_index.json", "config.json", "ImageReward.pt")
#: Makes transformers load another model in a folder's place.
ADAPTER = "adapter_config.json"
#: Never fetched: weights that are not safetensors, unless asked for by name, and other frameworks'
#: files; archives of pictures (ImageReward's), and what pipelines' repositories hold a second time
#: and nothing here reads, often half of them: parts in single files, weights in half precision.
LEFT_OUT = (
    *("*.bin", "*.h5", "*.msgpack", "*.onnx", "*.pth", "*.pt", "*.ckpt", "*.gguf"),
    *("*.zip", "text_encoders/*", "*.fp16.safetensors", "*.non_ema.safetensors"),
    *("sd_xl_*.safetensors", "v1-5-pruned*.safetensors", "flux1-*.safetensors"),
)
Kind = Literal["model", "dataset"]


def is_folder(model: str) -> bool:
    """Whether `model` names a folder (`./x`, `/x`, `~/x`, `$X/x`, or one that exists) rather than a
    hub repository (`owner/name`).
    """
    return not HUB_ID.fullmatch(model) or Path(model).is_dir()


def folder_of(model: str) -> Path:
    """The folder that a model's name is. Errors: ValueError if it cannot be expanded."""
    return Path(expand(model))


def problem_with_folder(model: str) -> str | None:
    """What is wrong with `model` if it names a folder that is missing or holds no model; None if
    nothing is, or it is on the hub.
    """
    if is_folder(model):
        try:
            folder = folder_of(model)
        except ValueError as error:
            return f"'{model}': {error}."
        if not folder.is_dir():
            return (
                f"there is no folder '{model}', and it is not the name of a hub repository"
                " (owner/name) either. Correct it; those of `demo/models` are built by `make"
                " demo-models`."
            )
        if not any((folder / mark).is_file() for mark in MODEL_MARKS):
            return (
                f"the folder '{model}' holds no model (none of {', '.join(MODEL_MARKS)})."
                " Correct it."
            )
        if (folder / ADAPTER).is_file():
            return (
                f"the folder '{model}' holds {ADAPTER}: loading would take the weights of the model"
                " that this names, not its own. Merge the adapter, or take the file away."
            )
    return None


@cache
def folder_identity(folder: str) -> str:
    """What a model folder contains, as a digest: the names, sizes and contents of all files that
    loading can read, through links.
    """
    root = folder_of(folder)
    files = [path for path in files_under(root) if _is_of_the_model(path)]
    contents = {
        path.relative_to(root).as_posix(): [path.stat().st_size, content]
        for path, content in zip(files, digest_files(files, root), strict=True)
    }
    return "folder-" + digest(contents)[:16]


def _is_of_the_model(path: Path) -> bool:
    """Whether loading can read a file. Hidden ones (`.gitattributes`) it does not, but for weights,
    which an index may name.
    """
    return not path.name.startswith(".") or path.suffix in WEIGHTS


def identity(model: str, revision: str) -> str:
    """What determines a model's weights: the folder's digest, or the commit of a hub repository.
    Called in jobs: a branch or a tag may have to be resolved over the network.
    """
    if is_folder(model):
        return folder_identity(model)
    return commit_of(model, revision)


def commit_of(repository: str, revision: str, kind: Kind = "model") -> str:
    """The commit of a hub repository's revision, resolved from the local hub cache first and over
    the network otherwise; without either it is the one that the cache holds alone. A commit needs
    none of it.
    """
    if COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}"
    reference = folder / "refs" / revision
    if reference.is_file():
        return reference.read_text().strip()
    try:
        info = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=30)
    except (HfHubHTTPError, OfflineModeIsEnabled, HTTPError, OSError) as error:
        if len(cached := list((folder / "snapshots").glob("*"))) == 1:
            return cached[0].name
        raise _not_reachable(repository, revision, error) from error
    return str(info.sha)


def fetch(
    model: str, revision: str, also: Sequence[str] = (), only: Sequence[str] | None = None
) -> Path:
    """The folder with a model's files: itself, or the hub's snapshot, fetched into the hub cache if
    it is not there.

    `also`: file names to fetch although their format is otherwise left out (ImageReward's
    `ImageReward.pt`); `only`: nothing but these.
    """
    return folder_of(model) if is_folder(model) else download(model, revision, also, only)


def download(
    repository: str,
    revision: str,
    also: Sequence[str] = (),
    only: Sequence[str] | None = None,
    kind: Kind = "model",
) -> Path:
    """The hub's snapshot of a repository in the hub cache. What is missing there is fetched, and
    what was broken off goes on. `also`, `only`: as in `fetch`; all files of a data set are fetched.
    """
    return Path(_snapshot(repository, revision, also, only, kind))


def list_files(
    repository: str,
    revision: str,
    also: Sequence[str] = (),
    only: Sequence[str] | None = None,
    kind: Kind = "model",
) -> list[Any]:
    """The files that `download` would have in the hub cache, by the hub: of each `filename`,
    `file_size` in bytes, and whether it `is_cached`.
    """
    return list(_snapshot(repository, revision, also, only, kind, dry_run=True))


def is_whole(
    repository: str,
    revision: str,
    also: Sequence[str] = (),
    only: Sequence[str] | None = None,
    kind: Kind = "model",
) -> bool:
    """Whether the hub cache has all that `download` would fetch, by the list of files that it keeps
    with a snapshot; where it keeps none, whether it has the snapshot. The hub is not asked.
    """
    try:
        _snapshot(repository, revision, also, only, kind, local_files_only=True)
    except UserError:
        return False
    return True


def _snapshot(
    repository: str,
    revision: str,
    also: Sequence[str],
    only: Sequence[str] | None,
    kind: Kind,
    **options: Any,
) -> Any:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        DryRunError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    left_out = [
        pattern for pattern in LEFT_OUT if not any(Path(name).match(pattern) for name in also)
    ]
    try:
        return snapshot_download(
            repository,
            repo_type=kind,
            revision=revision,
            ignore_patterns=left_out if kind == "model" else None,
            allow_patterns=only,
            **options,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        cause = error.__cause__ if isinstance(error, DryRunError) else None
        reason = cause if isinstance(cause, Exception) else error
        raise _not_reachable(repository, revision, reason) from error


def cached_folder(repository: str, revision: str, kind: Kind = "model") -> Path | None:
    """The folder of a revision in the hub cache; None if it is not there. It may hold some of the
    files only.
    """
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}"
    reference = cached / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = cached / "snapshots" / commit
    return folder if folder.is_dir() else None


def local_folder(model: str, revision: str) -> Path | None:
    """The folder of a model that is one, or is in the hub cache; None where its files are not on
    this machine.
    """
    return folder_of(model) if is_folder(model) else cached_folder(model, revision)


def config_in(folder: Path) -> Mapping[str, Any]:
    """What a model folder's config.json says; nothing where it has none that can be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def kind_by_architecture(values: Mapping[str, Any], endings: Mapping[str, str]) -> str | None:
    """The kind of a model by how the names of its classes in config.json end; None where the model
    is not on this machine, or its file says none of these. `values`: of a configuration's block.
    """
    model, revision = values.get("model"), values.get("revision", "main")
    if not isinstance(model, str) or not isinstance(revision, str):
        return None
    folder = local_folder(model, revision)
    names = (config_in(folder).get("architectures") or []) if folder else []
    found = (endings[end] for name in names for end in endings if str(name).endswith(end))
    return next(found, None)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says that the hub is not to be asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _not_reachable(model: str, revision: str, error: Exception) -> UserError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return UserError(
            f"{model}: the hub refuses access (HTTP {status}). If the model is gated, accept its"
            " terms on its page and put a token into the environment variable HF_TOKEN."
        )
    if status == 404:
        return UserError(
            f"{model}: the hub has no such repository, or no revision '{revision}' of it. Correct"
            " its name or its revision in the configuration."
        )
    message = (
        f"{model} at revision '{revision}': neither in the local hub cache nor reachable"
        f" ({type(error).__name__}). Fetch it on a machine with network access first (`make"
        " fetch`), or give a folder in its place."
    )
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return UserError(message)
    return cannot_be_reached(constants.ENDPOINT, message)


def holds_weights(snapshot: Path) -> bool:
    """Whether there are weights in a snapshot of the hub cache, which may hold no more of a model
    than its tokenizer.
    """
    return any(path.suffix in WEIGHTS for path in snapshot.rglob("*"))


def check_access(
    model: str,
    revision: str,
    is_whole: Callable[[Path], bool] = holds_weights,
    kind: Kind = "model",
) -> None:
    """A UserError if a hub model, or data set, is neither in the local cache nor fetchable with the
    token at hand (a gated one without its token). `is_whole`: whether a snapshot in the cache holds
    what is needed of it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if (snapshot := cached_folder(model, revision, kind)) and is_whole(snapshot):
        return
    try:
        HfApi().auth_check(model, repo_type=kind)
    except (HfHubHTTPError, OfflineModeIsEnabled, HTTPError, OSError) as error:
        raise _not_reachable(model, revision, error) from error
