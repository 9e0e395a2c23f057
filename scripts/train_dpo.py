"""Rule train_dpo: direct preference optimization of the base model on one data set (paper 3.4,
4.1).

TRL's DPOTrainer trains a LoRA adapter on the language model; the reference is the same model with
the adapter switched off. Under Snakemake this script digests all that determines the training,
looks what of it is done, and starts lib/training/worker.py through torchrun, one process a GPU. A
checkpoint counts once its marker, written last, lists all its files; a killed training goes on from
the last one and ends with the same bytes. A finished adapter stays under work/ by its digest, so
that no training is done twice.
"""

import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from lib import weights
from lib.data.controls import TRAINING_CONTROLS, Control, is_exchanged
from lib.errors import UserError
from lib.files import (
    canonical_json,
    digest_of_file,
    mendable_storage_errors,
    read_jsonl,
    write_json,
    write_jsonl,
)
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.progress import SECONDS_BETWEEN_PROGRESS_LINES, duration, log
from lib.training.worker import (
    COLUMNS,
    EVENT,
    LAST_LINES,
    MARKER,
    METRICS,
    Job,
    complete,
    die_with_parent,
)

VERSION = 1
#: Where the worker's module is found.
SCRIPTS = str(Path(__file__).resolve().parent)
#: How training runs, but not what comes out.
WITHOUT_EFFECT = ("save_steps",)
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
SECONDS_TO_WAIT_FOR_OLD_WORKERS = 60


def read_pairs(
    files: Sequence[Path], control: Control | None = None, seed: int = 0
) -> tuple[str, int, int]:
    """What a data set's files say, as far as training reads it: its digest, the number of pairs,
    and how many of them are exchanged.

    In a negative control (`control`, drawn with the training's `seed`) the digest is that of the
    pairs as they are trained on.

    Errors: UserError if a file is not a data set of this workflow, or there is no pair.
    """
    import pyarrow
    from pyarrow import parquet

    state, count, exchanged = sha256(), 0, 0
    columns = [*COLUMNS, *(["id"] if control else [])]
    for file in files:
        try:
            rows = parquet.ParquetFile(file)
            if missing := set(columns) - set(rows.schema_arrow.names):
                raise UserError(
                    f"{file}: has no column {', '.join(sorted(missing))}. Delete it and run again:"
                    " merge_pairs makes it anew."
                )
            for batch in rows.iter_batches(batch_size=64, columns=columns):
                for row in batch.to_pylist():
                    images = [sha256(image["bytes"]).hexdigest() for image in row["images"]]
                    sides = [row["chosen"], row["rejected"]]
                    if control and is_exchanged(control, seed, row["id"]):
                        sides.reverse()
                        exchanged += 1
                    state.update(canonical_json([images, row["instruction"], *sides]).encode())
                    count += 1
        except (pyarrow.ArrowException, OSError, TypeError, KeyError) as error:
            raise UserError(
                f"{file}: is damaged ({error}). Delete it and run again: merge_pairs makes it anew."
            ) from error
    if not count:
        raise UserError(
            "The data set has no pair to train on. Lower `pairs.min_margin`, or give more prompts."
        )
    return state.hexdigest(), count, exchanged


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; the others are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in found if complete(path)]
    for path in found:
        if path not in whole[-1:]:
            shutil.rmtree(path)
    return whole[-1] if whole else None


def trainer_state(checkpoint: Path | None) -> dict[str, Any]:
    """Steps done and planned, and the metrics of each, at a checkpoint."""
    if checkpoint is None:
        return {"global_step": 0, "max_steps": -1, "log_history": []}
    state: dict[str, Any] = json.loads(
        (checkpoint / "trainer_state.json").read_text(encoding="utf-8")
    )
    return state


def metrics_of(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an update, without anything that depends on time or on where a training was resumed."""
    return [
        {"step": row["step"], **{name: row[name] for name in METRICS if name in row}}
        for row in history
        if "loss" in row
    ]


def finish(checkpoint: Path, finished: Path, base: str, revision: str) -> None:
    """Makes the folder with a training's results from its last checkpoint, whole or not at all."""
    with mendable_storage_errors(finished):
        scratch = finished.with_suffix(".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        shutil.copyfile(checkpoint / ADAPTER_FILES[0], scratch / ADAPTER_FILES[0])
        config = json.loads((checkpoint / ADAPTER_FILES[1]).read_text(encoding="utf-8"))
        # As configured, for whoever loads the adapter; an absolute path would say where it was
        # made.
        config["base_model_name_or_path"] = (
            Path(base).name if Path(base).expanduser().is_absolute() else base
        )
        config["revision"] = None if weights.is_folder(base) else revision
        write_json(scratch / ADAPTER_FILES[1], config)
        write_jsonl(scratch / "metrics.jsonl", metrics_of(trainer_state(checkpoint)["log_history"]))
        write_json(
            scratch / MARKER,
            {name: digest_of_file(scratch / name) for name in (*ADAPTER_FILES, "metrics.jsonl")},
        )
        scratch.rename(finished)


def is_finished(finished: Path) -> bool:
    """Whether a training's results are there and undamaged."""
    try:
        digests: dict[str, str] = json.loads((finished / MARKER).read_text(encoding="utf-8"))
        return all(digest_of_file(finished / name) == content for name, content in digests.items())
    except (OSError, ValueError):
        return False


@contextmanager
def no_other_workers(folder: Path) -> Iterator[None]:
    """Waits until the processes of an earlier training in this folder, which may just have been
    killed, are gone.
    """
    with open(folder / "workers.lock", "a") as lock:
        patience = time.monotonic() + SECONDS_TO_WAIT_FOR_OLD_WORKERS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise UserError(
                        f"{folder}: another training is at work here. Wait for it to end, or end"
                        " it, and run again."
                    ) from None
                time.sleep(0.2)
        yield


def environment(job: Job) -> dict[str, str]:
    """The environment of the worker processes."""
    values = {
        **os.environ,
        # Programs that libraries look for on PATH (ninja) lie beside the interpreter, also where
        # the environment is not activated.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": (
            os.pathsep.join([SCRIPTS, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        ),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        # Sums over several threads differ in their lowest bits with the number of threads, and that
        # with `--cores`.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    if job.device == "cpu":
        values |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if weights.is_folder(job.base):
        values["HF_HUB_OFFLINE"] = "1"
    return values


class Progress:
    """What the workers report, as lines for people and as figures for the record."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self.started = time.monotonic()
        self.loaded: float | None = None
        self.first = 0
        self._last_line = -math.inf

    def event(self, event: dict[str, Any]) -> None:
        """Takes one event of the first worker."""
        now = time.monotonic()
        if "note" in event:
            self.note(event["note"])
        elif "begin" in event:
            self.loaded, self.first = now, event["begin"]
            log.info(
                "train_dpo: %d pairs, %d updates, %d of them done before",
                event["pairs"],
                event["steps"],
                event["begin"],
            )
        elif "step" in event and self.loaded is not None:
            step, steps = event["step"], event["steps"]
            if now - self._last_line >= SECONDS_BETWEEN_PROGRESS_LINES or step == steps:
                left = (now - self.loaded) / (step - self.first) * (steps - step)
                log.info(
                    "train_dpo: update %d of %d, loss %.4f, margin %.4f, %s left",
                    step,
                    steps,
                    event["loss"],
                    event["margin"],
                    duration(left),
                )
                self._last_line = now


@contextmanager
def passing_on_stop_signals(job: Job) -> Iterator[list[int]]:
    """Turns SIGTERM and SIGUSR1 into a request to the workers to save a checkpoint and end; yields
    the signals received.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        job.stop.touch()
        log.warning("train_dpo: asked to stop (signal %d); saving a checkpoint", number)

    before = {
        number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(job: Job, progress: Progress, output: Path) -> None:
    """Runs the training in `processes` processes and waits for it. All they print goes to the file
    `output`.

    Errors: UserError with what stopped them; SystemExit after a signal, once a checkpoint is saved.
    """
    folder = Path(job.folder)
    job.stop.unlink(missing_ok=True)
    for old in folder.glob("error-*.json"):
        old.unlink()
    write_json(folder / "job.json", asdict(job))
    processes = job.settings["processes"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "--module",
        "lib.training.worker",
        str(folder / "job.json"),
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        passing_on_stop_signals(job) as signals,
        open(output, "w", encoding="utf-8") as everything,
        subprocess.Popen(
            command,
            env=environment(job),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=die_with_parent,  # nothing else runs in this process, so no lock can be held
        ) as workers,
    ):
        assert workers.stdout is not None
        try:
            for line in workers.stdout:
                everything.write(line)
                if EVENT in line:
                    progress.event(json.loads(line.partition(EVENT)[2]))
        except BaseException:
            workers.kill()
            raise
    failed = any(folder.glob("error-*.json"))
    if signals and not failed:  # torchrun, signalled too, ends its workers and says it failed
        log.warning("train_dpo: stopped; the next run goes on from the last checkpoint")
        raise SystemExit(128 + signals[0])
    if failed or workers.returncode:
        raise UserError(what_stopped_them(job, processes, workers.returncode, output))


def what_stopped_them(job: Job, processes: int, code: int, output: Path) -> str:
    """The message for a training whose processes failed."""
    errors = sorted(Path(job.folder).glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not errors:
        lines = output.read_text(encoding="utf-8").strip().split("\n")[-LAST_LINES:]
        return (
            f"The training's processes ended with exit code {code} and left no reason, as when the"
            " system kills them for want of memory (this rule's `mem_mb`). Their last lines:\n"
            + "\n".join(f"  {line[:300]}" for line in lines)
            + f"\nAll of them: {output}"
        )
    first = json.loads(errors[0].read_text(encoding="utf-8"))
    if first["user"]:
        return str(first["message"])
    if first["out_of_memory"]:
        return (
            f"Out of memory in process {first['rank']} of {processes}:"
            f" {first['message'][:300]}\nLower `training.settings.batch_size` and raise"
            " `gradient_accumulation` by as much, set `gradient_checkpointing: true`, raise"
            f" `zero_stage`, or use more `processes`. All that the processes said: {output}"
        )
    return (
        f"Process {first['rank']} of {processes} stopped: {first['type']}:"
        f" {first['message'][:1000]}\nIts last lines:\n"
        + "\n".join(f"  {line[:300]}" for line in first["trace"])
        + f"\nAll that the processes said: {output}"
    )


def draw_figure(metrics: Sequence[dict[str, Any]], title: str, files: Sequence[Path]) -> None:
    """Loss, reward margin and reward accuracy of each update: each figure file is a function of the
    metrics alone.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": "train_dpo",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.edgecolor": "#888888",
        "xtick.color": "#444444",
        "ytick.color": "#444444",
    }
    panels = [
        ("Loss", "loss", "#1f5fa8", (math.log(2), "ln 2: policy = reference")),
        ("Reward margin, chosen − rejected", "rewards/margins", "#2a7f4f", (0.0, None)),
        ("Share of pairs with chosen above rejected", "rewards/accuracies", "#b3541e", (0.5, None)),
    ]
    steps = [row["step"] for row in metrics]
    window = max(1, len(steps) // 20)
    with mpl.rc_context(style):
        figure = Figure(figsize=(10.5, 3.1), layout="constrained", dpi=150)
        FigureCanvasAgg(figure)
        for axes, (name, key, colour, (level, text)) in zip(
            figure.subplots(1, 3), panels, strict=True
        ):
            values = [row[key] for row in metrics]
            axes.axhline(level, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)))
            if text:
                axes.annotate(
                    text,
                    (1, level),
                    xycoords=("axes fraction", "data"),
                    xytext=(-2, 3),
                    textcoords="offset points",
                    ha="right",
                    fontsize=7,
                    color="#666666",
                )
            if window > 1:
                means = [
                    sum(part) / len(part)
                    for end in range(1, len(values) + 1)
                    if (part := values[max(0, end - window) : end])
                ]
                axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3)
                axes.plot(steps, means, color=colour, linewidth=1.6)
            else:
                axes.plot(steps, values, color=colour, linewidth=1.6, marker="o", markersize=3.5)
            if key == "rewards/accuracies":
                axes.set_ylim(-0.04, 1.04)
            axes.set_title(name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("update" if window == 1 else f"update (bold: mean of {window})")
        figure.suptitle(title, fontsize=10, x=0.005, ha="left", color="#444444")
        for file in files:
            with mendable_storage_errors(file):
                figure.savefig(
                    file, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None}
                )


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    training = settings["training"]
    data = sorted(Path(snakemake.input.dataset).parent.glob("data/train-*.parquet"))
    control: Control | None = settings.get("control")
    pairs, count, exchanged = read_pairs(data, control, training["seed"])
    if control:
        job.note(
            f"control '{control}': chosen and rejected are exchanged in {exchanged} of {count}"
            " pairs"
        )
    identity = weights.identity(settings["model"], settings["revision"])
    job.record.models[settings["model"]] = identity
    determining = {name: value for name, value in training.items() if name not in WITHOUT_EFFECT}
    key = job.key(
        pairs=pairs,
        model=identity,
        dtype=settings["dtype"],
        prompt_template=settings["prompt_template"],
        training=determining,
    )
    folder = job.work / job.name / key[:16]
    finished = folder / "finished"
    with mendable_storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with no_other_workers(folder):
            checkpoint = last_checkpoint(folder / "checkpoints")
            if finished.exists() and not is_finished(finished):
                job.note(f"{finished}: is damaged; the adapter is trained again")
                shutil.rmtree(finished)
        state = trainer_state(checkpoint)
        if not finished.exists():
            if state["global_step"] != state["max_steps"]:
                told = Job(
                    str(weights.fetch(settings["model"], settings["revision"])),
                    settings["dtype"],
                    job.device,
                    settings["prompt_template"],
                    training,
                    [str(file) for file in data],
                    str(folder),
                    str(checkpoint) if checkpoint else None,
                    control,
                )
                train_in_processes(
                    job, told, job.root / "logs" / job.rule / f"{job.name}.workers.log"
                )
                job.record.computed = -state["global_step"]
                checkpoint = last_checkpoint(folder / "checkpoints")
                state = trainer_state(checkpoint)
                job.record.computed += state["global_step"]
            if checkpoint is None or state["global_step"] != state["max_steps"]:
                raise UserError(
                    f"{folder}: the training ended without a last checkpoint. Run again."
                )
            finish(checkpoint, finished, settings["model"], settings["revision"])
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        metrics = read_jsonl(finished / "metrics.jsonl")
        job.record.items = len(metrics)
        job.record.reused = len(metrics) - job.record.computed

        adapter = Path(snakemake.output.adapter)
        for name in ADAPTER_FILES:
            shutil.copyfile(finished / name, adapter.parent / name)
        shutil.copyfile(finished / "metrics.jsonl", snakemake.output.metrics)
    title = (
        f"{job.name}: DPO on {count} pairs, β = {training['beta']:g}, LoRA rank"
        f" {training['lora_rank']}"
    )
    if control:
        title += f"; control: {TRAINING_CONTROLS[control]} ({exchanged} exchanged)"
    draw_figure(metrics, title, [Path(snakemake.output.figure), Path(snakemake.output.picture)])
    job.write_record()


def train_in_processes(job: ShardJob, told: Job, output: Path) -> None:
    """Trains, and puts on record how long loading and training took."""
    progress = Progress(job.note)
    try:
        launch(told, progress, output)
    finally:
        ended = time.monotonic()
        job.record.load_seconds = (progress.loaded or ended) - progress.started
        job.record.compute_seconds = ended - (progress.loaded or ended)


if __name__ == "__main__":
    run_script(main)
