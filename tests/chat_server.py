"""A real HTTP server on this machine in place of an OpenAI-compatible endpoint: what it says is a
function of what it is asked.
"""

import hashlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lib.blocks import Endpoint


@dataclass(frozen=True)
class Reply:
    """What is sent back. `content`: text or bytes as they are, what a function gives piece by piece
    and without a length, anything else as JSON. `status` 0: nothing is said before the content.
    """

    status: int
    content: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    def pieces(self):
        if callable(self.content):
            return self.content()
        if isinstance(self.content, bytes):
            return [self.content]
        text = self.content if isinstance(self.content, str) else json.dumps(self.content)
        return [text.encode()]


def completion(text, finish_reason="stop", model="m", said=None):
    """A chat completion of one message. `said`: of each of its tokens, the probabilities of what
    could have stood there, with its own first; None where it tells none.
    """
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": text},
    }
    if said is not None:
        choice["logprobs"] = {"content": list(map(_told_token, said))}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return Reply(
        200,
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [choice],
            "usage": usage,
        },
    )


def _told_token(probabilities):
    entries = [
        {"token": token, "logprob": math.log(each), "bytes": list(token.encode())}
        for token, each in probabilities.items()
    ]
    return {**entries[0], "top_logprobs": entries}


def choosing(*options, model="m"):
    """A `reply` that answers with one of these, as it is asked: the likeliest of probabilities that
    are a function of the message, which it tells if it is asked for them.
    """

    def reply(body):
        seed = json.dumps(body["messages"]).encode()
        weights = {
            option: 1 + int(hashlib.sha256(option.encode() + seed).hexdigest()[:6], 16)
            for option in options
        }
        whole = 1.25 * sum(weights.values())  # it might say something else
        likeliest = sorted(weights, key=lambda option: -weights[option])
        probabilities = {option: weights[option] / whole for option in likeliest}
        said = [probabilities] if body.get("logprobs") else None
        return completion(likeliest[0], model=model, said=said)

    return reply


def refusal(text):
    """A chat completion in which the model refuses, and says why."""
    message = {"role": "assistant", "content": None, "refusal": text}
    return Reply(200, {"choices": [{"finish_reason": "stop", "message": message}]})


def error(status, message="broken", headers=None, **more):
    """An error as such servers tell it."""
    return Reply(status, {"error": {"message": message, **more}}, headers or {})


def listing(*names):
    """A list of models."""
    return Reply(
        200,
        {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in names
            ],
        },
    )


def in_order(*replies):
    """A `reply` that gives these one after the other, and the last one from then on."""
    left, lock = list(replies), threading.Lock()

    def reply(body):
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return reply


@dataclass(frozen=True)
class Request:
    """What was asked: "chat" or "models", the JSON, the headers by their name in small letters, and
    when.
    """

    kind: str
    body: Any
    headers: Mapping[str, str]
    time: float

    @property
    def text(self):
        """The text of its message."""
        return text_of(self.body)


def text_of(body):
    """The text of a request's message, without its images."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def closed_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ChatServer:
    """A server that runs until `close()`. Its attributes can be set at any time.

    reply       `reply(body)` gives the text of a completion, or a Reply
    version     the model that it says it is
    listing     the reply to who asks for its models
    delay       seconds that each reply takes
    requests    all that it was asked; `asked` and `texts` those of chats
    """

    def __init__(
        self,
        reply: Callable[[Any], str | Reply],
        model: str = "m",
        version: str | None = None,
        **settings: Any,
    ) -> None:
        """`settings`: of an endpoint, where `settings()` and `endpoint()` say nothing else."""
        self.reply, self.model, self.version, self._settings = (
            reply,
            model,
            version or model,
            settings,
        )
        self.listing = listing(model)
        self.requests: list[Request] = []
        self.delay = 0.0
        self.under_way = self.most_under_way = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def answer(self, kind, body):
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    server.requests.append(Request(kind, body, headers, time.monotonic()))
                    server.under_way += 1
                    server.most_under_way = max(server.most_under_way, server.under_way)
                reply = server.listing if kind == "models" else server.reply(body)
                time.sleep(server.delay)
                with lock:
                    server.under_way -= 1
                reply = completion(reply, model=server.version) if isinstance(reply, str) else reply
                pieces = reply.pieces()
                length = {} if callable(reply.content) else {"Content-Length": len(pieces[0])}
                try:
                    if reply.status:
                        self.send_response(reply.status)
                        for name, value in (
                            {"Content-Type": "application/json"} | length | dict(reply.headers)
                        ).items():
                            self.send_header(name, str(value))
                        self.end_headers()
                    for piece in pieces:
                        self.wfile.write(piece)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client was killed or gave up

            def do_GET(self):
                self.answer("models", None)

            def do_POST(self):
                self.answer(
                    "chat", json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                )

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def settings(self, **settings):
        """A configuration's block of this endpoint."""
        return {
            "base_url": self.url,
            "model": self.model,
            "timeout": 5,
            **self._settings,
            **settings,
        }

    def endpoint(self, **settings):
        """This endpoint."""
        return Endpoint(**self.settings(**settings))

    def asked(self):
        return [request for request in self.requests if request.kind == "chat"]

    def bodies(self):
        return [request.body for request in self.asked()]

    def texts(self):
        return [request.text for request in self.asked()]

    def close(self):
        self.http.shutdown()
        self.http.server_close()
