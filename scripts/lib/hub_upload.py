"""Puts a folder's files into a repository of the hub: what is there already is not sent again, what
is no longer among them goes, and all of it is one commit.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lib.errors import UserError, cannot_be_reached
from lib.files import digest_of_file
from lib.weights import Kind

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
BRANCH = "main"
#: What may be otherwise a little later: somebody's commit in between, a limit of requests, a server
#: that fails.
PASSING = (409, 412, 429, 500, 502, 503, 504)
TRIES = 4
#: Seconds before the next try, doubled each time, where the hub names none.
FIRST_WAIT = 2.0
LONGEST_WAIT = 300.0


@dataclass(frozen=True)
class Upload:
    """Files for a repository, by their names in it; `formerly`: those put there before."""

    repository: str
    kind: Kind
    private: bool
    files: Mapping[str, Path]
    formerly: Collection[str] = ()

    @property
    def name(self) -> str:
        """The repository as addresses have it."""
        return f"datasets/{self.repository}" if self.kind == "dataset" else self.repository


class Changes(NamedTuple):
    """What a commit would change, behind which commit."""

    head: str
    added: list[str]
    removed: list[str]


class Uploaded(NamedTuple):
    """What became of an upload: the commit that has it, and what that changed."""

    revision: str
    added: int
    removed: int


def token_of(environment: Mapping[str, str] = os.environ) -> str:
    """The token of the environment. Errors: UserError without one."""
    if token := environment.get("HF_TOKEN", "").strip():
        return token
    raise UserError(
        "nothing can be published without a token. Make one that may write on the hub's page of"
        " tokens, and `export HF_TOKEN=...`."
    )


def prepare(api: "HfApi", wanted: Upload) -> None:
    """Makes the repository if there is none. Errors: UserError where nothing could be put into it,
    which is then known before anything is sent elsewhere.
    """
    _tried(wanted, partial(_make_repository, api, wanted))


def upload(api: "HfApi", wanted: Upload) -> Uploaded:
    """Has the repository, which is there, hold the files. After whatever stops it, calling it again
    goes on: what was sent is not sent again. Errors: UserError.
    """
    found: list[Changes] = []
    revision = _tried(wanted, partial(_commit_changes, api, wanted, found))
    return Uploaded(revision, len(found[0].added), len(found[0].removed))


def _tried(wanted: Upload, attempt: Callable[[], T]) -> T:
    """The result of an attempt that is made again while what stops it may pass. Errors:
    UserError.
    """
    with said_errors(wanted):
        for number in range(1, TRIES):
            try:
                return attempt()
            except Exception as error:
                if not _may_pass(error):
                    raise
                time.sleep(_seconds_to_wait(error, number))
        return attempt()


def _commit_changes(api: "HfApi", wanted: Upload, found: list[Changes]) -> str:
    """Commits what is not there yet, whatever an attempt before has done; `found` gets what that
    is.
    """
    found.append(changes_of(api, wanted))
    return _commit(api, wanted, found[-1])


def _make_repository(api: "HfApi", wanted: Upload) -> None:
    """Errors: UserError where a public one is to be private."""
    api.create_repo(wanted.repository, repo_type=wanted.kind, private=wanted.private, exist_ok=True)
    if wanted.private and not api.repo_info(wanted.repository, repo_type=wanted.kind).private:
        raise UserError(
            f"{wanted.name}: this repository is public, and `publish.private` is true. Make it"
            " private on its page, name another one, or set `publish.private: false`."
        )


def changes_of(api: "HfApi", wanted: Upload) -> Changes:
    """What is to be sent, and what is to go: files that were put there before, or are in a folder
    of ours, and are not ours any more. What others put beside these stays.
    """
    from huggingface_hub.hf_api import RepoFile

    head = str(api.repo_info(wanted.repository, repo_type=wanted.kind).sha)
    tree = api.list_repo_tree(
        wanted.repository, repo_type=wanted.kind, revision=head, recursive=True
    )
    there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    folders = {name.partition("/")[0] for name in wanted.files if "/" in name}
    return Changes(
        head,
        [
            name
            for name, path in sorted(wanted.files.items())
            if name not in there or not _is_same(path, there[name])
        ],
        sorted(
            name
            for name in there.keys() - wanted.files.keys()
            if name in wanted.formerly or ("/" in name and name.partition("/")[0] in folders)
        ),
    )


def _is_same(path: Path, remote: Any) -> bool:
    """Whether a file is what the hub has under its name, by the digest that the hub tells."""
    if path.stat().st_size != remote.size:
        return False
    if remote.lfs:
        return digest_of_file(path) == str(remote.lfs.sha256)
    content = path.read_bytes()
    git_id = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return git_id.hexdigest() == str(remote.blob_id)


def _commit(api: "HfApi", wanted: Upload, changes: Changes) -> str:
    """Commits the changes; the commit that has all, which is the last one where there are none."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if not changes.added and not changes.removed:
        return changes.head
    operations = [
        *(CommitOperationAdd(name, str(wanted.files[name])) for name in changes.added),
        *(CommitOperationDelete(name, is_folder=False) for name in changes.removed),
    ]
    commit = api.create_commit(
        wanted.repository,
        operations,
        commit_message=_message(changes),
        repo_type=wanted.kind,
        revision=BRANCH,
        parent_commit=changes.head,
    )
    return str(commit.oid)


def _message(changes: Changes) -> str:
    removed = f", {len(changes.removed)} removed" if changes.removed else ""
    return f"{len(changes.added)} files new or changed{removed}"


def _status_of(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _may_pass(error: Exception) -> bool:
    from huggingface_hub.errors import HTTPError

    status = _status_of(error)
    return status in PASSING if status else isinstance(error, HTTPError | OSError)


def _seconds_to_wait(error: Exception, attempt: int) -> float:
    headers = getattr(getattr(error, "response", None), "headers", {})
    told = str(headers.get("retry-after", ""))
    seconds = float(told) if told.isdigit() else FIRST_WAIT * 2 ** (attempt - 1)
    return min(seconds, LONGEST_WAIT)


AGAIN = "Run the same command again: what was sent is not sent again"
_SAID = {
    401: "the hub does not accept the token (HTTP 401). Put one that may write into HF_TOKEN.",
    403: (
        "the token may not write here (HTTP 403). Take one with write access to this repository, or"
        " another name under `publish`."
    ),
    404: "the hub has no such repository or branch (HTTP 404). Correct its name under `publish`.",
    409: f"somebody else is changing this repository (HTTP 409). {AGAIN}.",
    412: f"somebody else has changed this repository meanwhile (HTTP 412). {AGAIN}.",
    413: (
        "the hub takes no files as large (HTTP 413). Publish a smaller data set, or pictures as"
        " WebP (`images.format`); look at your storage on the hub."
    ),
    429: f"the hub takes no more requests for now (HTTP 429). Wait for some minutes. {AGAIN}.",
}


@contextmanager
def said_errors(wanted: Upload) -> Iterator[None]:
    """Turns what the hub's library raises into a UserError that says how to mend it."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        status = _status_of(error) or 0
        said = _SAID.get(status, f"the hub fails (HTTP {status}). {AGAIN}.")
        if status < 500 and status not in _SAID:
            reason = _without_token(error.server_message or "no reason")
            said = f"the hub refuses it (HTTP {status}: {reason})."
        raise UserError(f"{wanted.name}: {said}") from error
    except OfflineModeIsEnabled as error:
        raise UserError(f"{wanted.name}: HF_HUB_OFFLINE is set. Unset it to publish.") from error
    except (HTTPError, OSError) as error:
        raise cannot_be_reached(
            _endpoint(),
            f"{wanted.name}: the connection to {_endpoint()} failed ({type(error).__name__})."
            f" {AGAIN}.",
        ) from error
    except RuntimeError as error:  # hf_xet's, which packs large files
        raise UserError(
            f"{wanted.name}: the hub's storage does not take a file ({_without_token(str(error))})."
            f" {AGAIN}; with"
            " HF_HUB_DISABLE_XET=1 another way is taken."
        ) from error
    except ValueError as error:  # a card that the hub does not take, errors inside of answers
        reason = _without_token(str(error))
        raise UserError(f"{wanted.name}: the hub refuses it: {reason}") from error


def _without_token(text: str) -> str:
    """What a server says, without the token that it may say again."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return text.replace(token, "[token]") if token else text


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
