"""Starts a training's processes through torchrun, hears what they report, passes stop signals on,
and says what stopped them.
"""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib.errors import UserError
from lib.files import write_json
from lib.jobs.copies import Started, is_copy, start_python
from lib.jobs.locks import TakenError, locked
from lib.jobs.processes import calling_on_stop_signals, die_with_parent
from lib.progress import SECONDS_BETWEEN_PROGRESS_LINES, duration, log
from lib.training.base import TrainingJob
from lib.training.checkpoints import last_checkpoint, state_at
from lib.training.messages import (
    LAST_LINES,
    Asked,
    Begin,
    Event,
    Note,
    Update,
    WorkerError,
    error_files,
    event_in,
    first_error,
)

#: Where the worker's module is found.
SCRIPTS = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).resolve().parent / "worker.py"
#: What torchrun tells the one process that there is. The port: any that is free.
ALONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}
LOCK = "worker-{}.lock"
SECONDS_TO_WAIT_FOR_OLD_WORKERS = 60
#: What torch says where an operation cannot be computed alike each time.
NOT_DETERMINISTIC = "does not have a deterministic implementation"


@contextmanager
def at_work(folder: Path, rank: int) -> Iterator[None]:
    """Holds what `wait_for_other_workers` waits for, in a process that trains. `rank`: its number
    among them.
    """
    with locked(folder / LOCK.format(rank)):
        yield


def wait_for_other_workers(folder: Path) -> None:
    """Waits until the processes of an earlier training in this folder, which may just have been
    killed, are gone. Errors: UserError if they stay.
    """
    deadline = time.monotonic() + SECONDS_TO_WAIT_FOR_OLD_WORKERS
    for path in sorted(folder.glob(LOCK.format("*"))):
        while not _is_free(path):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{folder}: another training is at work here. Wait for it to end, or end it,"
                    " and run again."
                )
            time.sleep(0.2)


def _is_free(path: Path) -> bool:
    with suppress(TakenError), locked(path):
        return True
    return False


def environment(job: TrainingJob) -> dict[str, str]:
    """The environment of the worker processes."""
    values = {
        **os.environ,
        # Programs that libraries look for on PATH (ninja) lie beside the interpreter, also where
        # the environment is not activated.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": (
            os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        ),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1",  # the base model is a folder by now
        "PYTHONUNBUFFERED": "1",
        # Sums over several threads differ in their lowest bits with the number of threads, and that
        # with `--cores`.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    if job.device == "cpu":
        values |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return values


class Progress:
    """What the workers report, as lines for people and as figures for the record.

    `loaded`: when the model was loaded (`time.monotonic`), None before.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.started = time.monotonic()
        self.loaded: float | None = None
        self._note = note
        self._first = 0
        self._last_line = -math.inf

    def hear(self, event: Event) -> None:
        """Takes one event of the first worker."""
        match event:
            case Note():
                self._note(event.note)
            case Begin():
                self._begin(event)
            case Update() if self.loaded is not None:
                self._update(event, self.loaded)
            case Asked():
                log.info(
                    "train_dpo: of %d batches of the first process, the reference was asked about"
                    " %d; what it says of the others was known",
                    event.computed + event.found,
                    event.computed,
                )

    def _begin(self, event: Begin) -> None:
        self.loaded, self._first = time.monotonic(), event.begin
        log.info(
            "train_dpo: %d pairs, %d updates, %d of them done before",
            event.pairs,
            event.steps,
            event.begin,
        )

    def _update(self, event: Update, loaded: float) -> None:
        now, step, steps = time.monotonic(), event.step, event.steps
        if now - self._last_line < SECONDS_BETWEEN_PROGRESS_LINES and step != steps:
            return
        log.info(
            "train_dpo: update %d of %d, loss %.4f, margin %.4f, %s left",
            step,
            steps,
            event.loss,
            event.margin,
            duration((now - loaded) / (step - self._first) * (steps - step)),
        )
        self._last_line = now

    def seconds(self) -> tuple[float, float]:
        """How long loading took, and training until now."""
        now = time.monotonic()
        loaded = self.loaded or now
        return loaded - self.started, now - loaded


class StopRequest:
    """Asks the workers to save a checkpoint and end; `signals` are those that asked for it."""

    def __init__(self, file: Path) -> None:
        self.signals: list[int] = []
        self._file = file
        file.unlink(missing_ok=True)

    def pass_on(self, signal: int) -> None:
        """Passes a signal on to the workers."""
        self.signals.append(signal)
        self._file.touch()
        log.warning("train_dpo: asked to stop (signal %d); saving a checkpoint", signal)


def launch(job: TrainingJob, progress: Progress, output: Path) -> None:
    """Trains in `processes` processes and waits for them. All they print goes to the file `output`.

    A base model for which a GPU has no deterministic operation is trained without, with a note; so
    is one whose activations do not fit into memory, recomputing them, from the last checkpoint on.

    Errors: UserError with what stopped them; SystemExit after a signal, once a checkpoint is saved.
    """
    for old in error_files(job.folder):
        old.unlink()
    stop = StopRequest(job.stop)
    with calling_on_stop_signals(stop.pass_on):
        code = run_workers(job, progress, output)
    error = first_error(job.folder)
    if stop.signals and not error:  # torchrun, signalled too, ends its workers and says it failed
        log.warning("train_dpo: stopped; the next run goes on from the last checkpoint")
        raise SystemExit(128 + stop.signals[0])
    if error and job.deterministic and NOT_DETERMINISTIC in error.message:
        progress.hear(Note(note=f"two runs may differ in their low bits: {error.message[:200]}"))
        launch(job.model_copy(update={"deterministic": False}), progress, output)
    elif error and error.out_of_memory and job.may_recompute:
        progress.hear(Note(note=f"activations are recomputed: {error.message[:200]}"))
        resume = last_checkpoint(job.checkpoints)
        launch(job.model_copy(update={"recomputes": True, "resume": resume}), progress, output)
    elif code and not error and state_at(last_checkpoint(job.checkpoints)).is_at_the_end:
        progress.hear(Note(note=f"its processes ended with exit code {code} when all was done"))
    elif error or code:
        raise UserError(what_stopped_them(error, job.settings.processes, code, output))


def run_workers(job: TrainingJob, progress: Progress, output: Path) -> int:
    """Runs the worker processes to their end; returns the exit code."""
    file = job.folder / "job.json"
    write_json(file, job.model_dump(mode="json"))
    output.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with (
        open(reading, encoding="utf-8", errors="replace") as lines,
        open(output, "w", encoding="utf-8") as everything,
    ):
        with open(writing, "wb"):
            workers = start_workers(job, file, writing)
        try:
            for line in lines:
                everything.write(line)
                if event := event_in(line):
                    progress.hear(event)
        except BaseException:
            workers.kill()
            raise
        finally:
            code = workers.wait()
    return code


def start_workers(job: TrainingJob, file: Path, output: int) -> Started:
    """Starts the worker processes by torchrun; where there is one, and this process has its
    libraries loaded, that one as torchrun would. `file`: the job's; `output`: the descriptor of
    what takes all that they print.
    """
    if is_copy() and job.settings.processes == 1:
        return start_python(WORKER, [str(file)], environment(job) | ALONE, Path.cwd(), output)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    where = [f"--nproc-per-node={job.settings.processes}", "--module", "lib.training.worker"]
    return subprocess.Popen(
        [*torchrun, *where, str(file)],
        env=environment(job),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=die_with_parent,  # nothing else runs in this process, so no lock can be held
    )


def what_stopped_them(error: WorkerError | None, processes: int, code: int, output: Path) -> str:
    """The message for a training whose processes failed. `error`: of the first that left one."""
    if error is None:
        lines = output.read_text(encoding="utf-8").strip().split("\n")[-LAST_LINES:]
        return (
            f"The training's processes ended with exit code {code} and left no reason, as when the"
            " system kills them for want of memory (this rule's `mem_mb`). Their last lines:\n"
            f"{_indented(lines)}\nAll of them: {output}"
        )
    if error.is_user_error:
        return error.message
    if error.out_of_memory:
        return (
            f"Out of memory in process {error.rank} of {processes}:"
            f" {error.message[:300]}\nLower `training.settings.batch_size` and raise"
            " `gradient_accumulation` by as much, set `gradient_checkpointing: true`, raise"
            f" `zero_stage`, or use more `processes`. All that the processes said: {output}"
        )
    return (
        f"Process {error.rank} of {processes} stopped: {error.type}: {error.message[:1000]}\n"
        f"Its last lines:\n{_indented(error.trace)}\nAll that the processes said: {output}"
    )


def _indented(lines: list[str]) -> str:
    return "\n".join(f"  {line[:300]}" for line in lines)
