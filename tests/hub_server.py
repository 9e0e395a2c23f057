"""A hub for the tests: the part of Hugging Face's protocol that downloads use, on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What a hub has, and what it was asked for.

    repositories  files by name, by repository ("owner/name", "datasets/owner/name")
    refused       repositories that want a token
    sent          the files that were sent, in turn, each after its repository
    held          files that are asked for and never sent, until `let_go` is set
    waiting       set when somebody waits for one of these
    """

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repositories = repositories
        self.refused: set[str] = set()
        self.held: set[str] = set()
        self.waiting, self.let_go = threading.Event(), threading.Event()
        self.sent: list[str] = []
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
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
            return [
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in files.items()
            ]
        return {
            "id": repository.removeprefix("datasets/"),
            "sha": COMMIT,
            "siblings": [{"rfilename": name, "size": len(files[name])} for name in files],
        }

    def _send_file(self, repository: str, name: str, content: bytes, with_body: bool) -> None:
        headers = {
            "ETag": f'"{_etag(content)}"',
            "X-Repo-Commit": COMMIT,
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


@contextmanager
def hub_server(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    """A hub at `hub.url` until the block ends."""
    hub = Hub(repositories)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
