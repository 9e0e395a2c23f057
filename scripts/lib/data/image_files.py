"""Image files that stages read: whole, and the ones that were published, or a message that says how
to make them anew.
"""

import json
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lib.errors import UserError
from lib.files import canonical_json, replacing

if TYPE_CHECKING:
    from PIL.Image import Image


EXIF_IMAGE_DESCRIPTION = 0x010E
#: PIL's modes of 32 bits a pixel in one channel.
DEEP = ("I", "F")
#: How formats are written that are not lossless by themselves.
LOSSES: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpeg": {"quality": 95}}


def read_image(source: "Path | BinaryIO") -> "Image":
    """An image file's pixels as RGB."""
    from PIL import Image

    with Image.open(source) as image:
        return image.convert("RGB")


def check_pixels(source: "Path | BinaryIO", what: str, megapixels: float) -> None:
    """Raises a UserError if an image has more pixels than `max_image_megapixels` of the
    configuration. Its header is read, and nothing decoded. Errors: OSError for what is no image.

    `what`: the image, as the message begins.
    """
    from PIL import Image

    try:
        with Image.open(source) as image:
            width, height = image.size
    except Image.DecompressionBombError:  # PIL's own limit, which says nothing of the size but that
        width = height = sys.maxsize
    if (pixels := width * height) > megapixels * 1e6:
        size = (
            "more than 178 megapixels"
            if height == sys.maxsize
            else f"{width} x {height} pixels ({pixels / 1e6:.1f} megapixels)"
        )
        raise UserError(
            f"{what}: an image of {size}, over `max_image_megapixels` ({megapixels:g}). Make it"
            " smaller, or raise the limit (at most 178; a megapixel takes 3 MB of memory)."
        )


def check_whole(source: "Path | BinaryIO", what: str, *, decode: bool = True) -> None:
    """Raises a UserError if a file is no whole image, or one whose pixels have more than 8 bits a
    channel, which a model would see as white.

    `what`: the image, as the message begins; `decode`: whether more than its header is read.
    """
    from PIL import Image

    try:
        with Image.open(source) as image:
            if decode:
                image.draft("RGB", (64, 64))  # JPEG: all is read, and little of it drawn
                image.load()
            mode = image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        said = f"{error}".splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{what} no whole image ({said}). Replace it.") from error
    if mode in DEEP or mode.startswith("I;16"):
        raise UserError(
            f"{what} an image of PIL's mode {mode}, with over 8 bits a pixel, which a model would"
            " see as white. Save it with 8 bits a channel."
        )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header. Errors: UserError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise UserError(
            f"{path}: this image cannot be read ({error}). Delete the file of stage images that"
            " names it and run again: it is made anew."
        ) from error


def read_provenance(path: Path) -> dict[str, Any]:
    """What an image file says about its own making: prompt id, prompt, model, revision, seed and
    all settings.
    """
    from PIL import Image

    with Image.open(path) as image:
        exif = image.getexif()
        text = getattr(image, "text", {}).get("provenance") or exif.get(EXIF_IMAGE_DESCRIPTION)
    if not text:
        raise UserError(f"{path}: carries no provenance; it was not made by this workflow.")
    return dict(json.loads(text))


def write_image(image: "Image", path: Path, image_format: str, provenance: dict[str, Any]) -> str:
    """Writes one image with its provenance inside, under a temporary name first; returns the file's
    sha256 (hex). It is not on the disk yet (`lib.files.sync`).
    """
    from PIL import PngImagePlugin

    options: dict[str, Any] = dict(LOSSES.get(image_format, {}))
    if image_format == "png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("provenance", canonical_json(provenance))
    else:
        exif = image.getexif()
        exif[EXIF_IMAGE_DESCRIPTION] = json.dumps(provenance, sort_keys=True)
        options["exif"] = exif
    encoded = BytesIO()
    image.save(encoded, format=image_format, **options)
    with replacing(path, durable=False) as temporary:
        temporary.write_bytes(encoded.getbuffer())
    return sha256(encoded.getbuffer()).hexdigest()


def shard_file_of(image: Path) -> Path:
    """The file of stage images that names an image file, beside the folder where that lies."""
    return image.parent.with_suffix(".jsonl")


def check_image(path: Path, digest: str) -> None:
    """Raises a UserError if an image file of a run is missing, or is not the one that was
    published. `digest`: its sha256 (hex), as published.
    """
    read_published(path, digest, shard_file_of(path))


def read_published(path: Path, digest: str, shard_file: Path) -> bytes:
    """An image file's bytes. Errors: as those of `check_image`. `shard_file`: the file that names
    it; deleting that makes the damaged images anew.
    """
    try:
        content = path.read_bytes()
        if sha256(content).hexdigest() == digest:
            return content
        problem = "has other contents than when it was made"
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read ({error})"
    raise UserError(
        f"{path}: this image file {problem}. Delete {shard_file} and run again: only this prompt's"
        " images are made anew."
    )
