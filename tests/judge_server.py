"""A real HTTP server on this machine that plays a judge: what it says is a function of what it is asked."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lib.config import Endpoint


def text_of(body):
    """The text of a request's message."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


class JudgeServer:
    """`reply(body)` gives the text of a completion, or (status, message) for an error. `version`: the model that it says it is."""

    def __init__(self, reply, version="judge-2026-01-01"):
        self.reply, self.version = reply, version
        self.bodies = []
        self.delay = 0.0
        self.under_way = self.most_under_way = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.bodies.append(body)
                    server.under_way += 1
                    server.most_under_way = max(server.most_under_way, server.under_way)
                time.sleep(server.delay)
                said = server.reply(body)
                with lock:
                    server.under_way -= 1
                status, content = (200, said) if isinstance(said, str) else said
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                good = {"id": "1", "object": "chat.completion", "created": 0, "model": server.version, "choices": [choice]}
                data = json.dumps(good if status == 200 else {"error": {"message": content}}).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client was killed or gave up

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def endpoint(self, **settings):
        return Endpoint(**{"base_url": self.url, "model": "judge", "retries": 0, "timeout": 5, "api_key_variable": None, **settings})

    def texts(self):
        return [text_of(body) for body in self.bodies]

    def close(self):
        self.http.shutdown()
        self.http.server_close()
