"""The callback of transformers' trainers that reports progress, stops a training that diverges or
is asked to stop, and marks complete checkpoints.
"""

import math
from typing import Any

import torch
from transformers import TrainerCallback

from lib.errors import UserError
from lib.training.base import TrainingJob
from lib.training.checkpoints import delete_others, mark_complete
from lib.training.messages import Begin, Update, tell


class Watching(TrainerCallback):  # type: ignore[misc]  # transformers publishes no types
    """Watches one training.

    A scheduler may signal every process: the workers, too, save a checkpoint before they end.
    """

    def __init__(self, job: TrainingJob, pairs: int) -> None:
        self.job = job
        self.pairs = pairs
        self._is_signalled = False

    def stop(self, signal: int) -> None:
        """Has the training stop after this update; a signal asks for it."""
        self._is_signalled = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reports that the model is loaded."""
        if state.is_world_process_zero:
            tell(Begin(begin=state.global_step, steps=state.max_steps, pairs=self.pairs))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Has all processes save and stop if one of them is asked to."""
        is_asked = self._is_signalled or self.job.stop.exists()
        stops = torch.tensor(int(is_asked), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(stops, torch.distributed.ReduceOp.MAX)
        if stops.item():
            control.should_save = control.should_training_stop = True
        return control

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reports an update. Errors: UserError if the training diverges."""
        if not logs or "loss" not in logs:
            return
        refuse_divergence(logs, state.global_step, state.max_steps)
        if state.is_world_process_zero:
            margin = logs["rewards/margins"]
            step, steps = state.global_step, state.max_steps
            tell(Update(step=step, steps=steps, loss=logs["loss"], margin=margin))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Marks a checkpoint that all processes have written, and deletes the ones before it."""
        args.distributed_state.wait_for_everyone()  # each process writes its part
        if state.is_world_process_zero:
            checkpoint = self.job.checkpoints / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint)
            delete_others(self.job.checkpoints, kept=checkpoint)


class HeldOut(TrainerCallback):  # type: ignore[misc]  # transformers publishes no types
    """Asks the held-out pairs up to ten times in a training, and at its end. The trainer does so
    before it saves a checkpoint of the same update, whose log therefore has the answer.
    """

    TIMES = 10

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Has the trainer ask them where it is time."""
        every = math.ceil(state.max_steps / self.TIMES)
        if state.global_step % every == 0 or state.global_step == state.max_steps:
            control.should_evaluate = True
        return control


def refuse_divergence(logs: dict[str, float], step: int, steps: int) -> None:
    """A UserError if an update's loss or gradient is not a finite number."""
    for name in ("loss", "grad_norm"):
        if not math.isfinite(logs.get(name, 0)):
            raise UserError(
                f"The training diverges: {name} is {logs[name]} at update {step} of {steps}. Lower"
                " `training.settings.learning_rate`, or raise `warmup_ratio`; no checkpoint was"
                " written after the last finite loss."
            )
