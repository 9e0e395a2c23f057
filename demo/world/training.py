"""One training: a model, its loss, and a plan; resumed where it was killed, and the same from the
same seed.

Everything random in a step is drawn from the seed and the step's number, so that a training that
was killed and resumed sees what an undisturbed one sees. The state is kept every two minutes and
when the process is asked to end (SIGTERM); the log is plain text. The plan's learning rate rises,
stays, and falls to nothing over the last part, so a training that is longer than planned can be had
from the state of a shorter one as long as the fall has not begun.
"""

import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

SAVE_EVERY = 120  # seconds
LOG_EVERY = 100  # steps
#: Matrices that Muon is not for: those that read or write the outside, and what sets a block's
#: gains.
NOT_INNER = re.compile(r"norm\w*\.linear|proj_out|lm_head|projection\.weight|time_text")


@dataclass(frozen=True)
class Plan:
    """How a model is trained.

    Attributes:
        steps: in all.
        batch: examples a step.
        learning_rate: at its height.
        warmup: steps over which the learning rate rises.
        decay: the last part of the steps, over which it falls to nothing (as the square root's
            complement).
        average: of the weights' moving average, a step; None keeps the last weights.
        weight_decay: of matrices.
        muon: learning rate at its height of the matrices inside of layers, which Muon then trains
            in AdamW's place; None: AdamW.
        seed: of everything random.
    """

    steps: int
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.4
    average: float | None = 0.998
    weight_decay: float = 0.01
    muon: float | None = None
    seed: int = 0

    def share(self, step: int) -> float:
        """The learning rate of a step as a share of its height."""
        fall = self.steps * self.decay
        left = min(1.0, (self.steps - step) / fall) if fall else 1.0
        return min(1.0, (step + 1) / self.warmup) * (1 - math.sqrt(1 - left))


class Draw:
    """What a step draws from: numpy's generator for scenes and words, torch's for tensors."""

    def __init__(self, seed: int, step: int) -> None:
        self.number = step
        self.numpy = np.random.default_rng([seed, step])
        self.torch = torch.Generator().manual_seed(int(self.numpy.integers(2**62)))

    def normal(self, *shape: int) -> torch.Tensor:
        """Normal noise of a shape."""
        return torch.randn(*shape, generator=self.torch)


class EndRequest:
    """Whether the process was asked to end."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """The optimizers of a plan. Matrices shrink; everything else (biases, gains, embeddings) does
    not.
    """
    inner, matrices, others = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or "embed" in name or "shared" in name:
            others.append(parameter)
        elif plan.muon and parameter.ndim == 2 and not NOT_INNER.search(name):
            inner.append(parameter)
        else:
            matrices.append(parameter)
    shrinking = {"params": matrices, "weight_decay": plan.weight_decay}
    plain = {"params": others, "weight_decay": 0.0}
    created: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([shrinking, plain], lr=plan.learning_rate, betas=(0.9, 0.99), fused=True)
    ]
    if inner:
        created.append(
            torch.optim.Muon(
                inner,
                lr=plan.muon or 0.0,
                weight_decay=plan.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    for optimizer in created:
        for group in optimizer.param_groups:
            group["height"] = group["lr"]
    return created


def say(log: Path, text: str) -> None:
    """Adds a line to a log, and prints it."""
    with log.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")
    print(text, flush=True)


class Training:
    """A model in training, with what is kept so that a killed training goes on.

    Attributes:
        step: steps taken.
        seconds: that they took.
    """

    def __init__(self, name: str, model: nn.Module, plan: Plan, work: Path) -> None:
        self.name, self.model, self.plan = name, model, plan
        self.state_file, self.log_file = work / f"{name}.state.pt", work / f"{name}.log"
        self.optimizers = optimizers(model, plan)
        self.trained = [each for each in model.parameters() if each.requires_grad]
        self.averages = [each.detach().clone() for each in self.trained] if plan.average else []
        self.step, self.seconds = 0, 0.0

    def log(self, text: str) -> None:
        """Says something about the training."""
        say(self.log_file, f"{self.name}: {text}")

    def resume(self) -> None:
        """Takes the kept state, if there is one."""
        if not self.state_file.is_file():
            count = sum(parameter.numel() for parameter in self.trained) / 1e6
            self.log(f"{count:.2f} M parameters, {self.plan}")
            return
        state = torch.load(self.state_file, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for average, kept in zip(self.averages, state["averages"], strict=True):
            average.copy_(kept)
        self.step, self.seconds = state["step"], state["seconds"]
        if self.step < self.plan.steps:
            self.log(f"resumed at step {self.step}, {self.plan}")

    def save(self) -> None:
        """Keeps the state."""
        temporary = self.state_file.with_suffix(".tmp")
        content = {
            "model": self.model.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
            "averages": self.averages,
        }
        torch.save(content | {"step": self.step, "seconds": self.seconds}, temporary)
        temporary.replace(self.state_file)

    def take_step(self, loss_of: Callable[[Draw], torch.Tensor]) -> float:
        """Trains on one draw, and gives its loss."""
        start = time.monotonic()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["height"] * self.plan.share(self.step)
        # On a core that has instructions for bfloat16 both save a quarter of the time; weights and
        # their updates stay in float32.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            loss = loss_of(Draw(self.plan.seed, self.step))
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.follow_weights()
        value = float(loss.item())
        self.seconds += time.monotonic() - start
        return value

    def follow_weights(self) -> None:
        """Moves the averages towards the weights, where averages are kept."""
        if self.averages:
            # In the beginning the average follows closely, so that it does not remember the random
            # start.
            weight = 1 - min(self.plan.average or 0.0, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.averages, [each.detach() for each in self.trained], weight)

    def exchange_averages(self) -> None:
        """Exchanges the weights with their averages, where averages are kept."""
        for parameter, average in zip(self.trained, self.averages, strict=False):
            kept = parameter.detach().clone()
            parameter.data.copy_(average)
            average.copy_(kept)

    def log_judgement(self, judge: Callable[[], str]) -> None:
        """Says what the averaged weights reach."""
        self.exchange_averages()
        self.model.eval()
        self.log(f"step {self.step}, {judge()}, {self.seconds / 60:.2f} min")
        self.model.train()
        self.exchange_averages()


def train(
    name: str,
    model: nn.Module,
    loss_of: Callable[[Draw], torch.Tensor],
    plan: Plan,
    work: Path,
    judge: Callable[[], str] | None = None,
    judge_every: int = 0,
) -> nn.Module:
    """Trains a model in place and gives it back with its final weights; does nothing where that was
    done before.

    Args:
        name: of the files in `work`: `<name>.state.pt` and `<name>.log`.
        model: all that is trained.
        loss_of: the loss of a step's draw.
        plan: how.
        work: folder for the state and the log.
        judge: what to say in the log of the averaged weights.
        judge_every: steps between two judgements; 0: never.
    """
    work.mkdir(parents=True, exist_ok=True)
    training = Training(name, model, plan, work)
    training.resume()
    end_request = EndRequest()
    saved = time.monotonic()
    losses: list[float] = []
    model.train()
    while training.step < plan.steps:
        losses.append(training.take_step(loss_of))
        step, minutes = training.step, training.seconds / 60
        is_last = step == plan.steps
        if step % LOG_EVERY == 0:
            training.log(f"step {step}, loss {sum(losses) / len(losses):.4f}, {minutes:.2f} min")
            losses.clear()
        if judge and judge_every and step % judge_every == 0 and not is_last:
            training.log_judgement(judge)
        if end_request.received or time.monotonic() - saved > SAVE_EVERY or is_last:
            training.save()
            saved = time.monotonic()
        if end_request.received and not is_last:
            training.log(f"asked to end, kept at step {step}")
            sys.exit(os.EX_TEMPFAIL)
    training.exchange_averages()
    return model.eval()
