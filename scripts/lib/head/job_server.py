"""Jobs on this machine's CPU, as copies of a process that has what they need loaded.

Importing torch and transformers takes four seconds of a CPU, which is more than most jobs of the
demo and of the tests compute; what all jobs import takes a third of one, which is half of a
table's. With a GPU, models are large, and a process that is to be copied may not look at it.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]
#: The scripts of all jobs.
ALL = frozenset(path.stem for path in SCRIPTS.glob("*.py"))
#: The scripts whose jobs load torch and transformers, whatever is configured.
WITH_MODEL = frozenset(
    {
        "answer_benchmark",
        "answer_part",
        "answer_questions",
        "generate_images",
        "generate_responses",
        "rank_images",
        "rank_responses",
        "train_dpo",
    }
)


class JobServer:
    """Starts the server when the first job is asked for, and anew where it has ended."""

    def __init__(self, *words: str) -> None:
        """`words`: of the server's command line."""
        self._words = words
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def run(self, script: str, environment: Mapping[str, str]) -> int:
        """Runs a Python script to its end, as `python script` would in the current folder.

        Returns its exit code; 128 and the signal's number where a signal ended it, as shells do.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._hand_over(theirs, environment)
            folder = str(Path.cwd())
            request = {"script": script, "folder": folder, "environment": dict(environment)}
            with suppress(OSError):  # it has ended: there will be no answer
                ours.sendall(json.dumps(request).encode())
                ours.shutdown(socket.SHUT_WR)
            answer = _read_to_end(ours)
        # Without an answer the server was killed, and the job with it.
        code = int(answer) if answer else -9
        return code if code >= 0 else 128 - code

    def end(self) -> None:
        """Ends the server, and what jobs are left."""
        with self._lock:
            if self._channel and self._server:
                self._channel.close()
                self._server.wait()
            self._channel = self._server = None

    def _hand_over(self, connection: socket.socket, environment: Mapping[str, str]) -> None:
        with self._lock:
            if not self._server or self._server.poll() is not None:
                self._start(environment)
            assert self._channel
            socket.send_fds(self._channel, [b"."], [connection.fileno()])

    def _start(self, environment: Mapping[str, str]) -> None:
        if self._channel:
            self._channel.close()
        self._channel, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            path = os.pathsep.join(filter(None, [str(SCRIPTS), environment.get("PYTHONPATH")]))
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-m", "lib.jobs.fork_server", str(number), *self._words],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                env={**environment, "PYTHONPATH": path},
            )


def _read_to_end(connection: socket.socket) -> bytes:
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(64):
            parts.append(part)
    return b"".join(parts)
