"""Direct preference optimization by TRL: a LoRA adapter on the language model; the reference is the
same model with the adapter switched off.
"""

import logging
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from lib.errors import UserError
from lib.jobs.processes import calling_on_stop_signals
from lib.loading import check_whole
from lib.patches.deepspeed import without_compiled_operators
from lib.patches.imports import hide_for_good, quick_imports
from lib.training.base import TrainingJob
from lib.training.image_tokens import load_processor
from lib.training.messages import Asked, Note, tell
from lib.training.preference_data import preference_dataset
from lib.training.reference import Reference
from lib.training.settings import TrainingSettings

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel
    from trl import DPOConfig

    from lib.training.once import ReferenceOnceTrainer

#: Names of modules, as a pattern, that are not in what transformers calls the language model.
ALL_BUT_LANGUAGE_MODEL = r"(?!.*\b(?:language_model|text_model|text_decoder|decoder)\.)"


class DPO:
    """TRL's DPOTrainer, under DeepSpeed unless `zero_stage` is 0."""

    VERSION: ClassVar[int] = 1
    Settings: ClassVar[type[TrainingSettings]] = TrainingSettings
    METRICS: ClassVar[tuple[str, ...]] = (
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
    HELD_OUT: ClassVar[Mapping[str, str]] = {
        "eval_loss": "held_out/loss",
        "eval_rewards/accuracies": "held_out/accuracies",
        "eval_rewards/margins": "held_out/margins",
    }

    @classmethod
    def train(cls, job: TrainingJob) -> None:
        """Does one process's part of a training."""
        # TRL imports it, in a second, for a report that is not asked for.
        hide_for_good("wandb")
        with quick_imports():
            import torch
            import trl.trainer.dpo_trainer  # noqa: F401  # with all that build_trainer imports

            from lib.training.watching import HeldOut, Watching

        set_up_libraries(job)
        was_connected = torch.distributed.is_initialized()
        trainer = build_trainer(job)
        pairs: Sized = trainer.train_dataset
        watching = Watching(job, len(pairs))
        if job.held_out:
            trainer.add_callback(HeldOut())  # before the one that marks checkpoints
        trainer.add_callback(watching)
        with calling_on_stop_signals(watching.stop), keeping_reference(job, trainer):
            trainer.train(resume_from_checkpoint=str(job.resume) if job.resume else None)
            if torch.distributed.is_initialized() and not was_connected:
                torch.distributed.destroy_process_group()


@contextmanager
def keeping_reference(job: TrainingJob, trainer: "ReferenceOnceTrainer") -> Iterator[None]:
    """Has the trainer ask the reference once about a batch, where the job says where its answers
    are kept.
    """
    if job.reference is None:
        yield
        return
    with Reference(job.reference, trainer.args.process_index) as reference:
        trainer.keep_reference(reference, agrees=job.settings.zero_stage == 3)
        yield
        if trainer.args.process_index == 0:
            tell(Asked(computed=reference.computed, found=reference.found))


def set_up_libraries(job: TrainingJob) -> None:
    """Has the libraries compute reproducibly, compile nothing on a CPU, and draw no bars."""
    import torch
    import transformers

    logging.captureWarnings(True)
    transformers.utils.logging.disable_progress_bar()
    if job.device == "cpu" and job.settings.zero_stage:
        without_compiled_operators()
    if job.device == "cuda":
        # With `warn_only`, attention's backward pass would not be computed alike either.
        torch.use_deterministic_algorithms(True, warn_only=not job.deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = False


def build_trainer(job: TrainingJob) -> "ReferenceOnceTrainer":
    """TRL's trainer with the base model, its new adapter and the pairs."""
    from lib.training.once import ReferenceOnceTrainer

    require_gpus(job)
    check_whole(job.base, with_images=True)  # before the arguments, for the same reason
    args = training_arguments(job)  # before the model: under ZeRO-3 it is then loaded in parts
    if job.settings.zero_stage and job.device == "cpu":
        import deepspeed

        deepspeed.init_distributed("gloo", auto_mpi_discovery=False)  # on a GPU accelerate does it
    processor = load_processor(job.base)
    dataset, notes = preference_dataset(job, args, processor)
    held_out = None
    if job.held_out:
        held_out, further = preference_dataset(job, args, processor, is_held_out=True)
        notes += [f"held out: {note}" for note in further]
    if args.process_index == 0:
        for note in notes:
            tell(Note(note=note))
    model = load_model(job)
    options: dict[str, Any] = {
        "model": model,
        "args": args,
        "processing_class": processor,
        "train_dataset": dataset,
        "eval_dataset": held_out,
        "peft_config": lora_config(job.settings, model),
    }
    if options["peft_config"].modules_to_save:
        from lib.training.whole_modules import WholeModulesTrainer

        return WholeModulesTrainer(job.settings.projector_learning_rate, **options)
    return ReferenceOnceTrainer(**options)


def require_gpus(job: TrainingJob) -> None:
    """A UserError if there are fewer GPUs than processes."""
    import torch

    processes = job.settings.processes
    if job.device == "cuda" and (gpus := torch.cuda.device_count()) < processes:
        raise UserError(
            f"`training.settings.processes` is {processes}, one a GPU, but this machine shows"
            f" {gpus} CUDA GPU(s). Ask for more, or lower `processes` and raise"
            " `gradient_accumulation` by as much."
        )


def in_4_bits(job: TrainingJob) -> dict[str, Any]:
    """What loads a base model in QLoRA's form: the layers of its language model in 4-bit
    NormalFloat, the constants quantized too, computed in the model's dtype. The rest, which the
    merged model has as it is, stays so.
    """
    import torch
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, job.dtype),
        llm_int8_skip_modules=[ALL_BUT_LANGUAGE_MODEL],
    )
    device = torch.cuda.current_device() if job.device == "cuda" else job.device
    return {"quantization_config": quantization, "device_map": {"": device}}


def load_model(job: TrainingJob) -> "PreTrainedModel":
    """The base model's weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(
        str(job.base),
        **(in_4_bits(job) if job.settings.tuning == "qlora" else {}),
        dtype=getattr(torch, job.dtype),
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation="sdpa",
    )


def lora_targets(model: "PreTrainedModel") -> str:
    """A pattern of the names of the language model's linear layers: not of the vision tower, whose
    layers may have the same names, nor of the output layer.
    """
    import torch

    decoder = model.get_decoder()
    [path] = [name for name, module in model.named_modules() if module is decoder]
    linear = dict.fromkeys(
        name.rpartition(".")[2]
        for name, module in decoder.named_modules()
        if isinstance(module, torch.nn.Linear)
    )
    return rf".*{path.rpartition('.')[2]}.*\.({'|'.join(linear)})"


def trained_wholly(settings: TrainingSettings, model: "PreTrainedModel") -> list[str] | None:
    """The modules whose weights are trained themselves; None where none are."""
    from lib.training.whole_modules import language_model_of, projectors_of

    projector = projectors_of(model) if settings.projector_learning_rate else []
    language_model = language_model_of(model) if settings.tuning == "full" else []
    return projector + language_model or None


def lora_config(settings: TrainingSettings, model: "PreTrainedModel") -> "LoraConfig":
    """The adapter, as PEFT takes it."""
    from peft import LoraConfig
    from peft.utils.constants import DUMMY_TARGET_MODULES

    return LoraConfig(
        modules_to_save=trained_wholly(settings, model),
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        # PEFT's word for no adapter at all.
        target_modules=(DUMMY_TARGET_MODULES if settings.tuning == "full" else lora_targets(model)),
        bias="none",
        task_type="CAUSAL_LM",
    )


def training_arguments(job: TrainingJob) -> "DPOConfig":
    """All of TRL's arguments, nothing that matters left to its defaults."""
    from trl import DPOConfig

    settings, is_on_gpu = job.settings, job.device == "cuda"
    return DPOConfig(
        output_dir=str(job.checkpoints),
        beta=settings.beta,
        # In the order of their names: sums of float32 differ with it, and keys do not.
        loss_type=sorted(settings.losses),
        loss_weights=[weight for _, weight in sorted(settings.losses.items())],
        label_smoothing=settings.label_smoothing,
        max_length=settings.max_length,
        truncation_mode="keep_start",
        # TRL switches the whole model's dropout off by default, the adapter's too: a configured
        # dropout is to be one.
        disable_dropout=settings.lora_dropout == 0,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=1,  # the means are over batches, which are to weigh the same
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup_ratio,  # below 1 it is a share of all steps
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        bf16=job.dtype == "bfloat16",
        fp16=False,
        tf32=False if is_on_gpu else None,
        use_cpu=job.device == "cpu",
        deepspeed=deepspeed_config(settings, job.dtype),
        ddp_find_unused_parameters=False,
        gradient_checkpointing=job.recomputes,
        gradient_checkpointing_kwargs={"use_reentrant": False} if job.recomputes else None,
        seed=settings.seed,
        data_seed=settings.seed,
        dataloader_num_workers=2 if is_on_gpu else 0,
        dataloader_pin_memory=is_on_gpu,
        remove_unused_columns=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would write a finite loss where there is none
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=None,  # a checkpoint is deleted when a later one is complete, not before
        disable_tqdm=True,
        report_to="none",
    )


def deepspeed_config(settings: TrainingSettings, dtype: str) -> dict[str, Any] | None:
    """DeepSpeed's configuration for a ZeRO stage; None for stage 0, which is without DeepSpeed."""
    if not settings.zero_stage:
        return None
    zero: dict[str, Any] = {
        "stage": settings.zero_stage,
        "contiguous_gradients": True,
        # An adapter's gradients are small, and a reduction that waits its turn always adds in the
        # same order.
        "overlap_comm": False,
        "reduce_bucket_size": 50_000_000,
    }
    if settings.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    pairs_an_update = settings.batch_size * settings.gradient_accumulation * settings.processes
    return {
        "train_micro_batch_size_per_gpu": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "train_batch_size": pairs_an_update,
        "gradient_clipping": settings.max_gradient_norm,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": False},
        "zero_optimization": zero,
    }
