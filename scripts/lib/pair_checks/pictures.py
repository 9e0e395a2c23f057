"""Checks of a pair's pictures, and what looks at one."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from lib.contamination import perceptual_hash
from lib.data.image_files import check_pixels
from lib.data.pair_forms.base import Picture
from lib.errors import UserError
from lib.pair_checks.base import Check, Find, LookedAt, PictureFacts

MAX_MEGAPIXELS = 50.0


def look_at(picture: Picture, megapixels: float = MAX_MEGAPIXELS) -> PictureFacts:
    """Reads a picture, to its last pixel."""
    name, source = picture
    if source is None:
        return PictureFacts("elsewhere", name or "it is not in the data", "")
    if isinstance(source, Path) and not source.is_file():
        return PictureFacts("missing", str(source), "")
    try:
        return PictureFacts("", "", _hash_of(source, megapixels))
    except UserError as error:
        return PictureFacts("unreadable", str(error), "")
    # PIL's readers of formats raise what they come upon.
    except Exception as error:
        return PictureFacts("unreadable", f"{name or 'picture'}: {_in_short(error)}", "")


def _hash_of(source: Path | bytes, megapixels: float) -> str:
    from PIL import Image

    opened = source if isinstance(source, Path) else BytesIO(source)
    check_pixels(opened, str(source) if isinstance(source, Path) else "a picture", megapixels)
    if isinstance(opened, BytesIO):
        opened.seek(0)
    with Image.open(opened) as image:
        return perceptual_hash(image.convert("L"))


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]


def with_problem(problem: str) -> Find:
    """Looks for pictures that have this problem."""

    def find(looked_at: LookedAt) -> Iterator[str]:
        for picture in looked_at.pictures or ():
            if picture.problem == problem:
                yield picture.detail

    return find


def lacks_token(looked_at: LookedAt) -> Iterator[str]:
    """More pictures than the texts have places for."""
    tokens, pictures = looked_at.pair.picture_tokens, len(looked_at.pair.images)
    if tokens is not None and pictures > tokens:
        yield f"{pictures} picture(s), {tokens} token(s)"


def lacks_picture(looked_at: LookedAt) -> Iterator[str]:
    """More places for pictures in the texts than there are pictures."""
    tokens, pictures = looked_at.pair.picture_tokens, len(looked_at.pair.images)
    if tokens is not None and pictures < tokens:
        yield f"{tokens} token(s), {pictures} picture(s)"


def has_no_picture(looked_at: LookedAt) -> Iterator[str]:
    """A pair of texts only."""
    if not looked_at.pair.images:
        yield "text only"


PICTURE_CHECKS = (
    Check("missing picture", "a picture whose file is not there", 0.0, with_problem("missing")),
    Check(
        "unreadable picture", "a picture that cannot be decoded", 0.0, with_problem("unreadable")
    ),
    Check(
        "picture elsewhere", "an address on the web, not looked at", None, with_problem("elsewhere")
    ),
    Check("picture without token", "no `<image>` for a picture", 0.0, lacks_token),
    Check("token without picture", "no picture for an `<image>`", 0.0, lacks_picture),
    Check("no picture", "a pair of texts only", None, has_no_picture),
)
