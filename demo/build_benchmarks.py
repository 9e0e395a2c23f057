"""Builds the random run's tiny benchmarks: drawn shapes with known answers, in the formats that are
read of the real ones.

    python demo/build_benchmarks.py --output demo/benchmarks

`<benchmark>.parquet`, of 4 to 12 questions, have the columns that lmms-eval 0.7.3 reads of POPE,
MME, VQAv2, ScienceQA, TextVQA, MM-Vet and MMBench. The folders `amber`, `chair`, `mmhal_bench`,
`object_halbench` and `pope` have the files that these benchmarks publish: questions, images and
what answers are held against. Nothing is random and nothing is downloaded: two builds give the same
bytes, and a file that would not change is not touched.
"""

import argparse
import base64
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
        x, y = PLACES[shape.place]
        fill = COLOURS[shape.colour]
        box = (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)
        if shape.kind == "circle":
            canvas.ellipse(box, fill=fill)
        elif shape.kind == "square":
            canvas.rectangle(box, fill=fill)
        elif shape.kind == "triangle":
            canvas.polygon(
                [(x, y - RADIUS), (x - RADIUS, y + RADIUS), (x + RADIUS, y + RADIUS)], fill=fill
            )
        elif shape.kind == "cross":
            canvas.rectangle((x - RADIUS, y - 6, x + RADIUS, y + 6), fill=fill)
            canvas.rectangle((x - 6, y - RADIUS, x + 6, y + RADIUS), fill=fill)
        else:
            raise ValueError(f"unknown shape {shape.kind!r}")
    if scene.text:
        # Enlarged from Pillow's built-in bitmap letters, which no installed font can change.
        letters = Image.new("L", (SIDE // 3, SIDE // 3), 0)
        ImageDraw.Draw(letters).text(
            (2, 10), scene.text, fill=255, font=ImageFont.load_default_imagefont()
        )
        mask = letters.resize((SIDE, SIDE), Image.Resampling.NEAREST)
        image.paste(COLOURS["blue"], (0, 0), mask)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


# --- POPE

# Each scene with the objects asked about: one that is there, one that is not. What is not there is
# chosen as POPE chooses it: any shape (random), the shape that the scenes have most often
# (popular), one that goes with what is there (adversarial).
POPE_SCENES: dict[str, list[tuple[Scene, str, str]]] = {
    "random": [
        (
            Scene("white", (Shape("red", "circle", "left"), Shape("blue", "square", "right"))),
            "red circle",
            "purple cross",
        ),
        (Scene("grey", (Shape("yellow", "triangle", "top"),)), "yellow triangle", "green square"),
    ],
    "popular": [
        (
            Scene("black", (Shape("green", "square", "left"), Shape("purple", "cross", "right"))),
            "purple cross",
            "circle",
        ),
        (Scene("white", (Shape("blue", "triangle", "middle"),)), "blue triangle", "circle"),
    ],
    "adversarial": [
        (
            Scene("grey", (Shape("red", "square", "top"), Shape("yellow", "circle", "bottom"))),
            "red square",
            "yellow square",
        ),
        (
            Scene("white", (Shape("purple", "circle", "left"), Shape("green", "circle", "right"))),
            "green circle",
            "red circle",
        ),
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
    """The rows of the POPE benchmark, in the order that the original has: by category, a "yes"
    question before its "no".
    """
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

# Category: scene, the question whose answer is yes, the question whose answer is no. MME asks two
# questions an image.
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
    """The rows of the MME benchmark: the two questions about an image follow each other and have
    the same question_id.
    """
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


# --- VQAv2, ScienceQA, TextVQA, MM-Vet, MMBench

TWO_SHAPES = Scene("white", (Shape("red", "circle", "left"), Shape("blue", "square", "right")))
TRIANGLE = Scene("grey", (Shape("green", "triangle", "middle"),))
CROSS = Scene("black", (Shape("yellow", "cross", "top"), Shape("purple", "circle", "bottom")))
SUM = Scene("white", text="3+2")
SCENES = {"two_shapes": TWO_SHAPES, "triangle": TRIANGLE, "cross": CROSS, "sum": SUM}
#: Scene, question, its short answer.
SHORT = (
    ("two_shapes", "What color is the circle?", "red"),
    ("two_shapes", "How many shapes are there?", "2"),
    ("triangle", "What shape is in the image?", "triangle"),
    ("cross", "Is the cross above the circle?", "yes"),
)
ANSWERS_A_QUESTION = 10


def picture(scene: str) -> dict[str, Any]:
    """A scene as a cell of a parquet file."""
    return {"bytes": draw(SCENES[scene]), "path": f"{scene}.png"}


def vqav2_rows() -> list[dict[str, Any]]:
    """Four questions with the ten human answers that VQA's accuracy is made of."""
    return [
        {
            "question_id": 1000 + number,
            "image": picture(scene),
            "question": question,
            "answer": answer,
            "multiple_choice_answer": answer,
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": human + 1}
                for human in range(ANSWERS_A_QUESTION)
            ],
        }
        for number, (scene, question, answer) in enumerate(SHORT)
    ]


def textvqa_rows() -> list[dict[str, Any]]:
    """Four questions about what is written, with the tokens that a reader of texts found."""
    asked = (
        ("What is the first number?", "3"),
        ("What is the second number?", "2"),
        ("What sign is it?", "+"),
        ("What is written?", "3+2"),
    )
    return [
        {
            "question_id": number,
            "image": picture("sum"),
            "question": question,
            "answers": [answer] * ANSWERS_A_QUESTION,
            "ocr_tokens": ["3", "+", "2"],
        }
        for number, (question, answer) in enumerate(asked)
    ]


def scienceqa_rows() -> list[dict[str, Any]]:
    """Four questions with lettered choices; `answer` is the number of the right one."""
    kinds = ["circle", "square", "triangle"]
    asked = (
        ("two_shapes", "Which shape is red?", kinds, 0, ""),
        (
            "triangle",
            "Which shape has three sides?",
            kinds,
            2,
            "A polygon has as many sides as corners.",
        ),
        ("cross", "Which of these colors is in the picture?", ["red", "yellow"], 1, ""),
        ("sum", "What is the sum?", ["4", "5", "6"], 1, ""),
    )
    return [
        {
            "image": picture(scene),
            "question": question,
            "choices": choices,
            "answer": answer,
            "hint": hint,
        }
        for scene, question, choices, answer, hint in asked
    ]


def mmvet_rows() -> list[dict[str, Any]]:
    """Four open questions with the abilities that they take."""
    asked = (
        ("two_shapes", "Which shapes are there?", "circle<AND>square", "rec"),
        ("sum", "What is the result?", "5", "ocr,math"),
        ("cross", "Which shape is below the other?", "circle", "rec,spat"),
        ("triangle", "What road sign has this shape?", "yield<OR>warning", "rec,know"),
    )
    return [
        {
            "question_id": f"v1_{number}",
            "image": picture(scene),
            "question": question,
            "answer": answer,
            "capability": capability,
        }
        for number, (scene, question, answer, capability) in enumerate(asked)
    ]


def mmbench_rows() -> list[dict[str, Any]]:
    """Four questions with lettered choices, one a category."""
    asked = (
        (
            "two_shapes",
            "What is on the left?",
            "A",
            ("circle", "square", "cross", "nothing"),
            "object_localization",
        ),
        (
            "triangle",
            "Which color is the shape?",
            "C",
            ("red", "blue", "green", "black"),
            "attribute_recognition",
        ),
        ("cross", "How many shapes are there?", "B", ("1", "2", "3", "4"), "spatial_relationship"),
        ("sum", "What is written?", "D", ("2+3", "3-2", "1+2", "3+2"), "ocr"),
    )
    return [
        {
            "index": number,
            "image": picture(scene),
            "question": question,
            "hint": "nan",
            "answer": answer,
            **dict(zip("ABCD", choices, strict=True)),
            "category": category,
            "L2-category": "coarse_perception",
            "source": "shapes",
            "split": "dev",
        }
        for number, (scene, question, answer, choices, category) in enumerate(asked)
    ]


def columns_of(*names: str, **kinds: str) -> dict[str, str]:
    """Columns with their kinds: `image` is an image, all others texts unless said otherwise."""
    return {name: kinds.get(name, "image" if name == "image" else "string") for name in names}


VQAV2_COLUMNS = columns_of(
    "question_id",
    "image",
    "question",
    "answer",
    "multiple_choice_answer",
    "answers",
    question_id="int64",
    answers="answers",
)
TEXTVQA_COLUMNS = columns_of(
    "question_id",
    "image",
    "question",
    "answers",
    "ocr_tokens",
    question_id="int64",
    answers="strings",
    ocr_tokens="strings",
)
SCIENCEQA_COLUMNS = columns_of(
    "image", "question", "choices", "answer", "hint", choices="strings", answer="int64"
)
MMVET_COLUMNS = columns_of("question_id", "image", "question", "answer", "capability")
MMBENCH_COLUMNS = columns_of(
    "index",
    "image",
    "question",
    "hint",
    "answer",
    *"ABCD",
    "category",
    "L2-category",
    "source",
    "split",
    index="int64",
)


# --- benchmarks that publish files

SYNONYMS = "circle, disc, ring\nsquare, box, block\ntriangle, wedge\ncross, plus\n"
CAPTION = "Describe this image."
#: MMHal-Bench's eight types, in its order: type, scene, question, answer.
MMHAL = (
    ("attribute", "two_shapes", "What color is the circle in the picture?", "The circle is red."),
    (
        "adversarial",
        "triangle",
        "Which animal stands behind the triangle?",
        "There is no animal in the picture.",
    ),
    (
        "comparison",
        "cross",
        "Which of the two shapes is nearer to the top?",
        "The cross is nearer to the top.",
    ),
    ("counting", "two_shapes", "How many shapes are in the picture?", "There are two shapes."),
    ("relation", "cross", "Where is the circle, seen from the cross?", "It is below the cross."),
    (
        "environment",
        "triangle",
        "What color is the background of the picture?",
        "The background is grey.",
    ),
    (
        "holistic",
        "two_shapes",
        "Describe what is drawn in this picture.",
        "A red circle on the left and a blue square on the right.",
    ),
    ("other", "sum", "What is the result of the sum in the picture?", "The result is 5."),
)
#: AMBER: question, type, truth; numbered from 1005 as AMBER does.
AMBER_ASKED = (
    ("two_shapes", "Is the circle red in this image?", "discriminative-attribute-state", "yes"),
    ("triangle", "Is there a square in this image?", "discriminative-hallucination", "no"),
    ("cross", "Is there direct contact between the cross and the circle?", "relation", "no"),
    (
        "two_shapes",
        "Are there three circles in this image?",
        "discriminative-attribute-number",
        "no",
    ),
)


def kinds_of(scene: str) -> list[str]:
    """The kinds of the shapes in a scene."""
    return [shape.kind for shape in SCENES[scene].shapes]


def json_bytes(value: Any) -> bytes:
    """A JSON document."""
    return (json.dumps(value, indent=1) + "\n").encode()


def jsonl_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def published_files() -> dict[str, bytes]:
    """The files of the benchmarks that publish files, by path."""
    shaped = {
        name: number for number, name in enumerate(("two_shapes", "triangle", "cross"), start=1)
    }
    objects = json_bytes({str(number): kinds_of(name) for name, number in shaped.items()})
    files = {
        f"{folder}/images/{name}.png": draw(scene)
        for folder in ("amber", "mmhal_bench")
        for name, scene in SCENES.items()
    }

    files["amber/data/query_all.json"] = json_bytes(
        [
            {"id": number, "image": f"{name}.png", "query": CAPTION}
            for name, number in shaped.items()
        ]
        + [
            {"id": 1005 + number, "image": f"{scene}.png", "query": query}
            for number, (scene, query, _, _) in enumerate(AMBER_ASKED)
        ]
    )
    files["amber/data/annotations.json"] = json_bytes(
        [
            {
                "id": number,
                "type": "generative",
                "truth": kinds_of(name),
                "hallu": sorted({"circle", "square", "cross"} - {*kinds_of(name)}),
            }
            for name, number in shaped.items()
        ]
        + [
            {"id": 1005 + number, "type": kind, "truth": truth}
            for number, (_, _, kind, truth) in enumerate(AMBER_ASKED)
        ]
    )
    files["amber/data/relation.json"] = json_bytes(
        {"circle": ["disc"], "square": ["box"], "triangle": ["wedge"], "cross": ["plus"]}
    )
    files["amber/data/safe_words.txt"] = b"picture\nimage\n"

    for name, number in shaped.items():
        files[f"chair/images/{number:012d}.jpg"] = draw(SCENES[name])
    files["chair/questions.jsonl"] = jsonl_bytes(
        [{"image_id": number} for number in shaped.values()]
    )
    files["chair/objects.json"] = objects
    files["chair/synonyms.txt"] = SYNONYMS.encode()

    files["object_halbench/questions.jsonl"] = jsonl_bytes(
        [
            {
                "image_id": number,
                "question": "What shapes do you see?",
                "image": base64.b64encode(draw(SCENES[name])).decode(),
            }
            for name, number in shaped.items()
        ]
    )
    files["object_halbench/objects.json"] = objects
    files["object_halbench/synonyms_refine.txt"] = SYNONYMS.encode()

    files["mmhal_bench/response_template.json"] = json_bytes(
        [
            {
                "question_type": kind,
                "question_topic": "shapes",
                "image_id": scene,
                "image_src": f"https://images.example/{scene}.png",
                "image_content": kinds_of(scene),
                "question": question,
                "gt_answer": answer,
                "model_answer": "",
            }
            for kind, scene, question, answer in MMHAL
        ]
    )

    for row in pope_rows():
        files[f"pope/images/{row['image']['path']}"] = row["image"]["bytes"]
    for category in POPE_SCENES:
        files[f"pope/coco_pope_{category}.json"] = jsonl_bytes(
            [
                {
                    "question_id": int(row["question_id"]),
                    "image": row["image"]["path"],
                    "text": row["question"],
                    "label": row["answer"],
                }
                for row in pope_rows()
                if row["category"] == category
            ]
        )
    return files


# --- files


def parquet_bytes(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> bytes:
    """Rows as a parquet file whose images `datasets` decodes.

    Args:
        rows: values by column; an image is a mapping with its `bytes` and its `path`.
        columns: kind of each column, `string`, `int64`, `image`, `strings` or VQA's `answers`, in
            order.
    """
    import pyarrow
    import pyarrow.parquet

    human = {"answer": "string", "answer_confidence": "string", "answer_id": "int64"}
    texts = {"dtype": "string", "_type": "Value"}
    # Kind -> type of the file, and what `datasets` calls it.
    kinds = {
        "string": (pyarrow.string(), texts),
        "int64": (pyarrow.int64(), {"dtype": "int64", "_type": "Value"}),
        "image": (
            pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]),
            {"_type": "Image"},
        ),
        "strings": (pyarrow.list_(pyarrow.string()), {"feature": texts, "_type": "List"}),
        "answers": (
            pyarrow.list_(
                pyarrow.struct(
                    [(name, pyarrow.type_for_alias(kind)) for name, kind in human.items()]
                )
            ),
            {
                "feature": {
                    name: {"dtype": kind, "_type": "Value"} for name, kind in human.items()
                },
                "_type": "List",
            },
        ),
    }
    schema = pyarrow.schema(
        [(name, kinds[kind][0]) for name, kind in columns.items()],
        # Where `datasets` looks for the kinds of the columns; without it an image is a mapping.
        metadata={
            "huggingface": json.dumps(
                {"info": {"features": {name: kinds[kind][1] for name, kind in columns.items()}}}
            )
        },
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


BENCHMARKS = {
    "pope": (pope_rows, POPE_COLUMNS),
    "mme": (mme_rows, MME_COLUMNS),
    "vqav2": (vqav2_rows, VQAV2_COLUMNS),
    "scienceqa": (scienceqa_rows, SCIENCEQA_COLUMNS),
    "textvqa": (textvqa_rows, TEXTVQA_COLUMNS),
    "mm_vet": (mmvet_rows, MMVET_COLUMNS),
    "mmbench": (mmbench_rows, MMBENCH_COLUMNS),
}


def main(arguments: list[str] | None = None) -> int:
    """Builds all benchmarks, and prints a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the files, such as demo/benchmarks"
    )
    output = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    for name, (make_rows, columns) in BENCHMARKS.items():
        rows = make_rows()
        outcome = write_if_changed(output / f"{name}.parquet", parquet_bytes(rows, columns))
        print(f"{name:27s} {outcome:6s} {len(rows)} questions")
    outcomes: dict[str, set[str]] = {}
    for name, content in published_files().items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        outcomes.setdefault(f"{name.split('/')[0]}/", set()).add(write_if_changed(path, content))
    for name, found in outcomes.items():
        print(f"{name:27s} {'built' if 'built' in found else 'there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
