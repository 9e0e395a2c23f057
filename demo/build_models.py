"""Builds the random run's tiny checkpoints: random weights, but the real architectures in the
layout of their full-size repositories.

    python demo/build_models.py --output demo/models [--only NAME ...]

Nothing is downloaded and nothing is trained. Every checkpoint is a function of its architecture's
file in `demo/tiny/`, of what that file imports, and of the libraries' versions, so two builds give
the same bytes; a checkpoint that is already there and complete is left alone.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from tiny.checkpoints import build_checkpoint, hold_lock, list_files
from tiny.registry import BUILDERS, ON_DEMAND


def main(arguments: list[str] | None = None) -> int:
    """Builds what the command line asks for, and prints a line a checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    every = BUILDERS | ON_DEMAND
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the checkpoints, such as demo/models"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(every), metavar="NAME", help=", ".join(every)
    )
    options = parser.parse_args(arguments)
    # Before torch is imported: one thread is faster for models this small, and no hub is asked for
    # anything.
    for variable, value in (
        ("OMP_NUM_THREADS", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(variable, value)
    options.output.mkdir(parents=True, exist_ok=True)
    with hold_lock(options.output / ".lock"):
        for name in options.only or BUILDERS:
            start = time.monotonic()
            outcome = build_checkpoint(name, every[name], options.output)
            size = sum(list_files(options.output / name).values()) / 1e6
            seconds = time.monotonic() - start
            print(f"{name:27s} {outcome:6s} {size:6.2f} MB {seconds:6.2f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
