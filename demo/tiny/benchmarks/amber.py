"""AMBER: hallucination in descriptions, and yes/no questions. Its published files."""

from tiny.benchmarks.files import Files, json_bytes
from tiny.benchmarks.scenes import NUMBERED_SCENES, kinds_of, scene_images

CAPTION = "Describe this image."
FIRST_QUESTION = 1005  # AMBER's number of its first question that is no description
#: Scene, question, type, truth.
QUESTIONS = (
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
KINDS = {"circle", "square", "cross"}  # what may be hallucinated
RELATION = {"circle": ["disc"], "square": ["box"], "triangle": ["wedge"], "cross": ["plus"]}


def make_files() -> Files:
    """The images, the questions, and what answers are held against."""
    return scene_images() | {
        "data/query_all.json": json_bytes(make_queries()),
        "data/annotations.json": json_bytes(make_annotations()),
        "data/relation.json": json_bytes(RELATION),
        "data/safe_words.txt": b"picture\nimage\n",
    }


def make_queries() -> list[dict[str, object]]:
    """What is asked: a description of each scene, then the questions."""
    descriptions: list[dict[str, object]] = [
        {"id": number, "image": f"{scene}.png", "query": CAPTION}
        for number, scene in NUMBERED_SCENES.items()
    ]
    return descriptions + [
        {"id": number, "image": f"{scene}.png", "query": query}
        for number, (scene, query, _, _) in enumerate(QUESTIONS, start=FIRST_QUESTION)
    ]


def make_annotations() -> list[dict[str, object]]:
    """What is true of the answers."""
    descriptions: list[dict[str, object]] = [
        {
            "id": number,
            "type": "generative",
            "truth": kinds_of(scene),
            "hallu": sorted(KINDS - {*kinds_of(scene)}),
        }
        for number, scene in NUMBERED_SCENES.items()
    ]
    return descriptions + [
        {"id": number, "type": kind, "truth": truth}
        for number, (_, _, kind, truth) in enumerate(QUESTIONS, start=FIRST_QUESTION)
    ]
