"""Rule train_dpo: direct preference optimization of the base model on one data set (paper 3.4, 4.1).

TRL's DPOTrainer trains a LoRA adapter on the language model; the reference is the same model with the adapter switched off. Under
Snakemake this script digests all that determines the training, looks what of it is done, and starts itself again through torchrun, one
process a GPU. A checkpoint counts once its marker, written last, lists all its files; a killed training goes on from the last one and
ends with the same bytes. A finished adapter stays under work/ by its digest, so that no training is done twice.
"""

import ctypes
import fcntl
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lib import models
from lib.errors import UserError
from lib.files import canonical_json, digest_of_file, mendable_storage_errors, read_jsonl, write_json, write_jsonl
from lib.job import SECONDS_BETWEEN_PROGRESS_LINES, ShardJob, duration, log, run_script
from lib.preference_format import PreferenceFormat, fit

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin
    from trl import DPOConfig, DPOTrainer

VERSION = 1
COLUMNS = ("images", "instruction", "chosen", "rejected")
#: The linear layers of the language model; not of the vision encoder, whose layers have the same names, nor its output layer.
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
#: How training runs, but not what comes out.
WITHOUT_EFFECT = ("save_steps",)
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
MARKER = "complete.json"
METRICS = (
    "epoch", "loss", "learning_rate", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
    "logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected", "entropy", "mean_token_accuracy",
)  # fmt: skip
EVENT = "train_dpo event: "
SECONDS_TO_WAIT_FOR_OLD_WORKERS = 60
LAST_LINES = 8
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """What the processes of one training are told."""

    base: str
    dtype: str
    device: str
    prompt_template: str
    settings: dict[str, Any]
    data: list[str]
    folder: str
    resume: str | None

    @property
    def checkpoints(self) -> Path:
        """Where the trainer writes."""
        return Path(self.folder, "checkpoints")

    @property
    def stop(self) -> Path:
        """The file whose presence asks the processes to save and end."""
        return Path(self.folder, "stop")

    def error(self, rank: int) -> Path:
        """Where a process leaves what stopped it."""
        return Path(self.folder, f"error-{rank}.json")


# ------------------------------------------------------------------------------------------------------------------------- the rule


def read_pairs(files: Sequence[Path]) -> tuple[str, int]:
    """What a data set's files say, as far as training reads it: its digest, and the number of pairs.

    Errors: UserError if a file is not a data set of this workflow, or there is no pair.
    """
    import pyarrow
    from pyarrow import parquet

    state, count = sha256(), 0
    for file in files:
        try:
            rows = parquet.ParquetFile(file)
            if missing := set(COLUMNS) - set(rows.schema_arrow.names):
                raise UserError(f"{file}: has no column {', '.join(sorted(missing))}. Delete it and run again: merge_pairs makes it anew.")
            for batch in rows.iter_batches(batch_size=64, columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    images = [sha256(image["bytes"]).hexdigest() for image in row["images"]]
                    state.update(canonical_json([images, row["instruction"], row["chosen"], row["rejected"]]).encode())
                    count += 1
        except (pyarrow.ArrowException, OSError, TypeError, KeyError) as error:
            raise UserError(f"{file}: is damaged ({error}). Delete it and run again: merge_pairs makes it anew.") from error
    if not count:
        raise UserError("The data set has no pair to train on. Lower `pairs.min_margin`, or give more prompts.")
    return state.hexdigest(), count


def complete(checkpoint: Path) -> bool:
    """Whether a checkpoint is whole: its marker is there, and the files have the sizes that it lists."""
    try:
        sizes: dict[str, int] = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items())


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
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state


def metrics_of(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an update, without anything that depends on time or on where a training was resumed."""
    return [{"step": row["step"], **{name: row[name] for name in METRICS if name in row}} for row in history if "loss" in row]


def finish(checkpoint: Path, finished: Path, base: str, revision: str) -> None:
    """Makes the folder with a training's results from its last checkpoint, whole or not at all."""
    with mendable_storage_errors(finished):
        scratch = finished.with_suffix(".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        shutil.copyfile(checkpoint / ADAPTER_FILES[0], scratch / ADAPTER_FILES[0])
        config = json.loads((checkpoint / ADAPTER_FILES[1]).read_text(encoding="utf-8"))
        # As configured, for whoever loads the adapter; an absolute path would say where it was made.
        config["base_model_name_or_path"] = Path(base).name if Path(base).expanduser().is_absolute() else base
        config["revision"] = None if models.is_folder(base) else revision
        write_json(scratch / ADAPTER_FILES[1], config)
        write_jsonl(scratch / "metrics.jsonl", metrics_of(trainer_state(checkpoint)["log_history"]))
        write_json(scratch / MARKER, {name: digest_of_file(scratch / name) for name in (*ADAPTER_FILES, "metrics.jsonl")})
        scratch.rename(finished)


def is_finished(finished: Path) -> bool:
    """Whether a training's results are there and undamaged."""
    try:
        digests: dict[str, str] = json.loads((finished / MARKER).read_text(encoding="utf-8"))
        return all(digest_of_file(finished / name) == content for name, content in digests.items())
    except (OSError, ValueError):
        return False


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent dies (Linux; elsewhere nothing).

    torchrun gives each worker a session of its own: killing the run's process group would leave them training, unseen.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def no_other_workers(folder: Path) -> Iterator[None]:
    """Waits until the processes of an earlier training in this folder, which may just have been killed, are gone."""
    with open(folder / "workers.lock", "a") as lock:
        patience = time.monotonic() + SECONDS_TO_WAIT_FOR_OLD_WORKERS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise UserError(f"{folder}: another training is at work here. Wait for it to end, or end it, and run again.") from None
                time.sleep(0.2)
        yield


def environment(job: Job) -> dict[str, str]:
    """The environment of the worker processes."""
    values = {
        **os.environ,
        # Programs that libraries look for on PATH (ninja) lie beside the interpreter, also where the environment is not activated.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        # Sums over several threads differ in their lowest bits with the number of threads, and that with `--cores`.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    if job.device == "cpu":
        values |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if models.is_folder(job.base):
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
            log.info("train_dpo: %d pairs, %d updates, %d of them done before", event["pairs"], event["steps"], event["begin"])
        elif "step" in event and self.loaded is not None:
            step, steps = event["step"], event["steps"]
            if now - self._last_line >= SECONDS_BETWEEN_PROGRESS_LINES or step == steps:
                left = (now - self.loaded) / (step - self.first) * (steps - step)
                log.info(
                    "train_dpo: update %d of %d, loss %.4f, margin %.4f, %s left",
                    step, steps, event["loss"], event["margin"], duration(left),
                )  # fmt: skip
                self._last_line = now


@contextmanager
def passing_on_stop_signals(job: Job) -> Iterator[list[int]]:
    """Turns SIGTERM and SIGUSR1 into a request to the workers to save a checkpoint and end; yields the signals received."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        job.stop.touch()
        log.warning("train_dpo: asked to stop (signal %d); saving a checkpoint", number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(job: Job, progress: Progress, output: Path) -> None:
    """Runs the training in `processes` processes and waits for it. All they print goes to the file `output`.

    Errors: UserError with what stopped them; SystemExit after a signal, once a checkpoint is saved.
    """
    folder = Path(job.folder)
    job.stop.unlink(missing_ok=True)
    for old in folder.glob("error-*.json"):
        old.unlink()
    write_json(folder / "job.json", asdict(job))
    processes = job.settings["processes"]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", str(Path(__file__).resolve()),
        "worker", str(folder / "job.json"),
    ]  # fmt: skip
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
            f"The training's processes ended with exit code {code} and left no reason, as when the system kills them for want of memory "
            f"(this rule's `mem_mb`). Their last lines:\n" + "\n".join(f"  {line[:300]}" for line in lines) + f"\nAll of them: {output}"
        )
    first = json.loads(errors[0].read_text(encoding="utf-8"))
    if first["user"]:
        return str(first["message"])
    if first["out_of_memory"]:
        return (
            f"Out of memory in process {first['rank']} of {processes}: {first['message'][:300]}\n"
            "Lower `training.settings.batch_size` and raise `gradient_accumulation` by as much, set `gradient_checkpointing: true`, raise "
            f"`zero_stage`, or use more `processes`. All that the processes said: {output}"
        )
    return (
        f"Process {first['rank']} of {processes} stopped: {first['type']}: {first['message'][:1000]}\n"
        f"Its last lines:\n" + "\n".join(f"  {line[:300]}" for line in first["trace"]) + f"\nAll that the processes said: {output}"
    )


def draw_figure(metrics: Sequence[dict[str, Any]], title: str, files: Sequence[Path]) -> None:
    """Loss, reward margin and reward accuracy of each update: each figure file is a function of the metrics alone."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": "train_dpo", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": "#e6e6e6", "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.titlesize": 10, "axes.titlelocation": "left",
        "axes.edgecolor": "#888888", "xtick.color": "#444444", "ytick.color": "#444444",
    }  # fmt: skip
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
        for axes, (name, key, colour, (level, text)) in zip(figure.subplots(1, 3), panels, strict=True):
            values = [row[key] for row in metrics]
            axes.axhline(level, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)))
            if text:
                axes.annotate(text, (1, level), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
                              ha="right", fontsize=7, color="#666666")  # fmt: skip
            if window > 1:
                means = [sum(part) / len(part) for end in range(1, len(values) + 1) if (part := values[max(0, end - window) : end])]
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
                figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    training = settings["training"]
    data = sorted(Path(snakemake.input.dataset).parent.glob("data/train-*.parquet"))
    pairs, count = read_pairs(data)
    identity = models.identity(settings["model"], settings["revision"])
    job.record.models[settings["model"]] = identity
    determining = {name: value for name, value in training.items() if name not in WITHOUT_EFFECT}
    key = job.key(pairs=pairs, model=identity, dtype=settings["dtype"], prompt_template=settings["prompt_template"], training=determining)
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
                    str(models.fetch(settings["model"], settings["revision"])), settings["dtype"], job.device, settings["prompt_template"],
                    training, [str(file) for file in data], str(folder), str(checkpoint) if checkpoint else None,
                )  # fmt: skip
                train_in_processes(job, told, job.root / "logs" / job.rule / f"{job.name}.workers.log")
                job.record.computed = -state["global_step"]
                checkpoint = last_checkpoint(folder / "checkpoints")
                state = trainer_state(checkpoint)
                job.record.computed += state["global_step"]
            if checkpoint is None or state["global_step"] != state["max_steps"]:
                raise UserError(f"{folder}: the training ended without a last checkpoint. Run again.")
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
    title = f"{job.name}: DPO on {count} pairs, β = {training['beta']:g}, LoRA rank {training['lora_rank']}"
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


# ----------------------------------------------------------------------------------------------------------------------- the worker


def tell(**event: Any) -> None:
    """Reports to the rule's process."""
    print(f"{EVENT}{json.dumps(event)}", flush=True)


def deepspeed_config(settings: dict[str, Any], dtype: str) -> dict[str, Any] | None:
    """DeepSpeed's configuration for a ZeRO stage; None for stage 0, which trains without DeepSpeed."""
    if not settings["zero_stage"]:
        return None
    zero: dict[str, Any] = {
        "stage": settings["zero_stage"],
        "contiguous_gradients": True,
        # An adapter's gradients are small, and a reduction that waits its turn always adds in the same order.
        "overlap_comm": False,
        "reduce_bucket_size": 50_000_000,
    }
    if settings["zero_stage"] == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": settings["batch_size"],
        "gradient_accumulation_steps": settings["gradient_accumulation"],
        "train_batch_size": settings["batch_size"] * settings["gradient_accumulation"] * settings["processes"],
        "gradient_clipping": settings["max_gradient_norm"],
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": False},
        "zero_optimization": zero,
    }


def without_compiled_operators() -> None:
    """Has DeepSpeed compile nothing on a CPU: no compiler is needed, no minute of waiting, no lock file that a killed build leaves.

    Its one operator for CPUs reduces through shared memory in inference; training reduces through gloo in any case. The table of usable
    operators is DeepSpeed's own, made on first access and kept for edits (deepspeed/ops/__init__.py).
    """
    import deepspeed.ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    deepspeed.ops.__compatible_ops__ = {**dict.fromkeys(ALL_OPS, False), "deepspeed_not_implemented": False}


def arguments(job: Job) -> "DPOConfig":
    """All that TRL is told, nothing that matters left to its defaults."""
    from trl import DPOConfig

    settings = job.settings
    return DPOConfig(
        output_dir=str(job.checkpoints),
        beta=settings["beta"],
        loss_type=["sigmoid"],
        max_length=settings["max_length"],
        truncation_mode="keep_start",
        # TRL switches the whole model's dropout off by default, the adapter's too: a configured dropout is to be one.
        disable_dropout=settings["lora_dropout"] == 0,
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=settings["gradient_accumulation"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["scheduler"],
        warmup_steps=settings["warmup_ratio"],  # below 1 it is a share of all steps
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=settings["weight_decay"],
        max_grad_norm=settings["max_gradient_norm"],
        bf16=job.dtype == "bfloat16",
        fp16=False,
        tf32=False if job.device == "cuda" else None,
        use_cpu=job.device == "cpu",
        deepspeed=deepspeed_config(settings, job.dtype),
        ddp_find_unused_parameters=False,
        gradient_checkpointing=settings["gradient_checkpointing"],
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings["gradient_checkpointing"] else None,
        seed=settings["seed"],
        data_seed=settings["seed"],
        dataloader_num_workers=2 if job.device == "cuda" else 0,
        dataloader_pin_memory=job.device == "cuda",
        remove_unused_columns=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would write a finite loss where there is none
        save_strategy="steps",
        save_steps=settings["save_steps"],
        save_total_limit=None,  # a checkpoint is deleted when a later one is complete, not before
        disable_tqdm=True,
        report_to="none",
    )


def load_processor(folder: str) -> "ProcessorMixin":
    """The base model's tokenizer and image processor."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder, trust_remote_code=False)


def preference_format(processor: "ProcessorMixin", template: str) -> PreferenceFormat:
    """The texts of a pair for this base model's tokenizer."""
    tokenizer = processor.tokenizer

    def encode(text: str, with_special_tokens: bool) -> list[int]:
        return list(tokenizer(text, add_special_tokens=with_special_tokens)["input_ids"])

    special = sorted({str(token) for token in tokenizer.all_special_tokens} | set(tokenizer.get_added_vocab()))
    return fit(template, encode, tokenizer.bos_token, tokenizer.eos_token, special)


def usable_pairs(dataset: "Dataset", form: PreferenceFormat, processor: "ProcessorMixin", max_length: int) -> tuple[list[int], list[str]]:
    """The rows that can be trained on, and notes on the others.

    A row is left out if a text of it spells a special token, or if image and instruction alone fill `max_length`.
    """
    import pyarrow
    from PIL import Image

    def lengths(texts: list[str]) -> list[int]:
        return [len(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    text = dataset.select_columns(["instruction", "chosen", "rejected"])
    image_tokens: dict[tuple[int, int], int] = {}
    kept, spelling, too_long, cut = [], 0, 0, 0
    prompts = lengths([form.prompt(row) for row in text["instruction"]])
    longest = [max(pair) for pair in zip(lengths([form.response(row) for row in text["chosen"]]),
                                         lengths([form.response(row) for row in text["rejected"]]), strict=True)]  # fmt: skip
    files = (row for batch in dataset.select_columns(["images"]).with_format("arrow").iter(64) for row in batch["images"])
    for index, (row, images) in enumerate(zip(text, files, strict=True)):
        with Image.open(pyarrow.BufferReader(images[0]["bytes"].as_buffer())) as image:
            size = image.size  # from the header: nothing is decoded
        if size not in image_tokens:
            ids = processor(images=Image.new("RGB", size), text="<image>", add_special_tokens=False)["input_ids"][0]
            image_tokens[size] = len(ids) - 1
        prompt = prompts[index] + image_tokens[size]
        if form.special_token_in(*row.values()):
            spelling += 1
        elif prompt >= max_length:
            too_long += 1
        else:
            kept.append(index)
            cut += prompt + longest[index] > max_length
    notes = []
    if spelling:
        notes.append(f"{spelling} pair(s) left out: a text spells a special token of the base model's tokenizer")
    if too_long:
        notes.append(f"{too_long} pair(s) left out: image and instruction alone fill `max_length` ({max_length} tokens)")
    if cut:
        notes.append(f"{cut} pair(s) have a response that is cut at `max_length` ({max_length} tokens)")
    if not kept:
        raise UserError(f"No pair can be trained on: {'; '.join(notes)}. Raise `training.settings.max_length`.")
    return kept, notes


def preference_dataset(job: Job, args: "DPOConfig", processor: "ProcessorMixin") -> "tuple[Dataset, list[str]]":
    """The pairs as TRL reads them, and notes on pairs left out.

    A row is `{"prompt", "chosen", "rejected": str, "images": [PIL image]}`, made when it is read: 9,000 images need no memory.
    """
    from datasets import Dataset

    form = preference_format(processor, job.prompt_template)
    with args.main_process_first(local=True):
        pairs = Dataset.from_parquet(job.data, cache_dir=str(Path(job.folder, "cache")))
    pairs = pairs.select_columns(list(COLUMNS))
    kept, notes = usable_pairs(pairs, form, processor, job.settings["max_length"])

    def texts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {
            "prompt": [form.prompt(text) for text in batch["instruction"]],
            "chosen": [form.response(text) for text in batch["chosen"]],
            "rejected": [form.response(text) for text in batch["rejected"]],
            "images": [[image.convert("RGB") for image in images] for images in batch["images"]],
        }

    return pairs.select(kept).with_transform(texts), notes


def build_trainer(job: Job) -> "DPOTrainer":
    """TRL's trainer with the base model, its new adapter and the pairs."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText
    from trl import DPOTrainer

    settings = job.settings
    if job.device == "cuda" and (found := torch.cuda.device_count()) < settings["processes"]:
        raise UserError(
            f"`training.settings.processes` is {settings['processes']}, one a GPU, but this machine shows {found} CUDA GPU(s). Ask "
            "for more, or lower `processes` and raise `gradient_accumulation` by as much."
        )
    args = arguments(job)  # before the model: under ZeRO-3 it has the weights loaded in parts
    if settings["zero_stage"] and job.device == "cpu":
        import deepspeed

        deepspeed.init_distributed("gloo", auto_mpi_discovery=False)  # on a GPU accelerate does it
    processor = load_processor(job.base)
    dataset, notes = preference_dataset(job, args, processor)
    if args.process_index == 0:
        for note in notes:
            tell(note=note)
    model = AutoModelForImageTextToText.from_pretrained(
        job.base, dtype=getattr(torch, job.dtype), use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
    )
    lora = LoraConfig(
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        target_modules=LORA_TARGETS,
        bias="none",
        task_type="CAUSAL_LM",
    )
    trainer = DPOTrainer(model=model, args=args, processing_class=processor, train_dataset=dataset, peft_config=lora)
    trainer.add_callback(_watching(job, len(dataset)))
    return trainer


def _watching(job: Job, pairs: int) -> Any:
    """The callback that reports progress, stops a training that diverges or is asked to stop, and marks complete checkpoints."""
    import torch
    from transformers import TrainerCallback

    stop_signals: list[int] = []
    if "RANK" in os.environ:
        # A scheduler may signal every process: the workers, too, first save.
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, frame: stop_signals.append(number))

    class Watching(TrainerCallback):  # type: ignore[misc]  # transformers publishes no types
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                tell(begin=state.global_step, steps=state.max_steps, pairs=pairs)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            asked = torch.tensor(int(bool(stop_signals) or job.stop.exists()), device=args.device)
            if args.world_size > 1:
                torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            if asked.item():
                control.should_save = control.should_training_stop = True
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
            if not logs or "loss" not in logs:
                return
            for name in ("loss", "grad_norm"):
                if not math.isfinite(logs.get(name, 0)):
                    raise UserError(
                        f"The training diverges: {name} is {logs[name]} at update {state.global_step} of {state.max_steps}. Lower "
                        "`training.settings.learning_rate`, or raise `warmup_ratio`; no checkpoint was written after the last finite loss."
                    )
            if state.is_world_process_zero:
                tell(step=state.global_step, steps=state.max_steps, loss=logs["loss"], margin=logs["rewards/margins"])

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            args.distributed_state.wait_for_everyone()  # each process writes its part
            if state.is_world_process_zero:
                checkpoint = job.checkpoints / f"checkpoint-{state.global_step}"
                files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
                write_json(checkpoint / MARKER, {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files})
                for older in job.checkpoints.glob("checkpoint-*"):
                    if older != checkpoint:
                        shutil.rmtree(older)

    return Watching()


def worker(path: Path) -> None:
    """One process of the training; what stops it is left in a file for the rule's process."""
    die_with_parent()
    if os.getppid() == 1:  # it died before that
        return
    job = Job(**json.loads(path.read_text(encoding="utf-8")))
    rank = int(os.environ["RANK"])
    with open(Path(job.folder, "workers.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            _train(job)
        except Exception as error:
            import traceback

            trace = [line.rstrip() for line in traceback.format_exception(error)[-LAST_LINES:]]
            write_json(
                job.error(rank),
                {
                    "rank": rank,
                    "type": type(error).__name__,
                    "message": str(error),
                    "user": isinstance(error, UserError),
                    "out_of_memory": type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error),
                    "trace": "\n".join(trace).split("\n")[-LAST_LINES:],
                },
            )
            raise


def _train(job: Job) -> None:
    import torch
    import transformers

    logging.captureWarnings(True)
    transformers.utils.logging.disable_progress_bar()
    if job.device == "cpu" and job.settings["zero_stage"]:
        without_compiled_operators()
    if job.device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    trainer = build_trainer(job)
    trainer.train(resume_from_checkpoint=job.resume)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(Path(sys.argv[2]))
    else:
        run_script(main)
