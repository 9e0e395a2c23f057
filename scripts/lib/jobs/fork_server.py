"""A process that has the libraries of vision-language models loaded, and gives each job a copy of
itself, so that a job need not load them: `python -P -m lib.jobs.fork_server <descriptor>`.

It has used no GPU and started no thread of torch's, which would not be there in a copy.
"""

import json
import os
import runpy
import signal
import socket
import sys
from contextlib import suppress
from pkgutil import resolve_name
from types import FrameType
from typing import TypedDict

from lib.jobs.processes import die_with_parent
from lib.patches.imports import quick_imports

#: What jobs with a model need most: torch, and transformers' parts for the recipe's architectures.
#: Other libraries are loaded by the jobs that use them, and are on their records.
LIBRARIES = (
    "torch",
    "transformers:AutoModelForCausalLM",
    "transformers:AutoModelForImageTextToText",
    "transformers:AutoProcessor",
    "transformers:CLIPModel",
    "transformers:LlamaForCausalLM",
    "transformers:LlavaForConditionalGeneration",
    "transformers:LlavaNextForConditionalGeneration",
)
#: Signals that are meant for jobs, and reach the whole process group. The server ends when the
#: process that asks it does.
FOR_JOBS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Request(TypedDict):
    """A script to run as a new Python would, and what that Python would find."""

    script: str
    folder: str
    environment: dict[str, str]


def load_libraries() -> None:
    """Imports them, as `quick_imports` does."""
    with quick_imports():
        for name in LIBRARIES:
            resolve_name(name)


def wait_for_watchers(number: int, frame: FrameType | None) -> None:
    """Waits for those that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(channel: socket.socket) -> Request | None:
    """Answers requests until their other end is closed.

    Each request is a connection's descriptor, sent over `channel`: what is to be run is read from
    it to its end, and the exit code is written to it. Returns, in the copy that is to run it, the
    request; in the server, at its end, None.
    """
    for number in FOR_JOBS:
        signal.signal(number, signal.SIG_IGN)
    # Whoever asks what a run took is told of processes that were waited for.
    signal.signal(signal.SIGCHLD, wait_for_watchers)
    while True:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if not descriptors:
            return None
        with socket.socket(fileno=descriptors[0]) as asker:
            if os.fork() == 0:
                channel.close()
                return watch(asker)


def watch(asker: socket.socket) -> Request:
    """Starts the job that a connection asks for, and says there how it ended: negative is the
    number of the signal that ended it. Returns in the job only.
    """
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with asker.makefile(encoding="utf-8") as stream:
        request: Request = json.load(stream)
    job = os.fork()
    if job == 0:
        die_with_parent()
        return request
    _, status = os.waitpid(job, 0)
    asker.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(request: Request) -> None:
    """Gives this process what a new one would have."""
    for number in FOR_JOBS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [request["script"]]


def main() -> None:
    load_libraries()
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        request = serve(channel)
    if request:
        become(request)
        runpy.run_path(request["script"], run_name="__main__")


if __name__ == "__main__":
    main()
