"""Figures: the numbers that are drawn, and files that are whole, safe and the same each time."""

import json
import math
import random
import xml.etree.ElementTree as ElementTree
from collections import Counter
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import candidates_figure
import guidance_figure
import similarity_figure
from candidates_figure import choose_prompts, shorten
from guidance_figure import ALL, count_picks, panels_of, wilson_interval
from lib.config.run import Config
from lib.errors import UserError
from lib.files import write_jsonl
from lib.head.plan import Plan
from lib.head.table_rows import candidates_job, guidance_job
from lib.report.digits import told_apart
from lib.report.figures import new_figure
from lib.report.sheet import Sheet
from lib.vectors import pack, unpack
from similarity_figure import (
    bin_width,
    compare_all,
    compare_in_groups,
    distributions,
    steps_of,
)
from write_instructions import pick_image

SCALES = (5.0, 7.0, 9.0, 11.0)
MODEL = {"model": "owner/name", "revision": "a" * 40}
PICKS = {"scorer": "image-reward", "scorer_model": MODEL, "image_model": MODEL}
SHEET = {**PICKS, "prompts": 6, "pick": "best"}
HOSTILE = "a $\\frac{1}{$ <b>&amp; 猫\u202e]]>\x1b[31m " + "very long words " * 40


def image_row(root, number, topic="art", prompt=None, write=False):
    prompt = prompt or f"{number} cats"
    candidates = []
    for place, scale in enumerate(SCALES):
        file = f"images/{topic}/{number}-{place}.png"
        if write:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number * 10 + place).integers(
                0, 256, (16, 16, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(root / file)
        digest = sha256((root / file).read_bytes()).hexdigest() if write else "0" * 64
        candidates.append(
            {"guidance_scale": scale, "seed": place, "file": file, "sha256": digest, "blank": False}
        )
    return {
        "id": f"{topic}-{number:010x}",
        "topic": topic,
        "prompt": prompt,
        "candidates": candidates,
    }


def ranking_row(image, winner):
    scores = [float(place == winner) for place in range(4)]
    about = {name: image[name] for name in ("id", "topic", "prompt")}
    return about | {
        "scores": scores,
        "ranking": sorted(range(4), key=lambda place: -scores[place]),
        "winner": winner,
        "blank": [],
    }


def missing(image):
    return {name: image[name] for name in ("id", "topic", "prompt")} | {
        "missing": {"rule": "rank_images", "reason": "all images blank"}
    }


@pytest.fixture
def run(tmp_path, rule_object):
    """Runs a figure's rule; gives its sidecar and the bytes of its two pictures."""
    root = tmp_path / "run"

    def go(module, inputs, **settings):
        name = module.__name__
        files = {}
        for kind, rows in inputs.items():
            write_jsonl(root / f"{kind}.jsonl", rows)
            files[kind] = [str(root / f"{kind}.jsonl")]
        outputs = SimpleNamespace(
            **{
                kind: str(root / f"{name}.{end}")
                for kind, end in (("svg", "svg"), ("png", "png"), ("sidecar", "json"))
            }
        )
        settings["label"] = "demo"
        module.main(rule_object(name, {}, SimpleNamespace(**files), outputs, settings=settings))
        return (
            json.loads((root / f"{name}.json").read_text()),
            (root / f"{name}.svg").read_bytes(),
            (root / f"{name}.png").read_bytes(),
        )

    return go


def check_pictures(tmp_path, name, sidecar, svg, png):
    """Whole files of the digests that the sidecar names, whose texts are outlines; no dates and no
    other versions.
    """
    assert sidecar["files"]["svg"]["sha256"] == sha256(svg).hexdigest()
    assert sidecar["files"]["png"]["sha256"] == sha256(png).hexdigest()
    tags = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()]
    assert "text" not in tags
    assert "script" not in tags
    assert "date" not in tags
    assert tags.count("path") > 20
    with Image.open(tmp_path / f"run/{name}.png") as image:
        assert image.width > 800
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20


# Figure 4


def test_wilson_s_interval_is_that_of_the_statistics_library():
    from scipy.stats import binomtest

    for hits, tries in ((0, 4), (3, 12), (4, 4), (270, 900)):
        theirs = binomtest(hits, tries).proportion_ci(0.95, method="wilson")
        assert wilson_interval(hits, tries) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert wilson_interval(0, 0) == (0, 1)


def test_picks_are_counted_by_topic_and_prompts_without_a_pick_are_left_out(tmp_path):
    images = [
        image_row(tmp_path, number, topic)
        for number, topic in enumerate(["art", "art", "nature", "nature"])
    ]
    rankings = [
        ranking_row(images[0], 1),
        ranking_row(images[1], 3),
        ranking_row(images[2], 1),
        missing(images[3]),
    ]
    picks = count_picks({row["id"]: row for row in images}, {row["id"]: row for row in rankings})
    assert picks == {
        ALL: Counter({7.0: 2, 11.0: 1}),
        "art": Counter({7.0: 1, 11.0: 1}),
        "nature": Counter({7.0: 1}),
    }
    panels = panels_of(picks, SCALES)
    assert [panel["picks"] for panel in panels] == [3, 2, 1]
    assert [bar["percent"] for bar in panels[1]["scales"]] == [0, 50, 0, 50]


def test_the_guidance_figure_is_whole_and_the_same_each_time(run, tmp_path):
    generator = random.Random(0)
    images = [
        image_row(tmp_path, number, topic)
        for number, topic in enumerate(["art", "nature", "school", "a_b"] * 5)
    ]
    inputs = {
        "images": images,
        "rankings": [ranking_row(row, generator.randrange(4)) for row in images],
    }
    first = run(guidance_figure, inputs, **PICKS, guidance_scales=list(SCALES))
    check_pictures(tmp_path, "guidance_figure", *first)
    assert sum(bar["picks"] for bar in first[0]["panels"][0]["scales"]) == 20
    assert first[0]["scorer"] == {
        "name": "image-reward",
        "model": "owner/name",
        "revision": "a" * 40,
        "identity": "a" * 40,
    }
    assert run(guidance_figure, inputs, **PICKS, guidance_scales=list(SCALES)) == first


def test_a_run_without_any_pick_has_a_figure_that_shows_nothing(run, tmp_path):
    image = image_row(tmp_path, 1, write=True)
    inputs = {"images": [image], "rankings": [missing(image)]}
    sidecar, _, _ = run(guidance_figure, inputs, **PICKS, guidance_scales=list(SCALES))
    assert (sidecar["panels"][0]["picks"], sidecar["prompts_without_a_pick"]) == (0, 1)
    sidecar, _, _ = run(candidates_figure, inputs, **SHEET)
    assert sidecar["rows"] == []


# Figure 2


def test_the_sheet_draws_topics_in_turn_and_a_prompt_keeps_its_place(tmp_path):
    images = [
        image_row(tmp_path, number, topic)
        for topic in ("art", "nature", "school")
        for number in range(9)
    ]
    rankings = {row["id"]: ranking_row(row, 0) for row in images}
    six = choose_prompts(rankings, 6, seed=0)
    assert Counter(one.split("-")[0] for one in six) == {"art": 2, "nature": 2, "school": 2}
    assert six == sorted(six, key=lambda one: one.split("-")[0])
    assert choose_prompts(dict(reversed(rankings.items())), 6, seed=0) == six
    assert set(six) < set(choose_prompts(rankings, 9, seed=0))
    assert choose_prompts(rankings, 6, seed=1) != six
    without = {key: row for key, row in rankings.items() if key != six[0]}
    assert set(six[1:]) < set(choose_prompts(without, 6, seed=0))
    assert len(choose_prompts(rankings, 100, seed=0)) == 27


def test_prompts_are_shortened_to_the_room_there_is():
    assert shorten("a cat\n\tand\x00 a dog") == "a cat and a dog"
    long = shorten("word " * 200).splitlines()
    assert len(long) == 8
    assert long[-1].endswith(" …")
    assert max(map(len, long)) <= 36


def test_a_hostile_prompt_is_drawn_as_text_and_the_pick_is_the_ranking_s(run, tmp_path):
    root = tmp_path / "run"
    images = [
        image_row(root, 1, prompt=HOSTILE, write=True),
        image_row(root, 2, "nature", write=True),
    ]
    inputs = {"images": images, "rankings": [ranking_row(images[0], 2), ranking_row(images[1], 0)]}
    first = run(candidates_figure, inputs, **SHEET)
    check_pictures(tmp_path, "candidates_figure", *first)
    sidecar = first[0]
    assert [
        [candidate["picked"] for candidate in row["candidates"]].index(True)
        for row in sidecar["rows"]
    ] == [2, 0]
    assert sidecar["rows"][0]["prompt"] == HOSTILE
    assert run(candidates_figure, inputs, **SHEET) == first


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ((1.2949, 1.2903, 1.2899, 0.5), ("1.2949", "1.2903", "1.2899", "0.5000")),
        ((0.5, 0.5, 0.25), ("0.50", "0.50", "0.25")),
        ((1.0, 1.0 + 1e-15, 0.0), ("1.00", "1.00", "0.00")),
        ((math.nan, 1.0), ("nan", "1.00")),
        ((), ()),
    ],
)
def test_scores_side_by_side_have_the_digits_that_tell_them_apart(scores, shown):
    assert tuple(told_apart(scores, 2)) == shown


def test_the_sheet_shows_why_one_of_three_candidates_with_nearly_the_same_score_is_picked(tmp_path):
    image = image_row(tmp_path, 1, write=True)
    ranking: Any = {**ranking_row(image, 0), "scores": [1.2949, 1.2903, 1.2899, 0.5]}
    prompt = candidates_figure.shown_prompt(image, ranking, "best", 0)
    pictures = candidates_figure.read_thumbnails([prompt], tmp_path)
    with new_figure(9, 3) as figure:
        legend = candidates_figure.Legend("image-reward", "best", "ours")
        candidates_figure.draw(Sheet(figure), [prompt], pictures, legend)
        drawn = [text.get_text() for text in figure.texts]
    assert [text for text in drawn if text[:2] in ("1.", "0.")] == [
        "1.2949  ✓ picked",
        "1.2903",
        "1.2899",
        "0.5000",
    ]


def test_a_pick_that_was_drawn_is_the_one_the_run_went_on_with_and_is_said_to_be_drawn(
    run, tmp_path
):
    root = tmp_path / "run"
    images = [image_row(root, number, write=True) for number in range(6)]
    rankings = [ranking_row(row, 0) for row in images]
    inputs = {"images": images, "rankings": rankings}
    best, drawn_ones = (
        run(candidates_figure, inputs, **SHEET),
        run(candidates_figure, inputs, **SHEET | {"pick": "random"}),
    )
    for row in drawn_ones[0]["rows"]:
        place = [image["id"] for image in images].index(row["id"])
        used = pick_image(rankings[place], images[place]["candidates"], "random", 0)
        [shown] = [candidate["file"] for candidate in row["candidates"] if candidate["picked"]]
        assert shown == used["file"]
    assert drawn_ones[0]["pick"].startswith("random: ")
    assert "pick" not in best[0]
    assert drawn_ones[1] != best[1]
    check_pictures(tmp_path, "candidates_figure", *drawn_ones)


def test_only_the_sheet_is_told_of_a_drawn_pick():
    best, drawn = (
        Plan(Config.model_validate({"image_ranking": {"pick": pick}}))
        for pick in ("best", "random")
    )
    assert (candidates_job(best).pick, candidates_job(drawn).pick) == ("best", "random")
    assert guidance_job(best) == guidance_job(drawn)


def test_an_image_that_is_not_the_one_that_was_ranked_is_not_shown(run, tmp_path):
    image = image_row(tmp_path / "run", 1, write=True)
    (tmp_path / "run" / image["candidates"][0]["file"]).write_bytes(b"another")
    with pytest.raises(UserError, match="has other contents"):
        run(candidates_figure, {"images": [image], "rankings": [ranking_row(image, 0)]}, **SHEET)


# Figure 6


def vectors(count, seed=0, dimensions=8):
    found = np.random.default_rng(seed).normal(size=(count, dimensions))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_similarities_between_are_those_of_every_two_vectors(monkeypatch):
    found = vectors(50)
    every = (found @ found.T)[np.triu_indices(50, 1)]
    whole = compare_all(found)
    assert (whole["pairs"], whole["texts"]) == (1225, 50)
    assert whole["mean"] == pytest.approx(every.mean(), abs=1e-4)
    assert sum(whole["histogram"].values()) == 1225
    assert whole["histogram"].get("0.00", 0) == ((every >= 0) & (every < 0.01)).sum()
    monkeypatch.setattr(similarity_figure, "BLOCK", 7)
    assert compare_all(found) == whole


def test_similarities_within_are_of_the_same_group_only():
    one, two = vectors(1)[0], vectors(1, seed=1)[0]
    found = compare_in_groups([np.stack([one, one]), np.stack([two, two, two]), np.stack([one])])
    assert (found["pairs"], found["mean"], found["histogram"]) == (4, 1.0, {"0.99": 4})


def test_nothing_to_compare_has_no_mean():
    assert compare_all(unpack([]))["mean"] is None
    assert compare_in_groups([]) == {"texts": 0, "pairs": 0, "mean": None, "histogram": {}}


def test_a_drawn_curve_has_the_area_one():
    distribution = compare_all(vectors(40))
    for width in (1, 2, 5, 10):
        edges, heights = steps_of(distribution, width)
        assert sum(height * (edges[1] - edges[0]) for height in heights) == pytest.approx(1)
    assert bin_width(compare_all(vectors(5))) > bin_width(compare_all(vectors(300)))


def embedded(number, **texts):
    packed = {name.replace("__", "/"): pack(vector) for name, vector in texts.items()}
    return {"id": f"art-{number:010x}", "topic": "art", "prompt": "x", "embeddings": packed}


def paired(number, policy):
    """The row of a pair, as far as the figure reads it; of none where no policy model is chosen."""
    decision = {"pair": {"chosen": {"policy": policy}}} if policy else {"no_pair": "tie"}
    return {"id": f"art-{number:010x}", "topic": "art", "prompt": "x", **decision}


def test_the_chosen_responses_are_compared_and_the_figure_is_the_same_each_time(run, tmp_path):
    rows, pairs = [], []
    for number in range(6):
        one, two, three, four = vectors(4, seed=number)
        rows.append(
            embedded(number, prompt=one, instruction=two, responses__a=three, responses__b=four)
        )
        pairs.append(paired(number, "ab"[number % 2] if number else None))
    found = distributions({row["id"]: row for row in rows}, {row["id"]: row for row in pairs})
    picked = unpack(
        [
            row["embeddings"][f"responses/{'ab'[number % 2]}"]
            for number, row in enumerate(rows)
            if number
        ]
    )
    assert found["responses_of_two_prompts"] == compare_all(picked)
    assert found["responses_of_two_prompts"]["pairs"] == 10
    assert found["responses_to_one_prompt"]["pairs"] == 6
    assert found["instructions_of_two_prompts"]["pairs"] == 15
    assert found["prompts"]["pairs"] == 15
    first = run(similarity_figure, {"embeddings": rows, "pairs": pairs}, embedding=MODEL)
    check_pictures(tmp_path, "similarity_figure", *first)
    assert first[0]["embedding"]["identity"] == "a" * 40
    assert run(similarity_figure, {"embeddings": rows, "pairs": pairs}, embedding=MODEL) == first
