"""The program of each training process: TRL's DPOTrainer on one data set, started by rule train_dpo
through torchrun.

    python -m torch.distributed.run --nproc-per-node=N --module lib.dpo_worker JOB.json

It trains a LoRA adapter on the language model; the reference is the same model with the adapter
switched off. A checkpoint counts once its marker, written last, lists all its files.
"""

import ctypes
import fcntl
import json
import logging
import math
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.controls import Control, is_exchanged
from lib.errors import UserError
from lib.files import write_json
from lib.loading import quick_imports
from lib.preference_format import PreferenceFormat, fit

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin
    from trl import DPOConfig, DPOTrainer

COLUMNS = ("images", "instruction", "chosen", "rejected")
#: The linear layers of the language model; not of the vision encoder, whose layers have the same
#: names, nor its output layer.
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
MARKER = "complete.json"
METRICS = (
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "logits/chosen",
    "logits/rejected",
    "entropy",
    "mean_token_accuracy",
)
EVENT = "train_dpo event: "
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
    control: Control | None = None

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


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent dies (Linux; elsewhere nothing).

    torchrun gives each worker a session of its own: killing the run's process group would leave
    them training, unseen.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def complete(checkpoint: Path) -> bool:
    """Whether a checkpoint is whole: its marker is there, and the files have the sizes that it
    lists.
    """
    try:
        sizes: dict[str, int] = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in sizes.items()
    )


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
        # An adapter's gradients are small, and a reduction that waits its turn always adds in the
        # same order.
        "overlap_comm": False,
        "reduce_bucket_size": 50_000_000,
    }
    if settings["zero_stage"] == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": settings["batch_size"],
        "gradient_accumulation_steps": settings["gradient_accumulation"],
        "train_batch_size": (
            settings["batch_size"] * settings["gradient_accumulation"] * settings["processes"]
        ),
        "gradient_clipping": settings["max_gradient_norm"],
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": False},
        "zero_optimization": zero,
    }


def without_compiled_operators() -> None:
    """Has DeepSpeed compile nothing on a CPU: no compiler is needed, no minute of waiting, no lock
    file that a killed build leaves.

    Its one operator for CPUs reduces through shared memory in inference; training reduces through
    gloo in any case. The table of usable operators is DeepSpeed's own, made on first access and
    kept for edits (deepspeed/ops/__init__.py).
    """
    import deepspeed.ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    deepspeed.ops.__compatible_ops__ = {
        **dict.fromkeys(ALL_OPS, False),
        "deepspeed_not_implemented": False,
    }


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
        # TRL switches the whole model's dropout off by default, the adapter's too: a configured
        # dropout is to be one.
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
        gradient_checkpointing_kwargs=(
            {"use_reentrant": False} if settings["gradient_checkpointing"] else None
        ),
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

    special = sorted(
        {str(token) for token in tokenizer.all_special_tokens} | set(tokenizer.get_added_vocab())
    )
    return fit(template, encode, tokenizer.bos_token, tokenizer.eos_token, special)


def usable_pairs(
    dataset: "Dataset", form: PreferenceFormat, processor: "ProcessorMixin", max_length: int
) -> tuple[list[int], list[str]]:
    """The rows that can be trained on, and notes on the others.

    A row is left out if a text of it spells a special token, or if image and instruction alone fill
    `max_length`.
    """
    import pyarrow
    from PIL import Image

    def lengths(texts: list[str]) -> list[int]:
        return [
            len(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]

    text = dataset.select_columns(["instruction", "chosen", "rejected"])
    image_tokens: dict[tuple[int, int], int] = {}
    kept, spelling, too_long, cut = [], 0, 0, 0
    prompts = lengths([form.prompt(row) for row in text["instruction"]])
    longest = [
        max(pair)
        for pair in zip(
            lengths([form.response(row) for row in text["chosen"]]),
            lengths([form.response(row) for row in text["rejected"]]),
            strict=True,
        )
    ]
    files = (
        row
        for batch in dataset.select_columns(["images"]).with_format("arrow").iter(64)
        for row in batch["images"]
    )
    for index, (row, images) in enumerate(zip(text, files, strict=True)):
        with Image.open(pyarrow.BufferReader(images[0]["bytes"].as_buffer())) as image:
            size = image.size  # from the header: nothing is decoded
        if size not in image_tokens:
            ids = processor(
                images=Image.new("RGB", size), text="<image>", add_special_tokens=False
            )["input_ids"][0]
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
        notes.append(
            f"{spelling} pair(s) left out: a text spells a special token of the base model's"
            " tokenizer"
        )
    if too_long:
        notes.append(
            f"{too_long} pair(s) left out: image and instruction alone fill `max_length`"
            f" ({max_length} tokens)"
        )
    if cut:
        notes.append(
            f"{cut} pair(s) have a response that is cut at `max_length` ({max_length} tokens)"
        )
    if not kept:
        raise UserError(
            f"No pair can be trained on: {'; '.join(notes)}. Raise `training.settings.max_length`."
        )
    return kept, notes


def preference_dataset(
    job: Job, args: "DPOConfig", processor: "ProcessorMixin"
) -> "tuple[Dataset, list[str]]":
    """The pairs as TRL reads them, and notes on pairs left out.

    A row is `{"prompt", "chosen", "rejected": str, "images": [PIL image]}`, made when it is read:
    9,000 images need no memory. In a negative control chosen and rejected of some or all rows have
    changed places.
    """
    from datasets import Dataset

    form = preference_format(processor, job.prompt_template)
    with args.main_process_first(local=True):
        pairs = Dataset.from_parquet(job.data, cache_dir=str(Path(job.folder, "cache")))
    pairs = pairs.select_columns([*COLUMNS, *(["id"] if job.control else [])])
    kept, notes = usable_pairs(pairs, form, processor, job.settings["max_length"])

    def texts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        sides = list(zip(batch["chosen"], batch["rejected"], strict=True))
        if job.control:
            exchanged = [
                is_exchanged(job.control, job.settings["seed"], prompt_id)
                for prompt_id in batch["id"]
            ]
            sides = [
                pair[::-1] if swap else pair for pair, swap in zip(sides, exchanged, strict=True)
            ]
        return {
            "prompt": [form.prompt(text) for text in batch["instruction"]],
            "chosen": [form.response(chosen) for chosen, _ in sides],
            "rejected": [form.response(rejected) for _, rejected in sides],
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
            f"`training.settings.processes` is {settings['processes']}, one a GPU, but this machine"
            f" shows {found} CUDA GPU(s). Ask for more, or lower `processes` and raise"
            " `gradient_accumulation` by as much."
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
        job.base,
        dtype=getattr(torch, job.dtype),
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation="sdpa",
    )
    lora = LoraConfig(
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        target_modules=LORA_TARGETS,
        bias="none",
        task_type="CAUSAL_LM",
    )
    trainer = DPOTrainer(
        model=model, args=args, processing_class=processor, train_dataset=dataset, peft_config=lora
    )
    trainer.add_callback(_watching(job, len(dataset)))
    return trainer


def _watching(job: Job, pairs: int) -> Any:
    """The callback that reports progress, stops a training that diverges or is asked to stop, and
    marks complete checkpoints.
    """
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

        def on_log(
            self,
            args: Any,
            state: Any,
            control: Any,
            logs: dict[str, Any] | None = None,
            **kwargs: Any,
        ) -> None:
            if not logs or "loss" not in logs:
                return
            for name in ("loss", "grad_norm"):
                if not math.isfinite(logs.get(name, 0)):
                    raise UserError(
                        f"The training diverges: {name} is {logs[name]} at update"
                        f" {state.global_step} of {state.max_steps}. Lower"
                        " `training.settings.learning_rate`, or raise `warmup_ratio`; no"
                        " checkpoint was written after the last finite loss."
                    )
            if state.is_world_process_zero:
                tell(
                    step=state.global_step,
                    steps=state.max_steps,
                    loss=logs["loss"],
                    margin=logs["rewards/margins"],
                )

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            args.distributed_state.wait_for_everyone()  # each process writes its part
            if state.is_world_process_zero:
                checkpoint = job.checkpoints / f"checkpoint-{state.global_step}"
                files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
                write_json(
                    checkpoint / MARKER,
                    {
                        path.relative_to(checkpoint).as_posix(): path.stat().st_size
                        for path in files
                    },
                )
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
            train(job)
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
                    "out_of_memory": (
                        type(error).__name__ == "OutOfMemoryError"
                        or "can't allocate memory" in str(error)
                    ),
                    "trace": "\n".join(trace).split("\n")[-LAST_LINES:],
                },
            )
            raise


def train(job: Job) -> None:
    # TRL imports it, in a second, for a report that is not asked for.
    sys.modules["wandb"] = None  # type: ignore[assignment]
    with quick_imports():
        import torch
        import transformers
        import trl.trainer.dpo_trainer  # noqa: F401  # with all that build_trainer imports

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
    worker(Path(sys.argv[1]))
