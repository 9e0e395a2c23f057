"""Object HalBench: objects in a description that are not in the image. Its published files."""

import base64

from tiny.benchmarks.files import Files, json_bytes, jsonl_bytes
from tiny.benchmarks.scenes import NUMBERED_SCENES, SCENES, SYNONYMS, draw, numbered_kinds


def make_files() -> Files:
    """The questions with their images, and the objects in them with their synonyms."""
    questions = [
        {
            "image_id": number,
            "question": "What shapes do you see?",
            "image": base64.b64encode(draw(SCENES[scene])).decode(),
        }
        for number, scene in NUMBERED_SCENES.items()
    ]
    return {
        "questions.jsonl": jsonl_bytes(questions),
        "objects.json": json_bytes(numbered_kinds()),
        "synonyms_refine.txt": SYNONYMS.encode(),
    }
