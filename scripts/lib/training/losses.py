"""The losses that TRL's DPOTrainer knows, by its names, and what each needs. Nothing here imports
torch.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field


@dataclass(frozen=True)
class Loss:
    """A loss: what it is, its source, whether `label_smoothing` changes it, and whether it compares
    pairs of a batch with each other.
    """

    what: str
    source: str
    smooths: bool = False
    sorts_batch: bool = False


LOSSES = {
    "sigmoid": Loss("DPO", "2305.18290"),
    "sigmoid_norm": Loss("DPO with rewards of the mean token, not of the sum", "2411.15124"),
    "hinge": Loss("a hinge on the reward margin (SLiC-HF)", "2305.10425"),
    "ipo": Loss("IPO: the margin of the mean token is to be 1/(2 beta)", "2310.12036"),
    "exo_pair": Loss("EXO: reverse KL to the smoothed preference", "2402.00856", smooths=True),
    "nca_pair": Loss("NCA: the chosen response's own reward counts, too", "2402.05369"),
    "robust": Loss("DPO for a known share of wrong labels", "2403.00409", smooths=True),
    "bco_pair": Loss("BCO: each response classified by its reward", "2404.04656"),
    "sppo_hard": Loss("SPPO with certain wins", "2405.00675"),
    "aot": Loss("sorted margins against the reference's", "2406.05882", True, True),
    "aot_unpaired": Loss("sorted rewards, pairs dissolved", "2406.05882", True, True),
    "apo_zero": Loss("APO: chosen likelier, rejected less", "2408.06266"),
    "apo_down": Loss("APO: both less likely, rejected more so", "2408.06266"),
    "discopop": Loss("DiscoPOP: logistic and exponential, blended", "2406.08414"),
    "sft": Loss("the chosen response's likelihood, without reference (MPO)", "2411.10442"),
}


def known_loss(name: str) -> str:
    """The name of a loss. Errors: ValueError with what may have been meant."""
    if name in LOSSES:
        return name
    near = [known for known in LOSSES if known.startswith(name)]
    near = near or difflib.get_close_matches(name, LOSSES, n=2)
    hint = f"Did you mean {' or '.join(map(repr, near))}" if near else f"Known: {', '.join(LOSSES)}"
    raise ValueError(f"there is no loss '{name}'. {hint}")


LossName = Annotated[str, AfterValidator(known_loss)]
Weight = Annotated[float, Field(gt=0)]


def problem_with(
    losses: Mapping[str, float], label_smoothing: float, batch_size: int
) -> str | None:
    """What the losses of a training lack among its settings; None if nothing."""
    if not losses:
        return "`losses` names none. Write `{sigmoid: 1.0}`, or leave it out"
    smooth = [name for name in losses if LOSSES[name].smooths]
    for name in ("exo_pair", "robust"):
        if name in losses and not 0 < label_smoothing < 0.5:
            typical = {"exo_pair": "0.001", "robust": "0.1, the share of wrong labels"}[name]
            return (
                f"loss '{name}' needs `label_smoothing` between 0 and 0.5 (found"
                f" {label_smoothing:g}). Its authors take {typical}"
            )
    if label_smoothing and not smooth:
        uses = ", ".join(name for name, loss in LOSSES.items() if loss.smooths)
        return (
            f"`label_smoothing` changes nothing of {', '.join(losses)}: TRL's losses with it are"
            f" {uses}. Take it away, or take one of these"
        )
    for name in losses:
        if LOSSES[name].sorts_batch and batch_size < 2:
            return (
                f"loss '{name}' sorts the pairs of a batch, and `batch_size` is {batch_size}. Raise"
                " it, and lower `gradient_accumulation` by as much"
            )
    return None
