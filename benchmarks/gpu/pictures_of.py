"""Pictures to look at, which compress like photographs."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def new_picture(side: int, seed: int) -> "Image":
    """An RGB image of smooth colours with a little noise."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    noise = draw.normal(0, 4, smooth.shape).astype(np.float32)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def write_pictures(folder: Path, number: int, side: int) -> list[Path]:
    """PNG files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{each}.png" for each in range(number)]
    for seed, path in enumerate(paths):
        new_picture(side, seed).save(path)
    return paths
