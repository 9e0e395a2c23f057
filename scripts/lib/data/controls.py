"""Negative controls: a choice of the workflow replaced by chance or by its contrary, so that one
can see what the choice is worth.

What is drawn depends on a seed and the prompt id alone, never on a position.
"""

from collections.abc import Sequence
from typing import Literal

from lib.data.prompts import seed_of
from lib.data.rows import Candidate

Pick = Literal["best", "random"]
Control = Literal["random", "swapped"]
#: What a control of training makes of the pairs, as tables and figures say it.
TRAINING_CONTROLS: dict[Control, str] = {"random": "labels at random", "swapped": "labels swapped"}


def pick_of(
    candidates: Sequence[Candidate], winner: int, pick: Pick, seed: int, prompt_id: str
) -> int:
    """Which of a prompt's candidates goes on: the ranking's winner, or one drawn among those that
    show anything (`random`).

    Each candidate gets its own seeded draw (by guidance scale), so one turning blank changes only
    the prompts that had drawn it.
    `candidates`: of the prompt's row of stage images; `seed`: the run's.
    """
    if pick == "best":
        return winner
    valid = [index for index, candidate in enumerate(candidates) if not candidate["blank"]]
    scales = [candidate["guidance_scale"] for candidate in candidates]

    def draw(index: int) -> int:
        before = scales[:index].count(scales[index])  # several seeds at one scale
        return seed_of(seed, "pick", prompt_id, scales[index], *([before] if before else []))

    return min(valid, key=draw)


def is_exchanged(control: Control | None, seed: int, prompt_id: str) -> bool:
    """Whether a control has chosen and rejected of a prompt's pair change places: always, by a fair
    coin, or (None) never.

    `seed`: the training's.
    """
    return control == "swapped" or (
        control == "random" and seed_of(seed, "exchange", prompt_id) % 2 == 1
    )
