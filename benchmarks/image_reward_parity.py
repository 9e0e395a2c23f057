"""`make parity`: the native ImageReward against the original `image-reward` package, on a full-size
checkpoint.

    .venv/bin/python benchmarks/image_reward_parity.py --package-python
    .venv-image-reward/bin/python

Builds a random ImageReward checkpoint of the original's size (447 million parameters, 1.8 GB, fixed
seed) in a temporary folder, scores the same images and prompts with both, each in its own
environment and through `ImageReward.load` as the rule does, and prints the scores, their largest
difference relative to the largest score, and the seconds. Exits with 1 if that is over
`--tolerance`.

What is not the original here: the weights are random, and the BERT tokenizer (30,522 entries, as
bert-base-uncased) is made of the prompts' words, since nothing is downloaded. Both backends get the
same files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "demo")]

VOCABULARY = 30522
SEED = 20240930
SIZES = ((512, 512), (640, 480), (300, 700), (200, 180))
PROMPTS = (
    "A red lighthouse on a rocky cliff at dusk, with two white boats on the water below.",
    "Café tables: three GREEN umbrellas, a brown dog (asleep), 4 cups of tea!",
    # Longer than 35 tokens, so that both have to cut it at the same place.
    (
        "In a busy market hall a woman in a yellow coat weighs oranges on an old brass scale while"
        " a boy behind her carries five wooden crates past a stall of blue fish, and rain runs down"
        " the tall windows above the clock"
    ),
)


def build(folder: Path) -> None:
    """Writes the full-size checkpoint, its med_config.json and a BERT tokenizer."""
    import torch

    from tiny.image_reward import FULL_MED_CONFIG, image_reward_state
    from tiny.saving import write_json

    write_json(folder / "med_config.json", FULL_MED_CONFIG, sort_keys=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    state = image_reward_state(
        FULL_MED_CONFIG, vision_width=1024, vision_layers=24, patches=14 * 14, seed=SEED
    )
    torch.save(state, folder / "ImageReward.pt")
    print(sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point()))


def vocabulary() -> list[str]:
    """30,522 entries, with the special tokens where bert-base-uncased has them."""
    tokens = (
        ["[PAD]"]
        + [f"[unused{number}]" for number in range(99)]
        + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    )
    characters = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
    tokens += characters + [f"##{character}" for character in characters]
    words = "".join(
        character if character.isalnum() else " "
        for character in " ".join(PROMPTS).lower().replace("é", "e")
    ).split()
    # Every sixth word is left out, so that words in several pieces occur as well.
    tokens += [
        word
        for number, word in enumerate(sorted({word for word in words if len(word) > 1}))
        if number % 6
    ]
    return tokens + [f"[filler{number}]" for number in range(VOCABULARY - len(tokens))]


def draw_images() -> list[Image]:
    """Four different images, of several sizes and aspect ratios: smooth colours with some noise."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(SEED)
    images = []
    for width, height in SIZES:
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noise = generator.integers(-20, 21, (height, width, 3))
        images.append(
            Image.fromarray((np.asarray(coarse).astype(int) + noise).clip(0, 255).astype(np.uint8))
        )
    return images


def score(folder: Path, backend: str) -> dict[str, Any]:
    """Scores of each prompt's images with one backend; the seconds for loading and for scoring."""
    from lib.models.image_scorers.image_reward import ImageReward

    images = draw_images()
    settings = ImageReward.Settings.model_validate(
        {"kind": "image-reward", "model": str(folder), "backend": backend}
    )
    started = time.perf_counter()
    scorer = ImageReward.load(settings, "cpu")
    loaded = time.perf_counter()
    # The first call pays for reading the weights into memory and for starting threads.
    scorer.score(PROMPTS[0], images[:1])
    warm, warm_cpu = time.perf_counter(), time.process_time()
    scores = [scorer.score(prompt, images) for prompt in PROMPTS]
    return {
        "scores": scores,
        "truncates": [scorer.truncates(prompt) for prompt in PROMPTS],
        "load_seconds": loaded - started,
        "score_seconds": time.perf_counter() - warm,
        "score_cpu_seconds": time.process_time() - warm_cpu,
    }


def run(python: str, *arguments: str) -> str:
    """Runs this script in an environment of its own and returns the last line that it prints."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(
        [python, __file__, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(
            f"{python} {Path(__file__).name} {' '.join(arguments)} ended with"
            f" {result.returncode}\n{result.stdout}"
        )
    return result.stdout.strip().splitlines()[-1]


def compare(package_python: str, tolerance: float) -> bool:
    """Builds the checkpoint, scores with both backends, prints the comparison; tells whether it is
    within `tolerance`.
    """
    with tempfile.TemporaryDirectory(prefix="image-reward-parity-") as name:
        parameters = int(run(sys.executable, "build", name))
        print(
            f"ImageReward, {parameters / 1e6:.0f} million random parameters (seed {SEED}), a made"
            f" BERT vocabulary of {VOCABULARY}"
        )
        package = json.loads(run(package_python, "score", name, "image-reward"))
        native = json.loads(run(sys.executable, "score", name, "native"))
    rows = [
        (prompt, size, their, our)
        for prompt, theirs, ours in zip(PROMPTS, package["scores"], native["scores"], strict=True)
        for size, their, our in zip(SIZES, theirs, ours, strict=True)
    ]
    print(f"{'prompt':<44} {'image':>9} {'image-reward 1.5':>17} {'native':>12} {'difference':>11}")
    for prompt, size, their, our in rows:
        print(
            f"{prompt[:40] + ' ...':<44} {f'{size[0]}x{size[1]}':>9} {their:>17.8f} {our:>12.8f}"
            f" {abs(their - our):>11.1e}"
        )
    scores = [their for _, _, their, _ in rows]
    # Relative to the largest score: a score is a difference of large terms, so one that happens to
    # lie at 0 has no digits of its own.
    difference: float = max(abs(their - our) for _, _, their, our in rows) / max(map(abs, scores))
    cut_alike: bool = native["truncates"] == package["truncates"]
    print(
        f"scores from {min(scores):.3f} to {max(scores):.3f}; {sum(native['truncates'])} of"
        f" {len(PROMPTS)} prompts cut to 35 tokens"
    )
    for label, result in (
        ("image-reward 1.5, one image at a time", package),
        ("native, a prompt's images in one batch", native),
    ):
        seconds = f"{result['score_seconds']:5.1f} s ({result['score_cpu_seconds']:.1f} s of CPU)"
        print(
            f"{label:<40} load {result['load_seconds']:5.1f} s, {len(scores)} scores in {seconds}"
        )
    own = max(abs(their - our) / abs(their) for _, _, their, our in rows)
    print(f"largest difference, relative to its own score:     {own:.1e}")
    print(
        f"largest difference, relative to the largest score: {difference:.1e} (allowed:"
        f" {tolerance:.0e})"
    )
    if not cut_alike:
        print("the two do not agree on which prompts are cut")
    return difference <= tolerance and cut_alike


def main() -> None:
    """Compares the two backends, or does one step of it in the environment that it needs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--package-python",
        default=".venv-image-reward/bin/python",
        help="Python with the image-reward package",
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="largest difference that is allowed"
    )
    steps = parser.add_subparsers(dest="step", metavar="")
    steps.add_parser("build").add_argument("folder", type=Path)
    score_step = steps.add_parser("score")
    score_step.add_argument("folder", type=Path)
    score_step.add_argument("backend")
    arguments = parser.parse_args()
    if arguments.step == "build":
        build(arguments.folder)
    elif arguments.step == "score":
        print(json.dumps(score(arguments.folder, arguments.backend)))
    else:
        sys.exit(0 if compare(arguments.package_python, arguments.tolerance) else 1)


if __name__ == "__main__":
    main()
