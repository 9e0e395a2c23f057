"""What a bare machine lacks, as wheels."""

import re
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "envs" / "gpu.lock"
#: Beside torch, transformers, peft, accelerate, pyarrow and what these bring: what the pictures and
#: the training are made with, and what the project's own code imports.
NEEDED = (
    "diffusers",
    "importlib-metadata",
    "trl",
    "datasets",
    "dill",
    "multiprocess",
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "orjson",
)


def wheels() -> list[str]:
    """The packages to carry, as `name==version` of the lock."""
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    return [f"{name}=={locked[name]}" for name in NEEDED]
