"""A picture that a user has, as later stages read pictures: upright, of one frame, opaque, with 8
bits a channel. A file that is so already stays as it is, byte for byte.
"""

from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from lib.data.image_files import check_pixels, check_whole

if TYPE_CHECKING:
    from PIL.Image import Image

from lib.errors import UserError

#: Formats that every stage and every export reads, and how their files end.
KEPT = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
#: PIL's modes that become RGB without a change of what is seen.
PLAIN = ("RGB", "L", "P", "1")
EXIF_ORIENTATION = 0x0112
WHITE = (255, 255, 255)


class TakenPicture(NamedTuple):
    """A file's bytes and ending, whether it shows one colour only, and what was changed."""

    content: bytes
    suffix: str
    blank: bool
    changed: list[str]


def take_picture(content: bytes, what: str, megapixels: float) -> TakenPicture:
    """A picture as later stages read it. `what`: the picture, as a message begins. Errors:
    UserError for one that is broken, moves, has over 8 bits a channel, or has too many pixels.
    """
    from PIL import Image, ImageOps

    with suppress(OSError, SyntaxError, ValueError):  # it is no picture, which is told next
        check_pixels(BytesIO(content), what, megapixels)
    check_whole(BytesIO(content), f"{what}: is")
    with Image.open(BytesIO(content)) as image:
        # A photograph of some telephones holds a second one for depth.
        if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
            raise UserError(f"{what}: moves, or has {frames} pages. Save one of them.")
        changed = []
        upright: Image.Image = image
        if image.getexif().get(EXIF_ORIENTATION, 1) != 1:
            changed.append("turned upright, as its EXIF says")
            upright = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            changed.append("laid on white")
        elif image.mode not in PLAIN:
            changed.append(f"from {image.mode} to RGB")
        if image.format not in KEPT:
            changed.append(f"from {image.format} to PNG")
        opaque = _opaque(upright)
        blank = opaque.getcolors(maxcolors=1) is not None
        if not changed:
            return TakenPicture(content, KEPT[str(image.format)], blank, [])
        encoded = BytesIO()
        opaque.save(encoded, format="png")
        return TakenPicture(encoded.getvalue(), "png", blank, changed)


def _opaque(image: "Image") -> "Image":
    """An image as RGB; what is transparent shows white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    above = image.convert("RGBA")
    below = Image.new("RGBA", above.size, (*WHITE, 255))
    return Image.alpha_composite(below, above).convert("RGB")
