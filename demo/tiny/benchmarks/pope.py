"""POPE: is there such an object in the image? As lmms-eval's rows, and as the files that POPE
publishes.
"""

from typing import Any

from tiny.benchmarks.files import Files, jsonl_bytes
from tiny.benchmarks.scenes import Scene, Shape, draw

# Each scene with the objects asked about: one that is there, one that is not. What is not there is
# chosen as POPE chooses it: any shape (random), the shape that the scenes have most often
# (popular), one that goes with what is there (adversarial).
SCENES: dict[str, list[tuple[Scene, str, str]]] = {
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

COLUMNS = {
    "id": "string",
    "question_id": "string",
    "question": "string",
    "answer": "string",
    "image_source": "string",
    "image": "image",
    "category": "string",
}


def make_rows() -> list[dict[str, Any]]:
    """The rows in the order that the original has: by category, a "yes"
    question before its "no".
    """
    rows: list[dict[str, Any]] = []
    sources: list[Scene] = []
    for category, entries in SCENES.items():
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


def make_files() -> Files:
    """The files that POPE publishes: the images, and a file of questions a category."""
    rows = make_rows()
    files = {f"images/{row['image']['path']}": row["image"]["bytes"] for row in rows}
    for category in SCENES:
        files[f"coco_pope_{category}.json"] = jsonl_bytes(
            [
                {
                    "question_id": int(row["question_id"]),
                    "image": row["image"]["path"],
                    "text": row["question"],
                    "label": row["answer"],
                }
                for row in rows
                if row["category"] == category
            ]
        )
    return files
