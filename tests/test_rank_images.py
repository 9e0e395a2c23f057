"""Image ranking: every score is kept, the first maximum wins, what cannot be ranked says why."""

import json
import math
import os
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import rank_images
from conftest import DEVICE, rounding
from lib.config.image_ranking import RankImagesJob
from lib.config.run import load_config
from lib.data.image_files import read_image
from lib.data.prompts import Prompt
from lib.data.rows import ImageRankingRow
from lib.data.shards import missing_row, read_shard
from lib.errors import UserError
from lib.files import write_jsonl
from lib.head.plan import Plan, pattern_of_shards
from lib.jobs.job import Job
from lib.jobs.streams import Item, handing_out, with_the_next_prepared
from lib.models.image_scorers.clip import CLIPScore
from lib.models.image_scorers.image_reward import ImageReward
from lib.models.image_scorers.registry import IMAGE_SCORERS
from tiny.image_reward import write_image_reward

REPOSITORY = Path(__file__).resolve().parent.parent
PROMPTS = [
    "two blue cats on a red sofa",
    "猫が三匹 [SEP] 😀",
    "a very long prompt about " + "one more cat and " * 20,
]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "image-reward"
    write_image_reward(folder)
    return folder


@pytest.fixture
def settings(model):
    return {"kind": "image-reward", "model": str(model)}


def images_row(root, text, number, blank=(), same=()):
    """A row of the images stage and its image files: four candidates, `blank` ones of one colour,
    `same` ones equal to each other.
    """
    generator = np.random.default_rng(number)
    candidates = []
    drawn = generator.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    for index, scale in enumerate((5.0, 7.0, 9.0, 11.0)):
        pixels = drawn[same[0] if index in same else index]
        file = f"images/art/00/{number}-{index}.png"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full_like(pixels, 7) if index in blank else pixels).save(root / file)
        content = (root / file).read_bytes()
        candidates.append(
            {
                "guidance_scale": scale,
                "seed": index,
                "file": file,
                "sha256": sha256(content).hexdigest(),
                "blank": index in blank,
            }
        )
    prompt = Prompt("art", text)
    return {"id": prompt.id, "topic": "art", "prompt": text, "candidates": candidates}


@pytest.fixture
def run(tmp_path, rule_object, settings):
    """Runs the rule on rows of the images stage; gives the published rows by prompt text."""
    root = tmp_path / "run"

    def go(*rows, name="image-reward", max_failed_fraction=0.0, **changes):
        source = root / "images/art/00.jsonl"
        write_jsonl(source, rows)
        output = root / f"image_ranking/{name}/art/00.jsonl"
        wildcards = {"scorer": name, "topic": "art", "shard": "00"}
        common = {"max_failed_fraction": max_failed_fraction}
        job = rule_object(
            "rank_images",
            wildcards,
            [str(source)],
            [str(output)],
            settings=RankImagesJob.model_validate({"scorer": settings | changes}).model_dump(
                mode="json"
            ),
            common=common,
        )
        rank_images.main(job)
        return {row["prompt"]: row for row in read_shard(output, ImageRankingRow).values()}

    return go


@pytest.fixture
def rows(tmp_path):
    return [images_row(tmp_path / "run", text, number) for number, text in enumerate(PROMPTS)]


def record(tmp_path, name="image-reward"):
    return json.loads((tmp_path / f"run/work/rank_images/{name}/art/00.json").read_text())


def test_the_scores_of_all_candidates_are_kept_and_ranked(run, rows, tmp_path, model):
    published = run(*rows)
    scorer = ImageReward.load(ImageReward.Settings(kind="image-reward", model=str(model)), DEVICE)
    assert set(published) == set(PROMPTS)
    for row in rows:
        result = published[row["prompt"]]
        images = [
            Image.open(tmp_path / "run" / candidate["file"]) for candidate in row["candidates"]
        ]
        assert result["scores"] == scorer.score(row["prompt"], images)
        assert [result["scores"][index] for index in result["ranking"]] == sorted(
            result["scores"], reverse=True
        )
        assert (
            result["winner"]
            == result["ranking"][0]
            == result["scores"].index(max(result["scores"]))
        )
        assert result["blank"] == []
        assert result["prompt_truncated"] == scorer.truncates(row["prompt"])
    assert published[PROMPTS[2]]["prompt_truncated"]


def test_on_a_gpu_the_next_prompts_images_are_decoded_while_one_is_scored(
    rows, tmp_path, monkeypatch
):
    decoded = {row["prompt"]: threading.Event() for row in rows}
    prompt_of = {str(index): row["prompt"] for index, row in enumerate(rows)}
    late = []

    class Scorer:
        def score(self, prompt, images):
            for later in PROMPTS[PROMPTS.index(prompt) + 1 :][:1]:
                late.extend([] if decoded[later].wait(20) else [later])
            return [float(np.asarray(image).mean()) for image in images]

        def truncates(self, prompt):
            return False

    def read_and_tell(path):
        image = read_image(path)
        decoded[prompt_of[path.stem.split("-")[0]]].set()
        return image

    monkeypatch.setattr(rank_images, "read_image", read_and_tell)
    job: Any = SimpleNamespace(note=print)
    scorer: Any = Scorer()
    items = [Item(row["id"], row["id"], row) for row in rows]

    def rank(readers):
        candidates = rank_images.Candidates(tmp_path / "run", 50, readers)
        stream = rank_images.ranking(scorer, job, candidates)
        return [each for some in stream(handing_out(items)) for each in some]

    with ThreadPoolExecutor(2) as readers:
        ended = rank(readers)
    assert not late
    assert [item for item, _ in ended] == items
    assert rank(None) == ended


def test_what_is_prepared_is_one_item_ahead_and_a_failure_is_its_items_alone():
    told = []

    def prepare(number):
        told.append(f"prepare {number}")
        return number * 10

    def compute(number, prepared):
        told.append(f"compute {number}")
        if number == 1:
            raise ValueError("odd")
        return prepared

    [first, second, third] = with_the_next_prepared(prepare, compute)(handing_out([0, 1, 2]))
    assert (first, third) == ([(0, 0)], [(2, 20)])
    assert str(second[0][1]) == "odd"
    assert told == ["prepare 0", "prepare 1", "compute 0", "prepare 2", "compute 1", "compute 2"]

    def refuse(number, prepared):
        raise UserError("no model")

    with pytest.raises(UserError, match="no model"):
        list(with_the_next_prepared(prepare, refuse)(handing_out([0, 1])))


def test_the_first_maximum_wins_ties(run, tmp_path):
    for same in ((0, 1, 2, 3), (1, 3)):
        result = run(images_row(tmp_path / "run", PROMPTS[0], 5, same=same))[PROMPTS[0]]
        tied = [index for index in result["ranking"] if index in same]
        assert len({result["scores"][index] for index in same}) == 1
        assert tied == sorted(tied)
        assert result["winner"] == result["scores"].index(max(result["scores"]))


@pytest.mark.parametrize(
    ("scores", "blank", "ranking"),
    [
        ([0.1, 0.4, 0.4, 0.2], [], [1, 2, 3, 0]),
        ([0.0, -0.0, 0.0, 0.0], [], [0, 1, 2, 3]),
        ([-5.0, -4.0], [], [1, 0]),
        ([0.1, 0.9, 0.4, 0.9], [1], [3, 2, 0, 1]),
        ([0.1, 0.9, 0.4, 0.8], [1, 3], [2, 0, 1, 3]),
    ],
)
def test_ranking_is_best_first_then_first_first_and_blank_last(scores, blank, ranking):
    assert rank_images.rank(scores, blank) == ranking


def test_a_blank_image_keeps_its_score_and_cannot_win(run, tmp_path):
    plain = run(images_row(tmp_path / "run", PROMPTS[0], 3))[PROMPTS[0]]
    blank = plain["winner"]
    result = run(images_row(tmp_path / "run", PROMPTS[0], 3, blank=[blank]))[PROMPTS[0]]
    assert result["blank"] == [blank]
    assert math.isfinite(result["scores"][blank])
    assert result["ranking"][-1] == blank
    assert result["winner"] == plain["ranking"][1]


def test_a_prompt_of_blank_images_only_is_missing_with_its_reason(run, tmp_path, rows):
    published = run(rows[0], images_row(tmp_path / "run", PROMPTS[1], 4, blank=range(4)))
    assert published[PROMPTS[1]]["missing"] == {"rule": "rank_images", "reason": "all images blank"}
    assert "scores" in published[PROMPTS[0]]
    assert (record(tmp_path)["items"], record(tmp_path)["failed"]) == (1, 0)


def test_what_an_earlier_stage_misses_stays_missing(run, rows):
    gone = missing_row(rows[1], "generate_images", "out of memory")
    published = run(rows[0], gone)
    assert published[PROMPTS[1]] == gone


def test_a_score_that_is_not_a_number_is_a_failed_item_and_never_a_zero(
    run, rows, tmp_path, monkeypatch
):
    load = rank_images.load_scorer

    def load_broken(settings, device):
        scorer = load(settings, device)
        score = scorer.score

        def score_badly(prompt, images):
            scores = score(prompt, images)
            return [*scores[:3], math.nan] if prompt == PROMPTS[1] else scores

        monkeypatch.setattr(scorer, "score", score_badly)
        return scorer

    monkeypatch.setattr(rank_images, "load_scorer", load_broken)
    published = run(*rows, max_failed_fraction=0.5)
    assert published[PROMPTS[1]]["missing"] == {
        "rule": "rank_images",
        "reason": "the score of candidate 3 is not a number",
    }
    assert (record(tmp_path)["computed"], record(tmp_path)["failed"]) == (2, 1)
    with pytest.raises(UserError, match="is not a number"):
        run(*rows)
    monkeypatch.undo()
    assert "scores" in run(*rows)[PROMPTS[1]], "a failed item is tried again"
    assert (record(tmp_path)["computed"], record(tmp_path)["reused"]) == (1, 2)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-20]),
            "has other contents than when it was made",
        ),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_damaged_image_file_is_told_with_the_mend_before_the_scorer_is_loaded(
    run, rows, tmp_path, monkeypatch, damage, reason
):
    damage(tmp_path / "run" / rows[0]["candidates"][2]["file"])
    monkeypatch.setattr(
        "rank_images.load_scorer", lambda *arguments: pytest.fail("the scorer was loaded")
    )
    with pytest.raises(UserError, match=rf"{reason}.*images/art/00\.jsonl and run again"):
        run(*rows)


def test_a_prompt_is_scored_again_only_when_something_it_depends_on_has_changed(
    run, rows, tmp_path
):
    def computed(*rows, **changes):
        run(*rows, **changes)
        return record(tmp_path)["computed"]

    assert computed(*rows) == 3
    assert computed(*rows) == 0
    assert computed(*rows[::-1]) == 0
    assert computed(rows[0]) == 0
    assert computed(*rows[:2], images_row(tmp_path / "run", PROMPTS[2], 9)) == 1
    assert computed(*rows, dtype="bfloat16") == 3
    assert computed(*rows) == 0


def test_another_model_or_tokenizer_scores_everything_again(run, rows, tmp_path):
    run(*rows)
    write_image_reward(tmp_path / "other", seed=1)
    run(*rows, model=str(tmp_path / "other"))
    assert record(tmp_path)["computed"] == 3
    assert list(record(tmp_path)["models"]) == [str(tmp_path / "other")]
    run(*rows, tokenizer={"model": str(tmp_path / "other"), "revision": "main", "dtype": "float32"})
    assert record(tmp_path)["computed"] == 3


def test_a_warm_shard_loads_no_model(run, rows, tmp_path, monkeypatch):
    first = run(*rows)
    monkeypatch.setattr(
        rank_images, "load_scorer", lambda *arguments: pytest.fail("a model was loaded")
    )
    assert run(*rows) == first
    assert (
        record(tmp_path)["computed"],
        record(tmp_path)["reused"],
        record(tmp_path)["load_seconds"],
    ) == (0, 3, 0)


def test_a_score_does_not_depend_on_the_other_prompts_of_the_shard(run, rows, tmp_path):
    together = run(*rows)
    for path in (tmp_path / "run/work").rglob("*.journal.jsonl"):
        path.unlink()
    assert run(rows[1])[PROMPTS[1]] == together[PROMPTS[1]]


@pytest.mark.numeric
def test_out_of_memory_halves_the_batch_and_says_so(run, rows, tmp_path, monkeypatch):
    expected = run(*rows)
    for path in (tmp_path / "run/work").rglob("*.journal.jsonl"):
        path.unlink()
    load = rank_images.load_scorer

    def load_for_small_memory(settings, device):
        scorer = load(settings, device)
        score = scorer.score

        def score_two(prompt, images):
            if len(images) > 2:
                raise MemoryError
            return score(prompt, images)

        monkeypatch.setattr(scorer, "score", score_two)
        return scorer

    monkeypatch.setattr(rank_images, "load_scorer", load_for_small_memory)
    published = run(*rows)
    for text in PROMPTS:
        assert published[text]["scores"] == pytest.approx(
            expected[text]["scores"], abs=rounding(128)
        )
    assert "out of memory: batch of 4 halved to 2" in record(tmp_path)["notes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "clip"}, "not usable as the image scorer that is configured"),
        ({"kind": "blip"}, "not usable as the image scorer that is configured"),
        ({"backend": "image-reward"}, r"envs/image-reward\.txt"),
    ],
)
def test_a_model_that_is_no_scorer_ends_in_one_message(run, rows, model, changes, message):
    with pytest.raises(UserError, match=message) as error:
        run(*rows, **changes)
    assert str(model) in str(error.value)


@pytest.fixture
def scorers(settings, demo_models):
    """Three scorers' blocks, by their names."""
    local = {name: {"kind": name, "model": str(demo_models / name)} for name in ("clip", "blip")}
    return {"image-reward": settings, **local}


@pytest.fixture
def run_together(tmp_path, rule_object):
    """Runs rule rank_images_together on rows of the images stage; gives what it published, in
    bytes, by scorer.
    """
    root = tmp_path / "run"

    def go(rows, scorers, rule="rank_images"):
        source = root / "images/art/00.jsonl"
        write_jsonl(source, rows)
        place = {"topic": "art", "shard": "00"}
        outputs = [root / f"image_ranking/{name}/art/00.jsonl" for name in scorers]
        together = [
            {
                "wildcards": {"scorer": name, **place},
                "params": {
                    "settings": RankImagesJob.model_validate({"scorer": block}).model_dump(
                        mode="json"
                    )
                },
            }
            for name, block in scorers.items()
        ]
        files = [[str(source)], list(map(str, outputs))]
        rank_images.main(rule_object(rule, place, *files, together=together))
        return {name: path.read_bytes() for name, path in zip(scorers, outputs, strict=True)}

    return go


@pytest.fixture
def decoded(monkeypatch):
    """How often each picture is decoded, by its file's name."""
    counts = Counter[str]()
    prepare = PngImageFile.load_prepare

    def count(image):
        counts[Path(str(image.filename)).name] += 1
        prepare(image)

    monkeypatch.setattr(PngImageFile, "load_prepare", count)
    return counts


@pytest.fixture
def loaded(monkeypatch):
    """The kinds of the scorers that were loaded, in their order."""
    kinds: list[str] = []
    load = rank_images.load_scorer

    def load_and_tell(settings, device):
        kinds.append(settings.kind)
        return load(settings, device)

    monkeypatch.setattr(rank_images, "load_scorer", load_and_tell)
    return kinds


def test_several_scorers_in_one_job_publish_what_each_does_alone_and_decode_each_picture_once(
    run, run_together, rows, scorers, decoded, loaded, tmp_path
):
    pictures = {f"{number}-{index}.png" for number in range(3) for index in range(4)}
    together = run_together(rows, scorers)
    assert decoded == dict.fromkeys(pictures, 1)
    assert loaded == list(scorers)
    records = {name: record(tmp_path, name) for name in scorers}
    for path in (tmp_path / "run/work").rglob("*.journal.jsonl"):
        path.unlink()
    decoded.clear()
    for name, block in scorers.items():
        run(*rows, name=name, **{"dtype": "float32", **block})
        path = tmp_path / f"run/image_ranking/{name}/art/00.jsonl"
        assert together[name] == path.read_bytes()
        alone = record(tmp_path, name)
        same = ("rule", "job", "items", "computed", "failed", "models", "asked", "files")
        assert {key: records[name][key] for key in same} == {key: alone[key] for key in same}
    assert decoded == dict.fromkeys(pictures, 3)


def test_a_job_s_times_are_its_own_where_several_take_turns(run_together, rows, scorers, tmp_path):
    began = time.monotonic()
    run_together(rows, scorers)
    in_all = time.monotonic() - began
    records = [record(tmp_path, name) for name in scorers]
    assert sum(each["wall_seconds"] for each in records) <= in_all
    for each in records:
        assert 0 < each["load_seconds"] + each["compute_seconds"] <= each["wall_seconds"] + 0.01


def test_a_scorer_that_is_added_is_the_only_one_that_is_loaded(
    run, run_together, rows, scorers, decoded, loaded, tmp_path
):
    fourth = {**scorers["clip"], "dtype": "bfloat16"}
    run(*rows)
    first = run_together(rows, scorers)
    loaded.clear()
    decoded.clear()
    assert run_together(rows, {**scorers, "other": fourth}).items() >= first.items()
    assert loaded == ["clip"]
    assert set(decoded.values()) == {1}
    done = {name: record(tmp_path, name) for name in [*scorers, "other"]}
    counts = {name: (each["computed"], each["reused"]) for name, each in done.items()}
    assert counts == {**dict.fromkeys(scorers, (0, 3)), "other": (3, 0)}


def test_scorers_that_lack_different_prompts_decode_each_picture_once(
    run, run_together, rows, scorers, decoded
):
    run(*rows[1:2], name="clip", **{**scorers["clip"], "dtype": "float32"})
    decoded.clear()
    run_together(rows, scorers)
    assert set(decoded.values()) == {1}


def test_a_scorer_that_fails_keeps_no_other_from_its_scores(
    run_together, rows, scorers, tmp_path, monkeypatch
):
    load = rank_images.load_scorer

    def load_broken(settings, device):
        if settings.kind == "clip":
            raise UserError("clip: cannot be loaded")
        return load(settings, device)

    monkeypatch.setattr(rank_images, "load_scorer", load_broken)
    with pytest.raises(UserError, match=r"\Aclip: cannot be loaded\Z"):
        run_together(rows, scorers)
    assert not (tmp_path / "run/work/rank_images/clip/art/00.json").exists()
    assert record(tmp_path)["computed"] == record(tmp_path, "blip")["computed"] == 3
    monkeypatch.undo()
    run_together(rows, scorers)
    done = {name: record(tmp_path, name)["computed"] for name in scorers}
    assert done == {"image-reward": 0, "clip": 3, "blip": 0}


def test_what_each_scorer_has_finished_is_written_while_others_compute_and_kept_at_a_stop_signal(
    run_together, rows, scorers, tmp_path, monkeypatch
):
    load = rank_images.load_scorer
    scored = Counter[str]()
    journal = tmp_path / "run/work/rank_images/image-reward/art/00.journal.jsonl"
    written = []

    def load_to_be_stopped(settings, device):
        scorer = load(settings, device)
        score = scorer.score

        def score_and_stop(prompt, images):
            scored[settings.kind] += 1
            if settings.kind == "clip":
                written.append(journal.read_bytes().count(b'"status":"ok"'))
                os.kill(os.getpid(), signal.SIGTERM)
            return score(prompt, images)

        monkeypatch.setattr(scorer, "score", score_and_stop)
        return scorer

    monkeypatch.setattr(rank_images, "load_scorer", load_to_be_stopped)
    with pytest.raises(SystemExit) as stopped:
        run_together(rows, scorers)
    assert stopped.value.code == 128 + signal.SIGTERM
    # What was handed out is finished; who had not begun is not loaded.
    assert scored == {"image-reward": 2, "clip": 2}
    assert written == [1, 2], "a job that is killed meanwhile has lost what was finished"
    assert not list((tmp_path / "run/work").rglob("00.json"))
    monkeypatch.undo()
    run_together(rows, scorers)
    done = {name: record(tmp_path, name) for name in scorers}
    counts = {name: (each["computed"], each["reused"]) for name, each in done.items()}
    assert counts == {"image-reward": (1, 2), "clip": (1, 2), "blip": (3, 0)}


@pytest.fixture
def computed(run, rows, tmp_path, demo_models):
    """Runs the rule for ImageReward and for CLIP; gives how many items each computed."""

    def go():
        run(*rows)
        run(*rows, name="clip", kind="clip", model=str(demo_models / "clip"))
        return {name: record(tmp_path, name)["computed"] for name in ("image-reward", "clip")}

    return go


def test_a_raised_version_of_one_scorer_computes_its_items_anew_and_no_others(
    computed, monkeypatch
):
    assert computed() == {"image-reward": 3, "clip": 3}
    monkeypatch.setattr(CLIPScore, "VERSION", 2)
    assert computed() == {"image-reward": 0, "clip": 3}
    assert computed() == {"image-reward": 0, "clip": 0}
    monkeypatch.undo()
    assert computed() == {"image-reward": 0, "clip": 0}, "the old results are still there"


def test_a_raised_version_of_one_scorer_has_its_jobs_run_again_and_no_others(
    model, demo_models, monkeypatch
):
    folders = {"image-reward": model, "clip": demo_models / "clip"}
    scorers = {kind: {"kind": kind, "model": str(folder)} for kind, folder in folders.items()}
    plan = Plan(load_config({"image_ranking": {"scorers": scorers}}, []))

    def made_by():
        blocks = plan.config.image_ranking.scorers
        return {name: plan.made_by(block, IMAGE_SCORERS) for name, block in blocks.items()}

    before = made_by()
    monkeypatch.setattr(CLIPScore, "VERSION", 2)
    assert made_by()["image-reward"] == before["image-reward"]
    assert made_by()["clip"] == before["clip"] | {"version": 2}
    assert before["clip"]["version"] == 1


@pytest.fixture
def plan_of(tmp_path, scorers):
    """Plans ten prompts on art in three shards, with three scorers and what is changed of the block
    of image ranking.
    """
    prompts = tmp_path / "prompts/art.txt"
    prompts.parent.mkdir()
    prompts.write_text("".join(f"a cat of number {number}\n" for number in range(10)))

    def make(is_whole=True, **changes):
        own = {"prompts": str(prompts.parent), "results": str(tmp_path), "run": "run"}
        shards = {"topics": ["art"], "shards_per_topic": 3}
        ranking = {"scorers": scorers, **changes}
        return Plan(load_config({**own, **shards, "image_ranking": ranking}, []), is_whole=is_whole)

    return make


def test_a_shard_is_ranked_by_all_scorers_in_one_job_while_none_of_them_has_ranked_it(
    plan_of, scorers, tmp_path
):
    shards = [f"art/{number:02}" for number in range(3)]
    assert plan_of().ranked_together == shards
    assert plan_of(together=False).ranked_together == []
    assert plan_of(is_whole=False).ranked_together == []
    assert plan_of(scorers={"image-reward": scorers["image-reward"]}).ranked_together == []
    write_jsonl(tmp_path / "run/image_ranking/clip/art/01.jsonl", [])
    assert plan_of().ranked_together == ["art/00", "art/02"]
    # As a job leaves it in which another scorer failed.
    write_jsonl(tmp_path / "run/work/rank_images/blip/art/01.json", [])
    (tmp_path / "run/image_ranking/clip/art/01.jsonl").unlink()
    assert plan_of().ranked_together == ["art/00", "art/02"]
    there = re.compile(pattern_of_shards(plan_of().ranked_together))
    assert [bool(there.match(f"{shard}.jsonl")) for shard in shards] == [True, False, True]
    assert not there.match("party/00.jsonl")
    assert not re.match(pattern_of_shards([]), "art/00.jsonl")


def test_what_a_job_ranks_together_is_what_its_run_began_with(plan_of, tmp_path):
    plan = plan_of()
    start = plan.start({})
    write_jsonl(tmp_path / "run/image_ranking/clip/art/01.jsonl", [])
    assert Plan(plan.config, start).ranked_together == plan.ranked_together


def test_large_scorers_and_those_at_an_endpoint_or_in_another_environment_have_their_own_jobs(
    plan_of, scorers, settings
):
    endpoint = {"base_url": "http://localhost/v1", "model": "judge"}
    large = {"kind": "vqascore", "model": "owner/large"}
    others = {
        "rating": {"kind": "vlm-rating", "endpoint": endpoint},
        "package": {**settings, "backend": "image-reward"},
        **{name: large | {"question": f"{name}: {{prompt}}?"} for name in ("one", "two", "three")},
        "four": large,
    }
    plan = plan_of(scorers={**others, **scorers})
    assert list(plan.config.image_ranking.scored_together) == list(scorers)
    parts = [part["wildcards"] for part in plan.ranking_parts("art", "00")]
    assert parts == [{"scorer": name, "topic": "art", "shard": "00"} for name in scorers]


def test_version_one_adds_nothing_to_a_key(rows, rule_object, settings, monkeypatch):
    """So that the items of journals from before there were versions are reused."""
    parameters = RankImagesJob.model_validate({"scorer": settings})
    job = Job(
        rule_object("rank_images", {}, [], [], settings=parameters.model_dump(mode="json")),
        RankImagesJob,
        version=1,
    )

    def key_of_first() -> str:
        scorer = rank_images.scorer_in_keys(parameters.scorer, {"model": "folder-1"})
        return rank_images.item_of(rows[0], job, scorer).key

    key = key_of_first()
    assert key == job.key(
        prompt=PROMPTS[0],
        images=[candidate["sha256"] for candidate in rows[0]["candidates"]],
        blank=[],
        scorer={"kind": "image-reward", "dtype": "float32", "backend": "native"},
        model="folder-1",
    )
    monkeypatch.setattr(ImageReward, "VERSION", 2)
    assert key_of_first() != key
