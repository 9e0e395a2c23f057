"""The small world: scenes are drawn, said and read back without a mistake, and what is held out is
held out.
"""

from collections import Counter

import numpy as np
import pytest

from world import oracle, words
from world.pictures import SIDE, cells_of, draw
from world.scenes import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    KINDS,
    Scene,
    Thing,
    altered,
    held_out,
    random_scene,
)

RED_CIRCLE, BLUE_SQUARE = Thing(0, "red", "circle"), Thing(3, "blue", "square")
TWO = Scene("grey", (RED_CIRCLE, BLUE_SQUARE))


def some(count: int, seed: int, unseen: bool = False) -> tuple[list[Scene], np.ndarray]:
    random = np.random.default_rng(seed)
    scenes = [random_scene(random, unseen=unseen) for _ in range(count)]
    return scenes, np.stack([draw(scene, random) for scene in scenes])


# --- pictures


def test_the_oracle_reads_every_rendered_scene_back_exactly() -> None:
    scenes, pictures = some(2000, seed=1)
    assert oracle.read_pictures(pictures) == [oracle.Reading(scene, 0) for scene in scenes]


def test_a_picture_depends_on_its_scene_and_seed_only() -> None:
    one, other, third = (draw(TWO, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one.shape == (SIDE, SIDE, 3)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)


def test_the_cells_of_a_picture_are_in_reading_order() -> None:
    picture = draw(Scene("white", (Thing(1, "green", "square"),)), np.random.default_rng(0))
    assert [(cell != 255).any() for cell in cells_of(picture[None])[0]] == [
        False,
        True,
        False,
        False,
    ]


def test_the_oracle_reads_through_noise_and_calls_a_smear_unclear() -> None:
    scenes, pictures = some(200, seed=2)
    noise = np.random.default_rng(3).normal(0, 12, pictures.shape)
    noisy = (pictures + noise).clip(0, 255).astype(np.uint8)
    assert [reading.scene for reading in oracle.read_pictures(noisy)] == scenes
    smear = np.full((1, SIDE, SIDE, 3), 255, dtype=np.uint8)
    smear[0, 2:22:2, 1:23] = (214, 40, 40)
    assert oracle.read_pictures(smear) == [oracle.Reading(Scene("white", ()), 1)]


def test_an_empty_picture_is_an_empty_scene() -> None:
    assert oracle.read_pictures(np.full((1, SIDE, SIDE, 3), 20, dtype=np.uint8)) == [
        oracle.Reading(Scene("black", ()), 0)
    ]


# --- scenes


def test_random_scenes_have_every_colour_kind_cell_and_background_and_things_to_count() -> None:
    scenes, _ = some(1000, seed=4)
    things = [thing for scene in scenes for thing in scene.things]
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.kind for thing in things} == set(KINDS)
    assert {thing.cell for thing in things} == set(range(len(CELLS)))
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert Counter(len(scene.things) for scene in scenes).keys() == {1, 2, 3}
    assert sum(max(scene.names().values()) > 1 for scene in scenes) > 200


def test_scenes_of_training_and_unseen_scenes_have_no_combination_in_common() -> None:
    def combinations(unseen: bool) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (scene.background, tuple(sorted(scene.names().elements())))
            for scene in some(2000, seed=5, unseen=unseen)[0]
        }

    seen, unseen = combinations(False), combinations(True)
    assert len(unseen) > 200
    assert not seen & unseen


def test_moving_a_thing_does_not_bring_a_held_out_scene_into_training() -> None:
    for scene in some(200, seed=6, unseen=True)[0]:
        names = [thing.name for thing in scene.things]
        assert held_out(
            Scene(
                scene.background,
                tuple(Thing(cell, *name) for cell, name in enumerate(reversed(names))),
            )
        )


def test_a_scene_out_of_reading_order_is_refused() -> None:
    with pytest.raises(ValueError, match="reading order"):
        Scene("grey", (BLUE_SQUARE, RED_CIRCLE))


def test_an_altered_scene_is_another_and_differs_in_one_thing() -> None:
    random = np.random.default_rng(10)
    for scene in some(300, seed=10)[0]:
        other = altered(scene, random)
        assert other != scene
        assert (
            max((scene.names() - other.names()).total(), (other.names() - scene.names()).total())
            <= 1
        )


# --- words


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("counting", "two red circles and a blue square on grey"),
        ("colours", "a red circle, a red circle and a blue square on grey"),
        (
            "positions",
            (
                "a red circle top left, a red circle bottom left and a blue square bottom right on"
                " grey"
            ),
        ),
    ],
)
def test_a_topic_says_a_scene_in_its_own_way(topic: str, text: str) -> None:
    assert (
        words.prompt(Scene("grey", (RED_CIRCLE, Thing(2, "red", "circle"), BLUE_SQUARE)), topic)
        == text
    )


@pytest.mark.parametrize("topic", words.TOPICS)
def test_what_is_said_is_read_back_exactly(topic: str) -> None:
    for scene in some(500, seed=7)[0]:
        said = words.read(words.sentence(words.prompt(scene, topic)))
        assert said.background == scene.background
        assert said.names() == scene.names()
        if topic == "positions":
            assert {cell: (colour, kind) for colour, kind, cell in said.things} == {
                thing.cell: thing.name for thing in scene.things
            }


def test_a_question_about_what_is_there_has_the_answer_yes_and_about_what_is_not_no() -> None:
    random = np.random.default_rng(8)
    asked = Counter[str]()
    for scene in some(300, seed=8)[0]:
        for answer in (True, False):
            text = words.random_subject(scene, answer, random)
            assert words.shown(scene, text) == answer
            asked[words.question(text)] += 1
    assert asked["Is there a cross in the image?"]
    assert asked["Is there a red shape in the image?"]
    assert asked["Is there a green triangle in the image?"]


# --- verdicts


def test_a_true_caption_is_exact_and_a_habit_is_seen() -> None:
    for scene in some(300, seed=9)[0]:
        assert oracle.judge_caption(words.caption(scene), scene).exact
    verdict = oracle.judge_caption("A red circle, a red cross and a green square on grey.", TWO)
    assert verdict.right == Counter({("red", "circle"): 1})
    assert verdict.hallucinated == Counter({("red", "cross"): 1, ("green", "square"): 1})
    assert verdict.missed == Counter({("blue", "square"): 1})
    assert not verdict.exact


def test_a_second_thing_of_a_kind_that_is_there_once_is_hallucinated() -> None:
    assert oracle.judge_caption(
        "Two red circles and a blue square on grey.", TWO
    ).hallucinated == Counter({("red", "circle"): 1})


@pytest.mark.parametrize(
    ("prompt", "right", "whole"),
    [
        ("a red circle and a blue square on grey", 2, True),
        ("a red circle and a blue square on white", 2, False),
        ("a red circle on grey", 1, False),
        ("two red circles on grey", 1, False),
        ("a red circle top left and a blue square bottom right on grey", 2, True),
        ("a red circle bottom right and a blue square top left on grey", 0, False),
        ("a red circle, a blue square and a green cross on grey", 2, False),
    ],
)
def test_a_picture_is_judged_by_what_its_prompt_said(prompt: str, right: int, whole: bool) -> None:
    reading = oracle.read_pictures(draw(TWO, np.random.default_rng(0))[None])[0]
    said = words.read(prompt)
    assert oracle.judge_picture(reading, said) == oracle.PictureVerdict(
        right, len(said.things), whole
    )


def test_a_picture_fits_its_own_prompt_best_and_each_mention_is_true_by_itself() -> None:
    random = np.random.default_rng(11)
    for scene in some(300, seed=11)[0]:
        text = words.prompt(scene, "positions")
        assert oracle.fit(text, oracle.Reading(scene, 0)) == pytest.approx(1)
        assert oracle.fit(text, oracle.Reading(altered(scene, random), 0)) < 1
        assert all(oracle.truths(text, scene))
    assert oracle.truths("two red circles and a blue square top left on grey", TWO) == [
        False,
        False,
    ]
    assert oracle.truths("a red circle and a blue square bottom right", TWO) == [True, True]
