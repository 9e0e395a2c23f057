"""Pairs as somebody brings them: in LLaVA's form, with pictures of one colour."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (90,) * 3}


def llava_record(number: int, image: str, question: str = "", **sides: str) -> dict[str, Any]:
    """A record of LLaVA's JSON."""
    texts = {"chosen": f"the square is {number}", "rejected": "a blue lamp"} | sides
    question = question or f"what is number {number} of this picture?"
    chosen, rejected = (
        [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": texts[side]}]
        for side in ("chosen", "rejected")
    )
    return {
        "id": f"own-{number}",
        "image": image,
        "conversations": chosen,
        "rejected_conversations": rejected,
    }


def write_pictures(folder: Path) -> list[str]:
    """Writes pictures; returns their names from the folder on."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (32, 24), colour).save(folder / f"images/{name}.png")
    return [f"images/{name}.png" for name in COLOURS]


def write_own_pairs(folder: Path, count: int = 6) -> Path:
    """Writes pairs with their pictures; returns their file."""
    names = write_pictures(folder)
    records = [llava_record(number, names[number % len(names)]) for number in range(count)]
    path = folder / "own.json"
    path.write_text(json.dumps(records, indent=1), encoding="utf-8")
    return path
