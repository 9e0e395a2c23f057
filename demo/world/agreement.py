"""How often those who score a run's pictures and answers put two of them in the oracle's order.

The run's own scores are read; who was not in the run is loaded and asked here, by the product's own
code: VQAScore about the pictures, the VLM judge and the claims about the answers. The model that
they ask is the one of the answering models that has no habit, in words that it learnt.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from story import rows_of
from world import oracle
from world.text_judge import grade
from world.words import DESCRIBE, question, read, shown

WHO_SEES = "llava-v1.6-vicuna-13b"
#: How each is asked: the model knows the words of its world, and none of the product's defaults.
VQASCORE = {"kind": "vqascore", "question": "Is there {prompt} in the image?"}
SEEING = {
    "VLM judge": {"kind": "vlm-judge", "rubric": "{instruction} {response}"},
    "claims": {"kind": "claims", "question": "{instruction} {claim}"},
}
#: Prompts by their hash: the wording was looked at on the first, and the next are counted.
LOOKED_AT, COUNTED = 40, 120
SCORERS = {"image-reward": "ImageReward", "clip": "CLIP", "blip": "BLIP"}


class Scored(NamedTuple):
    """The truth of things that are compared with each other, and a score of each."""

    truth: Sequence[float]
    scores: Sequence[float]


def agreement(groups: Sequence[Scored]) -> list[float]:
    """Of each two of a group whose truth differs: 1 where the scores order them alike, 0.5 where
    they tie.
    """
    return [
        0.5 + 0.5 * float(np.sign((scores[one] - scores[other]) * (truth[one] - truth[other])))
        for truth, scores in groups
        for one, other in combinations(range(len(truth)), 2)
        if truth[one] != truth[other]
    ]


def sample(root: Path, stage: str) -> dict[str, dict[str, Any]]:
    """The published rows of a stage about the counted prompts, by prompt id."""
    ids = sorted((row["id"] for row in rows_of(root, "images")), key=lambda each: each[-10:])
    counted = {*ids[LOOKED_AT : LOOKED_AT + COUNTED]}
    rows = {row["id"]: row for row in rows_of(root, stage) if "missing" not in row}
    return {each: rows[each] for each in sorted(counted & rows.keys())}


def pictures(root: Path, row: Mapping[str, Any]) -> list[Image.Image]:
    """A prompt's candidates."""
    return [Image.open(root / each["file"]).convert("RGB") for each in row["candidates"]]


def of_pictures(root: Path, models: Path) -> Iterator[tuple[str, list[Scored]]]:
    """Who scores pictures, with the scores of each prompt's candidates beside the oracle's fit."""
    from lib.models.image_scorers.registry import IMAGE_SCORERS

    rows = sample(root, "images")
    images = {each: pictures(root, row) for each, row in rows.items()}
    fits = {
        each: [
            round(oracle.fit(rows[each]["prompt"], reading), 6)
            for reading in oracle.read_pictures(np.stack([*map(np.asarray, of_prompt)]))
        ]
        for each, of_prompt in images.items()
    }
    for scorer, name in SCORERS.items():
        ranked = sample(root, f"image_ranking/{scorer}")
        yield name, [Scored(fits[each], row["scores"]) for each, row in ranked.items()]
    settings = IMAGE_SCORERS.validate(VQASCORE | model_in(models))
    scorer_that_asks = IMAGE_SCORERS.load_model(settings, "cpu")
    yield (
        "VQAScore",
        [
            Scored(fits[each], scorer_that_asks.score(rows[each]["prompt"], of_prompt))
            for each, of_prompt in images.items()
        ],
    )


def of_things(root: Path, models: Path) -> Iterator[tuple[str, list[Scored]]]:
    """The same where the prompt is one of the things that were asked for ("a red circle"), which is
    in some of the candidates and not in others.
    """
    from lib.models.image_scorers.registry import IMAGE_SCORERS

    asked = []
    for row in sample(root, "images").values():
        images = pictures(root, row)
        readings = oracle.read_pictures(np.stack([*map(np.asarray, images)]))
        for name in sorted(read(row["prompt"]).names()):
            truth = [float(shown(each.scene, " ".join(name))) for each in readings]
            if len({*truth}) > 1:
                asked.append((f"a {' '.join(name)}", images, truth))
    reward = {"kind": "image-reward", "model": str(models / "image-reward")}
    for who, values in (("ImageReward", reward), ("VQAScore", VQASCORE | model_in(models))):
        scorer = IMAGE_SCORERS.load_model(IMAGE_SCORERS.validate(values), "cpu")
        yield who, [Scored(truth, scorer.score(text, images)) for text, images, truth in asked]


def of_answers(root: Path, models: Path) -> Iterator[tuple[str, list[Scored]]]:
    """Who scores answers, with the scores of each prompt's answers beside how true they are of the
    picture; pictures of which the oracle is sure.
    """
    from lib.models.response_rewards.registry import RESPONSE_REWARDS

    asked: list[tuple[dict[str, Any], list[dict[str, Any]], list[float]]] = []
    for row in sample(root, "response_ranking").values():
        picture = np.asarray(Image.open(root / row["image"]["file"]).convert("RGB"))
        (reading,) = oracle.read_pictures(picture[None])
        answers = [each for each in row["responses"].values() if "score" in each]
        if not reading.unclear:
            truth = [true_of(row["instruction"], each["text"], reading.scene) for each in answers]
            asked.append((row, answers, truth))
    yield "ArmoRM", [Scored(truth, [each["score"] for each in told]) for _, told, truth in asked]
    for name, values in SEEING.items():
        settings = RESPONSE_REWARDS.validate(values | model_in(models))
        judge = RESPONSE_REWARDS.load_model(settings, "cpu")
        rated = [judge.rate(conversations(root, row, answers)) for row, answers, _ in asked]
        yield (
            name,
            [
                Scored(truth, [reward.score for reward in rewards])
                for (_, _, truth), rewards in zip(asked, rated, strict=True)
            ],
        )


def model_in(models: Path) -> dict[str, str]:
    """The model that is asked."""
    return {"model": str(models / WHO_SEES), "dtype": "float32"}


def conversations(
    root: Path, row: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
) -> list[list[dict[str, str]]]:
    """An instruction about a picture with each of its answers."""
    asked = {
        "role": "user",
        "content": row["instruction"],
        "image": str(root / row["image"]["file"]),
    }
    return [[asked, {"role": "assistant", "content": each["text"]}] for each in answers]


def true_of(instruction: str, answer: str, scene: Any) -> float:
    """How true an answer is of a scene, from 0 to 1: a description's grade, or whether Yes or No is
    right.
    """
    if instruction in DESCRIBE:
        return round(grade(answer, scene), 6)
    before, after = question("|").split("|")
    subject = instruction.removeprefix(before).removesuffix(after)
    return float(answer.strip(".").lower() == ("yes" if shown(scene, subject) else "no"))


def cells(root: Path, models: Path) -> Iterator[tuple[str, str, float]]:
    """The table of agreement: row, column and value."""
    for what, scored in (
        ("pictures", of_pictures(root, models)),
        ("pictures, one thing asked for", of_things(root, models)),
        ("answers", of_answers(root, models)),
    ):
        for name, groups in scored:
            alike = agreement(groups)
            yield f"{what}: {name}", "pairs that differ", float(len(alike))
            yield f"{what}: {name}", "in the oracle's order, %", 100 * float(np.mean(alike))
