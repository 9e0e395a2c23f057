"""Builds the demo's tiny benchmarks: drawn shapes with known answers, in the columns of POPE and of MME as lmms-eval 0.7.3 reads them.

    python demo/build_benchmarks.py --output demo/benchmarks

`pope.parquet` has 12 questions (4 a category), `mme.parquet` 12 on six images (perception and cognition). Nothing is random and
nothing is downloaded: two builds give the same bytes, and a file that would not change is not touched.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
PLACES = {"left": (26, 48), "right": (70, 48), "top": (48, 26), "bottom": (48, 70), "middle": (48, 48)}
RADIUS = 18  # of a shape, in pixels


@dataclass(frozen=True)
class Shape:
    """One drawn shape: its colour and kind as words, and its place as a key of `PLACES`."""

    colour: str
    kind: str
    place: str


@dataclass(frozen=True)
class Scene:
    """A picture: shapes on a plain background, and sums are written instead of shapes where `text` is given."""

    background: str
    shapes: tuple[Shape, ...] = ()
    text: str = ""


def draw(scene: Scene) -> bytes:
    """The scene as the bytes of a PNG file of SIDE x SIDE pixels."""
    image = Image.new("RGB", (SIDE, SIDE), BACKGROUNDS[scene.background])
    canvas = ImageDraw.Draw(image)
    for shape in scene.shapes:
        x, y = PLACES[shape.place]
        fill = COLOURS[shape.colour]
        box = (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)
        if shape.kind == "circle":
            canvas.ellipse(box, fill=fill)
        elif shape.kind == "square":
            canvas.rectangle(box, fill=fill)
        elif shape.kind == "triangle":
            canvas.polygon([(x, y - RADIUS), (x - RADIUS, y + RADIUS), (x + RADIUS, y + RADIUS)], fill=fill)
        elif shape.kind == "cross":
            canvas.rectangle((x - RADIUS, y - 6, x + RADIUS, y + 6), fill=fill)
            canvas.rectangle((x - 6, y - RADIUS, x + 6, y + RADIUS), fill=fill)
        else:
            raise ValueError(f"unknown shape {shape.kind!r}")
    if scene.text:
        # Enlarged from Pillow's built-in bitmap letters, which no installed font can change.
        letters = Image.new("L", (SIDE // 3, SIDE // 3), 0)
        ImageDraw.Draw(letters).text((2, 10), scene.text, fill=255, font=ImageFont.load_default_imagefont())
        mask = letters.resize((SIDE, SIDE), Image.Resampling.NEAREST)
        image.paste(COLOURS["blue"], (0, 0), mask)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


# --- POPE

# Each scene with the objects asked about: one that is there, one that is not. What is not there is chosen as POPE chooses it:
# any shape (random), the shape that the scenes have most often (popular), one that goes with what is there (adversarial).
POPE_SCENES: dict[str, list[tuple[Scene, str, str]]] = {
    "random": [
        (Scene("white", (Shape("red", "circle", "left"), Shape("blue", "square", "right"))), "red circle", "purple cross"),
        (Scene("grey", (Shape("yellow", "triangle", "top"),)), "yellow triangle", "green square"),
    ],
    "popular": [
        (Scene("black", (Shape("green", "square", "left"), Shape("purple", "cross", "right"))), "purple cross", "circle"),
        (Scene("white", (Shape("blue", "triangle", "middle"),)), "blue triangle", "circle"),
    ],
    "adversarial": [
        (Scene("grey", (Shape("red", "square", "top"), Shape("yellow", "circle", "bottom"))), "red square", "yellow square"),
        (Scene("white", (Shape("purple", "circle", "left"), Shape("green", "circle", "right"))), "green circle", "red circle"),
    ],
}

POPE_COLUMNS = {
    "id": "string",
    "question_id": "string",
    "question": "string",
    "answer": "string",
    "image_source": "string",
    "image": "image",
    "category": "string",
}


def pope_rows() -> list[dict[str, Any]]:
    """The rows of the POPE benchmark, in the order that the original has: by category, a "yes" question before its "no"."""
    rows: list[dict[str, Any]] = []
    sources: list[Scene] = []
    for category, entries in POPE_SCENES.items():
        for number, (scene, present, absent) in enumerate(entries):
            sources.append(scene)
            source = f"shapes_{len(sources):06d}"
            image = {"bytes": draw(scene), "path": f"{source}.png"}
            for offset, (thing, answer) in enumerate(((present, "yes"), (absent, "no"))):
                rows.append(
                    {
                        "id": str(len(rows)),
                        "question_id": str(2 * number + offset + 1),
                        "question": f"Is there a {thing} in the image?",
                        "answer": answer,
                        "image_source": source,
                        "image": image,
                        "category": category,
                    }
                )
    return rows


# --- MME

# Category: scene, the question whose answer is yes, the question whose answer is no. MME asks two questions an image.
MME_SCENES: dict[str, tuple[Scene, str, str]] = {
    "existence": (
        Scene("white", (Shape("red", "circle", "left"), Shape("green", "triangle", "right"))),
        "Is there a triangle in this image?",
        "Is there a cross in this image?",
    ),
    "count": (
        Scene("grey", (Shape("blue", "square", "left"), Shape("yellow", "square", "right"))),
        "Are there two squares in this image?",
        "Are there four squares in this image?",
    ),
    "position": (
        Scene("white", (Shape("purple", "cross", "left"), Shape("red", "square", "right"))),
        "Is the cross on the left of the square?",
        "Is the cross on the right of the square?",
    ),
    "color": (
        Scene("black", (Shape("yellow", "circle", "middle"),)),
        "Is the circle yellow?",
        "Is the circle blue?",
    ),
    "commonsense_reasoning": (
        Scene("white", (Shape("green", "circle", "middle"),)),
        "Could a wheel have this shape?",
        "Does this shape have corners?",
    ),
    "numerical_calculation": (
        Scene("white", text="3+2"),
        "Should the answer to the sum in this image be 5?",
        "Should the answer to the sum in this image be 6?",
    ),
}

MME_COLUMNS = {
    "question_id": "string",
    "image": "image",
    "question": "string",
    "answer": "string",
    "category": "string",
}


def mme_rows() -> list[dict[str, Any]]:
    """The rows of the MME benchmark: the two questions about an image follow each other and have the same question_id."""
    rows = []
    for category, (scene, yes, no) in MME_SCENES.items():
        name = f"{category}/0001.png"
        image = {"bytes": draw(scene), "path": name}
        for question, answer in ((yes, "Yes"), (no, "No")):
            rows.append(
                {
                    "question_id": name,
                    "image": image,
                    "question": f"{question} Please answer yes or no.",
                    "answer": answer,
                    "category": category,
                }
            )
    return rows


# --- files


def parquet_bytes(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> bytes:
    """Rows as a parquet file whose images `datasets` decodes.

    Args:
        rows: values by column; an image is a mapping with its `bytes` and its `path`.
        columns: kind of each column, `string` or `image`, in order.
    """
    import pyarrow
    import pyarrow.parquet

    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    features = {name: {"_type": "Image"} if kind == "image" else {"dtype": "string", "_type": "Value"} for name, kind in columns.items()}
    schema = pyarrow.schema(
        [(name, image_type if kind == "image" else pyarrow.string()) for name, kind in columns.items()],
        # Where `datasets` looks for the kinds of the columns; without it an image is a mapping.
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), buffer)
    return buffer.getvalue()


def write_if_changed(path: Path, content: bytes) -> str:
    """Writes a file under a temporary name and renames it, unless it is already what it should be.

    Returns:
        `there` or `built`.
    """
    if path.is_file() and path.read_bytes() == content:
        return "there"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
    return "built"


BENCHMARKS = {"pope": (pope_rows, POPE_COLUMNS), "mme": (mme_rows, MME_COLUMNS)}


def main(arguments: list[str] | None = None) -> int:
    """Builds both benchmarks, and prints a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the files, such as demo/benchmarks")
    output = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    for name, (make_rows, columns) in BENCHMARKS.items():
        rows = make_rows()
        outcome = write_if_changed(output / f"{name}.parquet", parquet_bytes(rows, columns))
        print(f"{name:27s} {outcome:6s} {len(rows)} questions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
