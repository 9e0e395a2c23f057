"""A process that has what jobs need loaded, and gives each job a copy of itself, so that a job need
not load it: `python -P -m lib.jobs.fork_server <descriptor> [with-model]`. With models it has the
libraries of vision-language models, too.

It has used no GPU and started no thread of torch's, which would not be there in a copy.
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pkgutil import resolve_name
from typing import TypedDict

from lib.jobs.copies import FOR_JOBS, LOADS_MODELS, become, run_to_end
from lib.jobs.processes import die_with_parent
from lib.patches.imports import quick_imports

#: What every job begins with, and what most of them read their settings by. Nothing of it is put on
#: record as what computed.
OF_ALL = ("lib.jobs.job", "lib.jobs.script", "lib.config.run", "snakemake.script")
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


class Request(TypedDict):
    """A script to run as a new Python would, and what that Python would find."""

    script: str
    folder: str
    environment: dict[str, str]


def load_libraries(names: Iterable[str]) -> None:
    """Imports them, as `quick_imports` does."""
    with quick_imports():
        for name in names:
            resolve_name(name)


def serve(channel: socket.socket) -> Request | None:
    """Answers requests until their other end is closed.

    Each request is a connection's descriptor, sent over `channel`: what is to be run is read from
    it to its end by the copy that runs it, and when that has ended, the exit code is written to it:
    negative is the number of the signal that ended it. Returns, in the copy, the request; in the
    server, at its end, None.
    """
    # The server ends when the process that asks it does.
    for number in FOR_JOBS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # an ignored one would wake nobody
    askers: dict[int, socket.socket] = {}  # by the job's process
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    while True:
        readable, _, _ = select.select([channel, woken], [], [])
        if woken in readable:
            woken.recv(4096)
        answer_ended(askers)
        if channel not in readable:
            continue
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if not descriptors:
            return None
        asker = socket.socket(fileno=descriptors[0])
        if job := os.fork():
            askers[job] = asker
            continue
        die_with_parent()
        signal.set_wakeup_fd(-1)
        for connection in (channel, woken, wakes, *askers.values()):
            connection.close()
        return read_request(asker)


def answer_ended(askers: dict[int, socket.socket]) -> None:
    """Says how those jobs ended that have."""
    with suppress(ChildProcessError):  # there is none
        while True:
            job, status = os.waitpid(-1, os.WNOHANG)
            if not job:
                return
            with askers.pop(job) as asker, suppress(OSError):  # whoever asked may be gone
                asker.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                asker.shutdown(socket.SHUT_RDWR)  # a copy made just now has it open, too


def read_request(asker: socket.socket) -> Request:
    """What a connection asks for."""
    with asker, asker.makefile(encoding="utf-8") as stream:
        request: Request = json.load(stream)
    return request


def main() -> None:
    number, *words = sys.argv[1:]
    load_libraries((*OF_ALL, *(LIBRARIES if LOADS_MODELS in words else ())))
    with socket.socket(fileno=int(number)) as channel:
        request = serve(channel)
    if request:
        become(request["environment"], request["folder"], [request["script"]])
        run_to_end(request["script"])


if __name__ == "__main__":
    main()
