"""CHAIR: objects in a description that are not in the image. The files that our scorer reads."""

from tiny.benchmarks.files import Files, json_bytes, jsonl_bytes
from tiny.benchmarks.scenes import NUMBERED_SCENES, SCENES, SYNONYMS, draw, numbered_kinds


def make_files() -> Files:
    """The images, their numbers, and the objects in them with their synonyms."""
    images = {
        f"images/{number:012d}.jpg": draw(SCENES[scene])
        for number, scene in NUMBERED_SCENES.items()
    }
    return images | {
        "questions.jsonl": jsonl_bytes([{"image_id": number} for number in NUMBERED_SCENES]),
        "objects.json": json_bytes(numbered_kinds()),
        "synonyms.txt": SYNONYMS.encode(),
    }
