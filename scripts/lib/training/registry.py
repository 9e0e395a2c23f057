"""The trainers that there are. The rule names its own (`TrainDpoJob.trainer`)."""

from lib.registry import Registry
from lib.training.base import Trainer

TRAINERS: Registry[Trainer] = Registry("trainer", {"dpo": "lib.training.dpo:DPO"}, key="trainer")
