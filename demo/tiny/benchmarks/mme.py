"""MME: two questions about an image, the one to be answered with yes and the other with no."""

from typing import Any

from tiny.benchmarks.scenes import Scene, Shape, draw

# Category: scene, the question whose answer is yes, the question whose answer is no. MME asks two
# questions an image.
SCENES: dict[str, tuple[Scene, str, str]] = {
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

COLUMNS = {
    "question_id": "string",
    "image": "image",
    "question": "string",
    "answer": "string",
    "category": "string",
}


def make_rows() -> list[dict[str, Any]]:
    """The two questions about an image follow each other and have
    the same question_id.
    """
    rows = []
    for category, (scene, yes, no) in SCENES.items():
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
