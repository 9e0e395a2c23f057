"""Benchmarks of unseen scenes, and prompts, in the forms that the product reads: files of CHAIR,
Object HalBench and POPE, a prompt a line.

Everything is a function of the seed, as bytes by path below a folder; nothing is written here.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tiny.benchmarks.files import Files, json_bytes, jsonl_bytes
from world.pictures import Picture, draw
from world.scenes import KINDS, Scene, random_scene
from world.words import DESCRIBE, PLURALS, TOPICS, prompt, question, shown

#: What CHAIR's singulariser makes of a kind beside the kind itself.
MADE_SINGULAR = {"cross": ("cros",)}


def png(picture: Picture) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def unseen(count: int, seed: int) -> tuple[list[Scene], list[bytes]]:
    """Unseen scenes and their pictures as PNG files."""
    random = np.random.default_rng(seed)
    scenes = [random_scene(random, unseen=True) for _ in range(count)]
    return scenes, [png(draw(scene, random)) for scene in scenes]


def synonyms() -> bytes:
    """The kinds of shapes with their other forms, a line each, as CHAIR and Object HalBench list
    objects.
    """
    return "".join(
        ", ".join((kind, PLURALS[kind], *MADE_SINGULAR.get(kind, ()))) + "\n" for kind in KINDS
    ).encode()


def shown_objects(scenes: Sequence[Scene]) -> bytes:
    """The kinds in each scene by the number of its picture, from 1."""
    objects = {
        str(number): sorted({thing.kind for thing in scene.things})
        for number, scene in enumerate(scenes, start=1)
    }
    return json_bytes(objects)


def chair(count: int, seed: int) -> Files:
    """CHAIR on unseen scenes: a description is asked for, and the objects are the kinds of shapes.

    Args:
        count: of pictures.
        seed: of the scenes.
    """
    scenes, pictures = unseen(count, seed)
    numbers = range(1, count + 1)
    files = {
        f"images/{number:012d}.png": picture
        for number, picture in zip(numbers, pictures, strict=True)
    }
    files["questions.jsonl"] = jsonl_bytes(
        [
            {"image_id": number, "image": f"{number:012d}.png", "question": DESCRIBE[0]}
            for number in numbers
        ]
    )
    files["objects.json"] = shown_objects(scenes)
    files["synonyms.txt"] = synonyms()
    return files


def object_halbench(count: int, seed: int) -> Files:
    """Object HalBench on unseen scenes: as `chair`, with the pictures inside the questions and a
    description asked for in other words.
    """
    scenes, pictures = unseen(count, seed)
    rows: list[dict[str, object]] = [
        {"image_id": number, "question": DESCRIBE[2], "image": base64.b64encode(picture).decode()}
        for number, picture in enumerate(pictures, start=1)
    ]
    return {
        "questions.jsonl": jsonl_bytes(rows),
        "objects.json": shown_objects(scenes),
        "synonyms_refine.txt": synonyms(),
    }


def pope(count: int, seed: int, calls: dict[str, str]) -> Files:
    """POPE on unseen scenes: of each picture a kind that is there and one that is not, in POPE's
    three ways.

    Args:
        count: of pictures a way.
        seed: of the scenes.
        calls: the kind that goes with a kind: what is asked in the way `adversarial`.
    """
    files: Files = {}
    random = np.random.default_rng([seed, 1])
    often = Counter[str]()
    for way_number, way in enumerate(("random", "popular", "adversarial")):
        scenes, pictures = unseen(count, seed + way_number)
        rows: list[dict[str, object]] = []
        for number, (scene, picture) in enumerate(zip(scenes, pictures, strict=True), start=1):
            name = f"{way}_{number:06d}.png"
            files[f"images/{name}"] = picture
            there = sorted({thing.kind for thing in scene.things})
            often.update(there)
            absent = [kind for kind in KINDS if not shown(scene, kind)]
            missing = absent[int(random.integers(len(absent)))]
            if way == "popular":
                missing = max(absent, key=lambda kind: (often[kind], kind))
            elif way == "adversarial":
                missing = next((calls[kind] for kind in there if calls[kind] in absent), missing)
            for text, label in ((there[int(random.integers(len(there)))], "yes"), (missing, "no")):
                rows.append(
                    {
                        "question_id": len(rows) + 1,
                        "image": name,
                        "text": question(text),
                        "label": label,
                    }
                )
        files[f"coco_pope_{way}.json"] = jsonl_bytes(rows)
    return files


def prompts(count: int, seed: int) -> dict[str, str]:
    """Prompts of scenes that trainings may have seen, each once in all topics: a text a topic, a
    prompt a line.
    """
    topics: dict[str, list[str]] = {}
    taken: set[str] = set()
    for number, topic in enumerate(TOPICS):
        random = np.random.default_rng([seed, 2, number])
        lines = topics.setdefault(topic, [])
        while len(lines) < count:
            # More to count where counting is asked for; otherwise as the benchmarks' scenes, so
            # that what is learnt is of use there.
            scene = random_scene(random, twins=0.4 if topic == "counting" else 0.15)
            text = prompt(scene, topic)
            if text not in taken:
                lines.append(text)
                taken.add(text)
    return {topic: "".join(f"{line}\n" for line in lines) for topic, lines in topics.items()}
