"""What the tiny benchmarks show: a few coloured shapes, or a sum, on a plain background."""

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SIDE = 96  # of a drawn image, in pixels
COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 139, 60),
    "blue": (38, 84, 204),
    "yellow": (240, 200, 20),
    "purple": (130, 50, 160),
}
BACKGROUNDS = {"white": (255, 255, 255), "grey": (190, 190, 190), "black": (20, 20, 20)}
# Where a shape can be: centres, in pixels, and the words that say so.
PLACES = {
    "left": (26, 48),
    "right": (70, 48),
    "top": (48, 26),
    "bottom": (48, 70),
    "middle": (48, 48),
}
RADIUS = 18  # of a shape, in pixels


@dataclass(frozen=True)
class Shape:
    """One drawn shape: its colour and kind as words, and its place as a key of `PLACES`."""

    colour: str
    kind: str
    place: str


@dataclass(frozen=True)
class Scene:
    """A picture: shapes on a plain background, and sums are written instead of shapes where `text`
    is given.
    """

    background: str
    shapes: tuple[Shape, ...] = ()
    text: str = ""


def draw(scene: Scene) -> bytes:
    """The scene as the bytes of a PNG file of SIDE x SIDE pixels."""
    image = Image.new("RGB", (SIDE, SIDE), BACKGROUNDS[scene.background])
    canvas = ImageDraw.Draw(image)
    for shape in scene.shapes:
        draw_shape(canvas, shape)
    if scene.text:
        draw_text(image, scene.text)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def draw_shape(canvas: ImageDraw.ImageDraw, shape: Shape) -> None:
    """Draws a shape in its colour at its place."""
    x, y = PLACES[shape.place]
    fill = COLOURS[shape.colour]
    left, top, right, bottom = x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS
    if shape.kind == "circle":
        canvas.ellipse((left, top, right, bottom), fill=fill)
    elif shape.kind == "square":
        canvas.rectangle((left, top, right, bottom), fill=fill)
    elif shape.kind == "triangle":
        canvas.polygon([(x, top), (left, bottom), (right, bottom)], fill=fill)
    elif shape.kind == "cross":
        canvas.rectangle((left, y - 6, right, y + 6), fill=fill)
        canvas.rectangle((x - 6, top, x + 6, bottom), fill=fill)
    else:
        raise ValueError(f"unknown shape {shape.kind!r}")


def draw_text(image: Image.Image, text: str) -> None:
    """Writes a few letters across the image."""
    # Enlarged from Pillow's built-in bitmap letters, which no installed font can change.
    letters = Image.new("L", (SIDE // 3, SIDE // 3), 0)
    font = ImageFont.load_default_imagefont()
    ImageDraw.Draw(letters).text((2, 10), text, fill=255, font=font)
    image.paste(COLOURS["blue"], (0, 0), letters.resize((SIDE, SIDE), Image.Resampling.NEAREST))


TWO_SHAPES = Scene("white", (Shape("red", "circle", "left"), Shape("blue", "square", "right")))
TRIANGLE = Scene("grey", (Shape("green", "triangle", "middle"),))
CROSS = Scene("black", (Shape("yellow", "cross", "top"), Shape("purple", "circle", "bottom")))
SUM = Scene("white", text="3+2")
#: The scenes that most benchmarks ask about.
SCENES = {"two_shapes": TWO_SHAPES, "triangle": TRIANGLE, "cross": CROSS, "sum": SUM}
#: Those of them that show shapes, by the number of their image.
NUMBERED_SCENES = {1: "two_shapes", 2: "triangle", 3: "cross"}
#: The kinds of shapes with their other names, a line each, as CHAIR and Object HalBench list
#: objects.
SYNONYMS = "circle, disc, ring\nsquare, box, block\ntriangle, wedge\ncross, plus\n"


def picture(scene: str) -> dict[str, Any]:
    """A scene as a cell of a parquet file."""
    return {"bytes": draw(SCENES[scene]), "path": f"{scene}.png"}


def kinds_of(scene: str) -> list[str]:
    """The kinds of the shapes in a scene."""
    return [shape.kind for shape in SCENES[scene].shapes]


def numbered_kinds() -> dict[str, list[str]]:
    """The kinds of the shapes in each of `NUMBERED_SCENES`, by its number."""
    return {str(number): kinds_of(scene) for number, scene in NUMBERED_SCENES.items()}


def scene_images() -> dict[str, bytes]:
    """An image file of each of `SCENES`, by its path."""
    return {f"images/{name}.png": draw(scene) for name, scene in SCENES.items()}
