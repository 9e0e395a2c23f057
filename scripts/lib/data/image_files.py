"""Image files that stages read: whole, and the ones that were published, or a message that says how
to make them anew.
"""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lib.errors import UserError
from lib.files import digest_of_file

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(source: "Path | BinaryIO") -> "Image":
    """An image file's pixels as RGB."""
    from PIL import Image

    with Image.open(source) as image:
        return image.convert("RGB")


def check_image(path: Path, sha256: str, shard_file: Path) -> None:
    """Raises a UserError if an image file is missing, or is not the one that was published.

    Args:
        path: the image file.
        sha256: hex, as published.
        shard_file: the file of stage images that names it; deleting that makes the damaged images
            anew.
    """
    try:
        if digest_of_file(path) == sha256:
            return
        problem = "has other contents than when it was made"
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read ({error})"
    raise UserError(
        f"{path}: this image file {problem}. Delete {shard_file} and run again: only this prompt's"
        " images are made anew."
    )
