"""Images: a candidate depends on its prompt and the settings only, and says how it was made."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from generate_images import GuidanceScales, draw, load_pipeline, main, read_provenance
from lib.config.images import Images
from lib.data.prompts import Prompt, make_shards
from lib.data.shards import read_shard

PROMPTS = [
    "two blue cats on a red sofa",
    'a "quoted" {brace} $HOME `id` ../../x',
    "猫が三匹 and a dog 😀",
]
SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture(scope="session")
def settings(demo_models):
    images = Images(
        model=str(demo_models / "stable-diffusion-3-medium"),
        dtype="float32",
        height=64,
        width=64,
        steps=3,
        max_sequence_length=32,
    )
    return {**images.model_dump(mode="json"), "shards_per_topic": 1, "max_prompt_characters": 1000}


@pytest.fixture(scope="session")
def pipeline(settings):
    return load_pipeline(settings, "cpu")


@pytest.fixture
def run(tmp_path, rule_object, settings):
    """Runs the rule on a topic file with the given prompts; gives the published rows by prompt
    text.
    """

    def go(*texts, **changes):
        path = tmp_path / "art.txt"
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        output = tmp_path / "run/images/art/00.jsonl"
        digest = make_shards([Prompt("art", text) for text in texts], 1)[0].digest
        wildcards = {"topic": "art", "shard": "00"}
        inputs = SimpleNamespace(prompts=str(path))
        main(
            rule_object(
                "generate_images",
                wildcards,
                inputs,
                [str(output)],
                settings={**settings, **changes},
                digest=digest,
            )
        )
        return {row["prompt"]: row for row in read_shard(output).values()}

    return go


def record(tmp_path):
    return json.loads((tmp_path / "run/work/generate_images/art/00.json").read_text())


def hashes(row):
    return [candidate["sha256"] for candidate in row["candidates"]]


def test_every_prompt_gets_one_candidate_a_guidance_scale_and_all_differ(run):
    rows = run(*PROMPTS)
    assert set(rows) == set(PROMPTS)
    for row in rows.values():
        assert [candidate["guidance_scale"] for candidate in row["candidates"]] == [
            5.0,
            7.0,
            9.0,
            11.0,
        ]
        assert not any(candidate["blank"] for candidate in row["candidates"])
    assert len({sha for row in rows.values() for sha in hashes(row)}) == 12


def test_an_image_does_not_depend_on_the_other_prompts_of_its_shard(run, tmp_path):
    alone = run(PROMPTS[1])[PROMPTS[1]]
    for path in (tmp_path / "run/work").rglob("*.journal.jsonl"):
        path.unlink()
    assert run(*PROMPTS)[PROMPTS[1]] == alone


@pytest.mark.parametrize("image_format", ["png", "webp", "jpeg"])
def test_an_image_file_says_how_it_was_made(run, tmp_path, image_format):
    row = run(PROMPTS[2], format=image_format)[PROMPTS[2]]
    candidate = row["candidates"][1]
    provenance = read_provenance(tmp_path / "run" / candidate["file"])
    assert candidate["file"].endswith(f".{image_format}")
    assert provenance["prompt"] == PROMPTS[2]
    assert (provenance["id"], provenance["guidance_scale"], provenance["seed"]) == (
        row["id"],
        7.0,
        candidate["seed"],
    )
    assert provenance["revision"].startswith("folder-")
    assert provenance["steps"] == 3


def test_a_row_of_the_batch_has_exactly_the_image_of_its_own_guidance_scale(pipeline, settings):
    import torch

    prompt = Prompt("art", PROMPTS[0])
    mixed = draw(pipeline, prompt, [5.0, 7.0], [1, 2], settings)
    for place, scale in enumerate((5.0, 7.0)):
        plain = pipeline(
            prompt=prompt.text,
            negative_prompt="",
            num_images_per_prompt=2,
            guidance_scale=scale,
            num_inference_steps=3,
            height=64,
            width=64,
            max_sequence_length=32,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in (1, 2)],
        ).images
        assert mixed[place].tobytes() == plain[place].tobytes()
        assert mixed[1 - place].tobytes() != plain[1 - place].tobytes()


def test_several_guidance_scales_are_still_a_number_over_one():
    assert GuidanceScales([5, 7]) > 1
    assert float(GuidanceScales([7, 5])) == 5


def test_another_guidance_scale_makes_new_images_and_going_back_computes_nothing(run, tmp_path):
    first = run(PROMPTS[0])[PROMPTS[0]]
    second = run(PROMPTS[0], guidance_scales=[5.0, 8.0])[PROMPTS[0]]
    assert len(second["candidates"]) == 2
    assert run(PROMPTS[0])[PROMPTS[0]] == first
    assert (record(tmp_path)["computed"], record(tmp_path)["reused"]) == (0, 1)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-100])]
)
def test_a_missing_or_damaged_image_file_is_made_again_and_noted(run, tmp_path, damage):
    first = run(*PROMPTS)
    file = tmp_path / "run" / first[PROMPTS[0]]["candidates"][2]["file"]
    content = file.read_bytes()
    damage(file)
    assert run(*PROMPTS) == first
    assert file.read_bytes() == content
    assert (record(tmp_path)["computed"], record(tmp_path)["reused"]) == (1, 2)
    assert "missing or damaged" in record(tmp_path)["notes"][0]


def test_a_warm_shard_does_not_even_import_torch(run, tmp_path, settings):
    run(PROMPTS[0])
    digest = make_shards([Prompt("art", PROMPTS[0])], 1)[0].digest
    common = {"root": str(tmp_path / "run"), "device": "cpu", "seed": 0, "max_failed_fraction": 0.0}
    code = f"""
import sys
from types import SimpleNamespace
import generate_images
class P(dict):
    __getattr__ = dict.__getitem__
class W(list):
    topic, shard = "art", "00"
inputs = SimpleNamespace(prompts={str(tmp_path / "art.txt")!r})
params = P(common={common!r}, settings={settings!r}, digest={digest!r})
names = W(["art", "00"])
output = [{str(tmp_path / "o.jsonl")!r}]
generate_images.main(SimpleNamespace(rule="generate_images", wildcards=names, input=inputs, output=output, params=params))
print(sorted(name for name in ("torch", "diffusers", "transformers", "PIL") if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "o.jsonl").read_bytes() == (
        tmp_path / "run/images/art/00.jsonl"
    ).read_bytes()
