"""Programs in Python that a job starts. Where the job is a copy of a process that has its libraries
loaded (lib/jobs/fork_server.py), the program is a copy of the job, and need not load them.
"""

import atexit
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from lib.jobs.processes import close_standard_input, die_with_parent
from lib.patches.hub_offline import read_offline_again

#: The word by which lib/jobs/fork_server.py loads the libraries of models, too.
LOADS_MODELS = "with-model"
#: Signals that are meant for jobs, and reach the whole process group.
FOR_JOBS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
#: Whether this process is a copy, in a list of one.
_IS_COPY = [False]


class Started(Protocol):
    """A program that was started."""

    def wait(self) -> int:
        """Its exit code, at its end; negative is the number of the signal that ended it."""
        ...

    def kill(self) -> None:
        """Ends it."""
        ...


class Copy:
    """A program that is a copy of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> int:
        """Its exit code, at its end."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """Ends it; it has not been waited for."""
        os.kill(self.pid, signal.SIGKILL)


def is_copy() -> bool:
    """Whether this process has had libraries loaded for it."""
    return _IS_COPY[0]


def become(environment: Mapping[str, str], folder: str, words: Sequence[str]) -> None:
    """Gives a copy what a new process would have. `words`: its script and its arguments."""
    _IS_COPY[0] = True
    for number in (*FOR_JOBS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    read_offline_again()
    sys.argv = list(words)


def start_python(
    script: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    output: int,
) -> Started:
    """Starts a Python script, which reads nothing; `output`: the descriptor of what takes all that
    it prints.
    """
    words = [str(script), *arguments]
    if not is_copy():
        return subprocess.Popen(
            [sys.executable, "-P", *words],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid == 0:
        _run(words, environment, folder, output)
    return Copy(pid)


def _run(
    words: Sequence[str], environment: Mapping[str, str], folder: Path, output: int
) -> NoReturn:
    """Is the program, to its end."""
    try:
        die_with_parent()
        close_standard_input()
        os.dup2(output, 1)
        os.dup2(output, 2)
        # What the job says goes into the job's log, and not what the program does.
        logging.captureWarnings(False)
        logging.root.handlers.clear()
        logging.root.setLevel(logging.WARNING)
        become(environment, str(folder), words)
        atexit._clear()  # what the job is to do at its end is the job's
        run_to_end(words[0])
    except BaseException:  # before the program began
        traceback.print_exc()
    finally:
        os._exit(1)


def run_to_end(script: str) -> NoReturn:
    """Runs a script as Python would, and ends this process as Python would, but that it does not
    take down the modules which it was given: that takes a third of a second.
    """
    code = 1
    try:
        runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = _exit_code(stop)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        # As multiprocessing ends a process that it has forked. What waits for threads and pools has
        # no public name, and so no type.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _exit_code(stop: SystemExit) -> int:
    """The exit code that Python would end with; it prints what is no code."""
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(stop.code, file=sys.stderr)
    return 1
