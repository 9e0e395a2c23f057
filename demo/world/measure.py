"""What the checkpoints reach on unseen scenes, by the oracle, each loaded and asked by the
product's own code.

Every figure is a share from 0 to 1 unless its name says otherwise. Scenes come from a seed that no
training uses, and are combinations that no training has seen.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from world import oracle
from world.pictures import Picture, draw
from world.scenes import Scene, altered, random_scene
from world.words import DESCRIBE, TOPICS, instruction, prompt, question, random_subject, read

if TYPE_CHECKING:
    from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3
    from lib.models.image_scorers.base import ImageScorer

SEED = 20_261_124
SCALES = (1.0, 2.0, 3.0, 5.0, 7.0, 11.0)
STEPS = 16  # of the sampler

Figures = dict[str, float]


def unseen_scenes(count: int, stream: int) -> tuple[list[Scene], Picture]:
    """Unseen scenes and their pictures; `stream` tells one use from another."""
    random = np.random.default_rng([SEED, stream])
    scenes = [random_scene(random, unseen=True) for _ in range(count)]
    return scenes, np.stack([draw(scene, random) for scene in scenes])


def rounded(value: Any) -> float:
    """A share with three digits, which is what a few hundred scenes can tell."""
    return round(float(value), 3)


def image_settings(folder: Path) -> "StableDiffusion3.Settings":
    """How rule generate_images is to run the world's image model."""
    from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3
    from world.painter import T5_TOKENS

    return StableDiffusion3.Settings(
        model=str(folder),
        dtype="float32",
        height=48,
        width=48,
        steps=STEPS,
        max_sequence_length=T5_TOKENS,
    )


def load_image_model(folder: Path) -> "StableDiffusion3":
    """The world's image model, as rule generate_images loads it."""
    from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3

    return StableDiffusion3.load(image_settings(folder), "cpu")


def painter(folder: Path, count: int = 240) -> Figures:
    """Pictures of unseen scenes by rule generate_images, at each guidance scale: objects right, and
    whole scene exact, by topic too.
    """
    from lib.data.prompts import seed_of

    generator = load_image_model(folder)
    scenes, _ = unseen_scenes(count, 1)
    verdicts: dict[tuple[float, str], list[oracle.PictureVerdict]] = {
        (scale, topic): [] for scale in SCALES for topic in TOPICS
    }
    for number, scene in enumerate(scenes):
        topic = TOPICS[number % len(TOPICS)]
        text = prompt(scene, topic)
        seeds = [seed_of(SEED, "image", f"{number}", scale) for scale in SCALES]
        # Without guidance by itself: a batch in which one scale is 1 has none at all, which is why
        # the configuration refuses 1.
        images = generator.generate(text, SCALES[:1], seeds[:1])
        images += generator.generate(text, SCALES[1:], seeds[1:])
        readings = oracle.read_pictures(np.stack([np.asarray(image) for image in images]))
        for scale, reading in zip(SCALES, readings, strict=True):
            verdicts[scale, topic].append(oracle.judge_picture(reading, read(text)))
    figures: Figures = {}
    for scale in SCALES:
        of_scale = [verdict for topic in TOPICS for verdict in verdicts[scale, topic]]
        figures[f"objects right, g = {scale:g}"] = rounded(
            sum(v.right for v in of_scale) / sum(v.wanted for v in of_scale)
        )
        figures[f"whole scene exact, g = {scale:g}"] = rounded(np.mean([v.whole for v in of_scale]))
    best = max(
        SCALES,
        key=lambda scale: (
            figures[f"whole scene exact, g = {scale:g}"],
            figures[f"objects right, g = {scale:g}"],
        ),
    )
    for topic in TOPICS:
        figures[f"whole scene exact, g = {best:g}, {topic}"] = rounded(
            np.mean([v.whole for v in verdicts[best, topic]])
        )
    return figures


def answerer(folder: Path, count: int = 256) -> Figures:
    """Greedy answers about unseen scenes through the product's generator: captions and their
    hallucinations, yes and no.
    """
    from lib.models.response_generators.requests import Request, Sampling
    from lib.models.response_generators.transformers import TransformersGenerator

    settings = TransformersGenerator.Settings(
        backend="transformers", model=str(folder), dtype="float32"
    )
    generator = TransformersGenerator.load(
        settings, "cpu", Sampling(48, 0.0), with_images=True, batch_size=32
    )
    scenes, pictures = unseen_scenes(count, 2)
    random = np.random.default_rng([SEED, 3])
    with tempfile.TemporaryDirectory() as kept:
        files = [Path(kept, f"{number}.png") for number in range(count)]
        for file, picture in zip(files, pictures, strict=True):
            Image.fromarray(picture).save(file)

        def answers(requests: list[Request]) -> list[str]:
            return [
                each.text
                for start in range(0, len(requests), 32)
                for each in generator.generate(requests[start : start + 32])
            ]

        captions = answers([Request(DESCRIBE[0], 0, file) for file in files])
        verdicts = [
            oracle.judge_caption(text, scene) for text, scene in zip(captions, scenes, strict=True)
        ]
        mentioned = sum(
            verdict.right.total() + verdict.hallucinated.total() for verdict in verdicts
        )
        there = sum(verdict.right.total() + verdict.missed.total() for verdict in verdicts)
        figures: Figures = {
            "captions exact": rounded(np.mean([verdict.exact for verdict in verdicts])),
            "CHAIR_s": rounded(np.mean([bool(verdict.hallucinated) for verdict in verdicts])),
            "CHAIR_i": rounded(
                sum(verdict.hallucinated.total() for verdict in verdicts) / max(1, mentioned)
            ),
            "cover": rounded(sum(verdict.right.total() for verdict in verdicts) / there),
        }
        for form in ("kind", "colour", "both"):
            right = {True: 0, False: 0}
            for truth in (True, False):
                questions = [
                    question(random_subject(scene, truth, random, [form])) for scene in scenes
                ]
                replies = answers(
                    [Request(text, 0, file) for text, file in zip(questions, files, strict=True)]
                )
                right[truth] = sum(
                    text.strip(".").lower() == ("yes" if truth else "no") for text in replies
                )
            noun = {"kind": "shapes", "colour": "colours", "both": "coloured shapes"}[form]
            figures[f"yes/no about {noun}"] = rounded((right[True] + right[False]) / (2 * count))
            figures[f"yes/no about {noun}, where it is no"] = rounded(right[False] / count)
    return figures


def vae(folder: Path, count: int = 1000) -> Figures:
    """Unseen scenes read exactly after they went through the VAE."""
    import torch
    from diffusers import AutoencoderKL

    from world.painter import reconstructed

    return {
        "reconstructions exact": rounded(
            reconstructed(
                AutoencoderKL.from_pretrained(folder, dtype=torch.float32).eval(), count, SEED
            )
        )
    }


def scorer(kind: str, folder: Path, count: int = 512) -> Figures:
    """A scorer's verdict between a picture of an unseen scene and one that differs in one thing,
    under a prompt that tells them apart.
    """
    from lib.models.image_scorers.registry import IMAGE_SCORERS

    settings = IMAGE_SCORERS.validate({"kind": kind, "model": str(folder)})
    loaded = IMAGE_SCORERS.load(kind).load(settings, "cpu")
    scenes, pictures = unseen_scenes(count, 4)
    random = np.random.default_rng([SEED, 5])
    right: dict[str, list[bool]] = {topic: [] for topic in TOPICS}
    for number, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        text = prompt(scene, topic := TOPICS[number % len(TOPICS)])
        other = scene
        while oracle.fit(text, oracle.Reading(other, 0)) > 0.999:
            other = altered(scene, random)
        scores = loaded.score(
            text, [Image.fromarray(picture), Image.fromarray(draw(other, random))]
        )
        right[topic].append(scores[0] > scores[1])
    figures = {
        "pairs of renders": rounded(np.mean([each for topic in TOPICS for each in right[topic]]))
    }
    figures |= {f"pairs of renders, {topic}": rounded(np.mean(right[topic])) for topic in TOPICS}
    image_model = folder.parent / "stable-diffusion-3-medium"
    return figures | (
        picks(loaded, image_model) if (image_model / "model_index.json").is_file() else {}
    )


def picks(loaded: "ImageScorer", image_model: Path, count: int = 150) -> Figures:
    """What a scorer's pick of a prompt's four candidates is better by than a random one of the
    four, in the oracle's fit.

    The interval is that of the mean over prompts, by 2,000 bootstrap samples.
    """
    from lib.data.prompts import seed_of

    scales = (5.0, 7.0, 9.0, 11.0)
    generator = load_image_model(image_model)
    scenes, _ = unseen_scenes(count, 8)
    gains, picked, best = [], [], []
    for number, scene in enumerate(scenes):
        text = prompt(scene, TOPICS[number % len(TOPICS)])
        seeds = [seed_of(SEED, "pick", f"{number}", scale) for scale in scales]
        images = generator.generate(text, scales, seeds)
        fits = [
            oracle.fit(text, reading)
            for reading in oracle.read_pictures(np.stack([np.asarray(image) for image in images]))
        ]
        picked.append(fits[int(np.argmax(loaded.score(text, images)))])
        gains.append(picked[-1] - float(np.mean(fits)))
        best.append(max(fits))
    random = np.random.default_rng([SEED, 9])
    means = np.array(gains)[random.integers(count, size=(2000, count))].mean(axis=1)
    return {
        "fit of the pick": rounded(np.mean(picked)),
        "fit of the best of four": rounded(np.mean(best)),
        "pick less a random one of four": rounded(np.mean(gains)),
        "pick less a random one, lower bound (95 %)": rounded(np.quantile(means, 0.025)),
        "pick less a random one, upper bound (95 %)": rounded(np.quantile(means, 0.975)),
    }


def armorm(folder: Path, count: int = 512) -> Figures:
    """ArmoRM's verdict between two answers about an unseen scene whose prompt the instruction
    tells.
    """
    from lib.models.response_rewards.armorm import ArmoRM
    from world.text_judge import conversation, grade, random_comparison, random_description

    judge = ArmoRM.from_pretrained(folder, "float32")
    scenes, _ = unseen_scenes(count, 6)
    random = np.random.default_rng([SEED, 7])
    right: dict[str, list[bool]] = {"captions": [], "yes/no": []}
    for scene in scenes:
        request, answers, grades = random_comparison(random, scene)
        if grades[0] != grades[1]:
            rewards = judge.rate([conversation(request, answer) for answer in answers])
            right["yes/no" if answers[0] in ("Yes", "No") else "captions"].append(
                (rewards[0].score > rewards[1].score) == (grades[0] > grades[1])
            )
    best = []
    for scene in scenes:
        request = instruction(prompt(scene, TOPICS[int(random.integers(len(TOPICS)))]), DESCRIBE[0])
        answers = [random_description(scene, random) for _ in range(4)]
        grades = [grade(answer, scene) for answer in answers]
        scores = [
            reward.score
            for reward in judge.rate([conversation(request, answer) for answer in answers])
        ]
        best.append(grades[int(np.argmax(scores))] == max(grades))
    figures = {
        f"prefers the truer of two {what}": rounded(np.mean(each)) for what, each in right.items()
    }
    return figures | {"its best of four captions is a truest": rounded(np.mean(best))}
