"""A hub for the tests: the part of Hugging Face's protocol that downloads and uploads use, on this
machine.
"""

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


#: Larger files are kept as LFS objects, and those that end so.
LARGEST_REGULAR = 10_000
LFS_SUFFIXES = (".parquet", ".safetensors", ".png")


#: Where hf_xet puts what is in files.
STORAGE = "storage"


class Unread(bytes):
    """The content of a file that hf_xet packed, of which no more is known than this."""

    oid: str
    size: int

    def __new__(cls, oid: str, size: int) -> "Unread":
        unread = super().__new__(cls)
        unread.oid, unread.size = oid, size
        return unread


@dataclass
class Fault:
    """What goes wrong with the next requests whose path has this in it: a status (with headers),
    or, for 0, the connection is cut while the request's body is read.
    """

    path: str
    status: int
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "a fault"}'


class Hub:
    """What a hub has, and what it was asked for.

    repositories  files by name, by repository ("owner/name", "datasets/owner/name")
    refused       repositories that want a token
    sent          the files that were sent, in turn, each after its repository
    held          files that are asked for and never sent, until `let_go` is set
    waiting       set when somebody waits for one of these
    token         the one that may write; `owners`: where it may
    private       the repositories that are
    commits       ids of the commits by repository, the last one last; `messages`: all of them
    objects       large files by sha256; `received`: those that were taken in, in turn
    faults        what goes wrong from now on
    stored        what hf_xet put into the storage behind the hub: the paths of its requests
    """

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repositories = {name: dict(files) for name, files in repositories.items()}
        self.refused: set[str] = set()
        self.held: set[str] = set()
        self.waiting, self.let_go = threading.Event(), threading.Event()
        self.sent: list[str] = []
        self.url = ""
        self.token, self.owners = "hf_write", {"me"}
        self.private: set[str] = set()
        self.commits: dict[str, list[str]] = {}
        self.messages: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.received: list[str] = []
        self.faults: list[Fault] = []
        self.stored: list[str] = []
        self.asked: list[str] = []

    def head(self, repository: str) -> str:
        """The last commit of a repository."""
        return self.commits.get(repository, [COMMIT])[-1]

    def commit(self, repository: str, message: str) -> str:
        """Enters a commit; its id."""
        self.messages.append(message)
        number = f"{repository} {len(self.messages)}".encode()
        commit = hashlib.sha1(number, usedforsecurity=False).hexdigest()
        self.commits.setdefault(repository, [COMMIT]).append(commit)
        return commit

    def fault_of(self, path: str) -> Fault | None:
        """What goes wrong with a request."""
        for fault in self.faults:
            if fault.path in path and fault.times:
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        if not self._goes_wrong():
            self._answer(with_body=True)

    def do_POST(self) -> None:
        if not self._goes_wrong():
            self._take(unquote(urlsplit(self.path).path).strip("/"), self._body())

    def do_PUT(self) -> None:
        if not self._goes_wrong():
            oid = self.path.rpartition("/")[2]
            content = self._body()
            assert _etag(content) == oid
            self.hub.objects[oid] = content
            self.hub.received.append(oid)
            self._send(200, b"")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def _goes_wrong(self) -> bool:
        self.hub.asked.append(f"{self.command} {self.path}")
        if not (fault := self.hub.fault_of(self.path)):
            return False
        if not fault.status:
            self.rfile.read(min(1000, int(self.headers.get("Content-Length", 0))))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return True
        self._body()
        self._send(fault.status, fault.body, fault.headers)
        return True

    # -- Uploads

    def _take(self, path: str, body: bytes) -> None:
        """A request that changes something."""
        if path.startswith(STORAGE):
            return self._store(path)
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._send(401, b'{"error": "Invalid username or password."}')
        if path == "api/validate-yaml":
            return self._send_json({"errors": [], "warnings": []})
        if path == "api/repos/create":
            return self._create(json.loads(body))
        if ".git/info/lfs/objects/batch" in path:
            return self._offer(json.loads(body))
        kind, owner, name, action = path.removeprefix("api/").split("/")[:4]
        repository = f"{kind}/{owner}/{name}".removeprefix("models/")
        if owner not in self.hub.owners:
            return self._send(403, b'{"error": "You may not write here."}')
        if repository not in self.hub.repositories:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if action == "preupload":
            return self._send_json(self._modes(repository, json.loads(body)["files"]))
        assert action == "commit", path
        return self._commit(repository, [json.loads(line) for line in body.splitlines()])

    def _store(self, path: str) -> None:
        """What hf_xet puts into its storage, by the first version of its protocol; of the newer
        ones it hears that there are none. Its blocks are not unpacked.
        """
        if "/xorbs/" in path or path.endswith("v1/shards"):
            self.hub.stored.append(path)
            return self._send_json({"was_inserted": True, "result": 1})
        return self._send(404, b"{}")

    def _create(self, asked: Any) -> None:
        owner = asked["organization"]
        kind = "datasets/" if asked.get("type") == "dataset" else ""
        repository = f"{kind}{owner}/{asked['name']}"
        if owner not in self.hub.owners:
            return self._send(403, b'{"error": "You may not create this."}')
        answer = {"url": f"{self.hub.url}/{repository}"}
        if repository in self.hub.repositories:
            return self._send_json(answer, 409)
        self.hub.repositories[repository] = {".gitattributes": b"*.parquet filter=lfs\n"}
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(repository)
        self.hub.commit(repository, "initial commit")
        return self._send_json(answer)

    def _modes(self, repository: str, files: Any) -> Any:
        there = self.hub.repositories[repository]
        told = []
        for file in files:
            is_large = file["size"] > LARGEST_REGULAR or file["path"].endswith(LFS_SUFFIXES)
            content = there.get(file["path"])
            told.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large else "regular",
                    "shouldIgnore": False,
                    "oid": None if content is None else _oid(file["path"], content),
                }
            )
        return {"files": told}

    def _offer(self, asked: Any) -> None:
        """Where large files go; those that are there already go nowhere."""
        objects = []
        for each in asked["objects"]:
            href = f"{self.hub.url}/lfs/{each['oid']}"
            is_there = each["oid"] in self.hub.objects
            objects.append(
                {**each, **({} if is_there else {"actions": {"upload": {"href": href}}})}
            )
        self._send_json({"transfer": "basic", "objects": objects})

    def _commit(self, repository: str, lines: Any) -> None:
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, self.hub.head(repository)):
            return self._send(412, b'{"error": "A commit has happened since."}')
        files = dict(self.hub.repositories[repository])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                unread = Unread(value["oid"], value["size"])
                files[value["path"]] = self.hub.objects.get(value["oid"], unread)
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        self.hub.repositories[repository] = files
        commit = self.hub.commit(repository, header["summary"])
        address = f"{self.hub.url}/{repository}/commit/{commit}"
        return self._send_json({"commitUrl": address, "commitOid": commit, "success": True})

    def _send_json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode())

    # -- Downloads

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if "/xet-write-token/" in path:
            expires = str(int(time.time()) + 3600)
            storage = f"{self.hub.url}/{STORAGE}"
            headers = {"X-Xet-Cas-Url": storage, "X-Xet-Access-Token": "t"}
            told = {"casUrl": storage, "accessToken": "t", "exp": int(expires)}
            return self._send(
                200, json.dumps(told).encode(), headers | {"X-Xet-Token-Expiration": expires}
            )
        if path.startswith(STORAGE):
            return self._send(404, b"{}")
        is_api = path.startswith("api/")
        path = path.removeprefix("api/").removeprefix("models/")
        for repository, files in self.hub.repositories.items():
            if not f"{path}/".startswith(f"{repository}/"):
                continue
            rest = path.removeprefix(repository).strip("/")
            if repository in self.hub.refused:
                return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            if is_api:
                return self._send(200, json.dumps(self._facts(rest, repository, files)).encode())
            _, _, name = rest.removeprefix("resolve/").partition("/")
            if name in files:
                return self._send_file(repository, name, files[name], with_body)
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _facts(self, rest: str, repository: str, files: Mapping[str, bytes]) -> Any:
        if rest.startswith("tree"):
            return [_entry(name, content) for name, content in files.items()]
        return {
            "id": repository.removeprefix("datasets/"),
            "sha": self.hub.head(repository),
            "private": repository in self.hub.private,
            "siblings": [{"rfilename": name, "size": len(files[name])} for name in files],
        }

    def _send_file(self, repository: str, name: str, content: bytes, with_body: bool) -> None:
        headers = {
            "ETag": f'"{_etag(content)}"',
            "X-Repo-Commit": self.hub.head(repository),
            "Content-Length": str(len(content)),
        }
        if not with_body:
            return self._send(200, b"", headers)
        if f"{repository}/{name}" in self.hub.held:
            self.hub.waiting.set()
            self.hub.let_go.wait()
        self.hub.sent.append(f"{repository}/{name}")
        return self._send(200, content, headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in ({"Content-Length": str(len(body))} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # whoever asked is gone
            self.wfile.write(body)
        self.close_connection = True


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_large(name: str, content: bytes) -> bool:
    is_unread = isinstance(content, Unread)
    return is_unread or len(content) > LARGEST_REGULAR or name.endswith(LFS_SUFFIXES)


def _oid(name: str, content: bytes) -> str:
    """The sha256 of a large file, git's id of any other."""
    if isinstance(content, Unread):
        return content.oid
    if _is_large(name, content):
        return _etag(content)
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    oid = _oid(name, content)
    size = content.size if isinstance(content, Unread) else len(content)
    entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": oid}
    if _is_large(name, content):
        entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 130}
    return entry


@contextmanager
def hub_server(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    """A hub at `hub.url` until the block ends."""
    hub = Hub(repositories)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
