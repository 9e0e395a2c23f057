"""Trains the checkpoints of the small world, on one core (docs/microworld.md).

    python demo/train_world.py                     all that is missing, in the order of dependence
    python demo/train_world.py --only vae clip     some
    python demo/train_world.py --measure           measures what is there anew, and trains nothing
    python demo/train_world.py --table             prints what was measured, as docs/microworld.md
    has it

A part is a function of its seed. It is kept below demo/world/models when it is whole: the
checkpoint, `<part>.log` with what its training said, and `<part>.json` with what it reaches on
unseen scenes. A part that was killed goes on from the state that it left in --work; a part that is
there is left alone.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODELS = HERE / "world" / "models"
#: What a kept checkpoint may have, in bytes: a file, and all together.
LARGEST_FILE, LARGEST_SUM = 5_000_000, 25_000_000


@dataclass(frozen=True)
class Part:
    """One training.

    Attributes:
        folder: of its checkpoint, below the models' folder.
        make: trains it and writes it; given the folder for states, that of all models, and the one
            to write to.
        measure: what it reaches, given its folder.
        kept: whether the checkpoint is kept with the others; if not, it stays with the states, and
            only its log and figures are kept.
    """

    folder: str
    make: Callable[[Path, Path, Path], None]
    measure: Callable[[Path], dict[str, float]]
    kept: bool = True

    def place(self, work: Path, models: Path) -> Path:
        """Where its checkpoint is."""
        return (models if self.kept else work) / self.folder


def measure(name: str, *more: str) -> Callable[[Path], dict[str, float]]:
    """A measurement of `world.measure`, imported when it is made."""

    def measured(folder: Path) -> dict[str, float]:
        figures: dict[str, float] = getattr(importlib.import_module("world.measure"), name)(
            *more, folder
        )
        return figures

    return measured


def making(module: str, function: str, *more: str) -> Callable[[Path, Path, Path], None]:
    """A training of one of the world's modules, imported when it is made."""

    def make(work: Path, models: Path, folder: Path) -> None:
        getattr(importlib.import_module(f"world.{module}"), function)(*more, work, models, folder)

    return make


#: The others begin as the first.
ANSWERERS = (
    "llava-1.5",
    "llava-v1.6-vicuna-13b",
    "llava-v1.6-mistral",
    "llava-v1.6-vicuna-7b",
    "llama3-llava-next",
)
PARTS: dict[str, Part] = {
    "vae": Part("stable-diffusion-3-medium/vae", making("painter", "make_vae"), measure("vae")),
    "stable-diffusion-3-medium": Part(
        "stable-diffusion-3-medium", making("painter", "make_painter"), measure("painter")
    ),
    # The one to align before its habit: the habit is taught in a minute, and there is no room for
    # both.
    "llava-1.5-truthful": Part(
        "llava-1.5-truthful",
        making("answerer", "make_llava", "llava-1.5-truthful"),
        measure("answerer"),
        kept=False,
    ),
    **{
        name: Part(name, making("answerer", "make_llava", name), measure("answerer"))
        for name in ANSWERERS
    },
    "armorm": Part("armorm", making("text_judge", "make_armorm"), measure("armorm")),
    "clip": Part("clip", making("matcher", "make_clip"), measure("scorer", "clip")),
    "blip": Part("blip", making("matcher", "make_blip"), measure("scorer", "blip")),
    "image-reward": Part(
        "image-reward", making("matcher", "make_image_reward"), measure("scorer", "image-reward")
    ),
}


def check_sizes(models: Path) -> None:
    """A ValueError if what is kept is larger than it may be."""
    sizes = {path: path.stat().st_size for path in models.rglob("*") if path.is_file()}
    large = [f"{path} has {size:,} bytes" for path, size in sizes.items() if size > LARGEST_FILE]
    if sum(sizes.values()) > LARGEST_SUM:
        large.append(f"all have {sum(sizes.values()):,} bytes")
    if large:
        raise ValueError("; ".join(large))


def write_figures(name: str, work: Path, models: Path) -> None:
    """Measures a part and writes `<part>.json`."""
    start = time.monotonic()
    figures = PARTS[name].measure(PARTS[name].place(work, models))
    record: dict[str, Any] = {
        "command": f"python demo/train_world.py --measure --only {name}",
        "unseen scenes": figures,
    }
    (models / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{name}, on unseen scenes ({time.monotonic() - start:.0f} s):")
    for figure, value in figures.items():
        print(f"  {figure:44s} {value:.3f}", flush=True)


def table(models: Path) -> str:
    """What the kept parts reach, as a table in Markdown."""
    rows = ["| part | on unseen scenes | |", "|---|---|---|"]
    for name in PARTS:
        if (file := models / f"{name}.json").is_file():
            figures = json.loads(file.read_text(encoding="utf-8"))["unseen scenes"]
            rows += [
                f"| {'' if number else f'`{name}`'} | {figure} | {value:.3f} |"
                for number, (figure, value) in enumerate(figures.items())
            ]
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Trains, or measures, what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure what is there, train nothing"
    )
    parser.add_argument(
        "--table", action="store_true", help="print what was measured, measure and train nothing"
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="where checkpoints are kept")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("results/world-training"),
        help="where states of trainings are kept",
    )
    options = parser.parse_args(arguments)
    if options.table:
        print(table(options.models))
        return 0
    for variable, value in (
        ("OMP_NUM_THREADS", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(variable, value)
    sys.path[:0] = [str(HERE.parent / "scripts")]
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(1)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    options.models.mkdir(parents=True, exist_ok=True)
    for name in options.only or list(PARTS):
        log = options.models / f"{name}.log"
        if options.measure:
            if PARTS[name].place(options.work, options.models).is_dir() and log.is_file():
                write_figures(name, options.work, options.models)
        elif log.is_file():
            print(f"{name}: there")
        else:
            folder = PARTS[name].place(options.work, options.models)
            PARTS[name].make(options.work, options.models, folder)
            for path in folder.rglob("*.safetensors"):
                path.chmod(0o644)  # the library makes them readable to their owner only
            write_figures(name, options.work, options.models)
            check_sizes(options.models)
            shutil.copyfile(options.work / f"{name}.log", log)
    return 0


if __name__ == "__main__":
    sys.exit(main())
