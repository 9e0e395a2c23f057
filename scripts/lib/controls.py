"""Negative controls: a choice of the workflow replaced by chance or by its contrary, so that one can see what the choice is worth.

What is drawn depends on a seed and the prompt id alone, never on a position.
"""

from typing import Literal

from lib.prompts import seed_of

Control = Literal["random", "swapped"]
#: What a control of training makes of the pairs, as tables and figures say it.
TRAINING_CONTROLS: dict[Control, str] = {"random": "labels at random", "swapped": "labels swapped"}


def is_exchanged(control: Control | None, seed: int, prompt_id: str) -> bool:
    """Whether a control has chosen and rejected of a prompt's pair change places: always, by a fair coin, or (None) never.

    `seed`: the training's.
    """
    return control == "swapped" or (control == "random" and seed_of(seed, "exchange", prompt_id) % 2 == 1)
