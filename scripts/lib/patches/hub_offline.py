"""huggingface_hub (1.x) reads once, when it is imported, whether it may ask the network."""

import os
import sys

VARIABLE = "HF_HUB_OFFLINE"


def read_offline_again() -> None:
    """Has it go by what the environment says now, where it is imported already."""
    if constants := sys.modules.get("huggingface_hub.constants"):
        vars(constants)[VARIABLE] = os.environ.get(VARIABLE, "").upper() in (
            "1",
            "ON",
            "YES",
            "TRUE",
        )
