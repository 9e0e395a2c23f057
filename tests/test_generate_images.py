"""Images: a candidate depends on its prompt and the settings only, and says how it was made."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from conftest import DEVICE
from generate_images import main
from lib.blocks import deciding
from lib.config.images import GenerateImagesJob
from lib.data.image_files import read_provenance
from lib.data.prompts import Prompt, make_shards
from lib.data.rows import ImagesRow
from lib.data.shards import present, read_shard
from lib.files import digest_of_file, write_jsonl
from lib.jobs.job import REUSE_FROM
from lib.models.image_generators import pipelines
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.models.image_generators.settings import DrawnImageSettings
from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3

PROMPTS = [
    "two blue cats on a red sofa",
    'a "quoted" {brace} $HOME `id` ../../x',
    "猫が三匹 and a dog 😀",
]
SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture(scope="session")
def settings(demo_models):
    return StableDiffusion3.Settings(
        model=str(demo_models / "stable-diffusion-3-medium"),
        dtype="float32",
        height=64,
        width=64,
        steps=3,
        max_sequence_length=32,
    )


def params(settings, prompts, **changes):
    """What the rule hands over, with other settings of the generator. `prompts`: the file."""
    if "kind" not in changes:
        changes = settings.model_dump(mode="json") | changes
    job = {"generator": changes, "prompts": str(prompts)}
    return GenerateImagesJob.model_validate(job).model_dump(mode="json")


@pytest.fixture
def run(tmp_path, rule_object, settings):
    """Runs the rule on a shard of the given prompts; gives the published rows by prompt text."""

    def go(*texts, wildcards=None, root=None, **changes):
        [shard] = make_shards([Prompt("art", text) for text in texts], 1)
        path = tmp_path / "prompts.jsonl"
        write_jsonl(path, [prompt.row() for prompt in shard.prompts])
        root = root or tmp_path / "run"
        wildcards = wildcards or {"topic": "art", "shard": "00"}
        output = root / "images/art" / f"{wildcards['shard']}.jsonl"
        told = params(settings, path, **changes)
        common = {"root": str(root)}
        main(
            rule_object(
                "generate_images", wildcards, [], [str(output)], settings=told, common=common
            )
        )
        return {row["prompt"]: row for row in present(read_shard(output, ImagesRow).values())}

    return go


def record(tmp_path, run="run", shard="00"):
    path = tmp_path / run / "work/generate_images/art" / f"{shard}.json"
    return json.loads(path.read_text())


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


def test_a_prompt_that_a_text_encoder_cuts_is_noted(run, tmp_path):
    long = " ".join(f"a cat {number}" for number in range(60))
    run(PROMPTS[0], long, guidance_scales=[5.0])
    told = [note for note in record(tmp_path)["notes"] if "tokens only" in note]
    name = Prompt("art", long).id
    assert [re.sub(r"\d+ tokens", "N tokens", note) for note in told] == [
        f"{encoder} read the first N tokens only of 1 of the prompts ({name})"
        for encoder in ("text_encoder", "text_encoder_2", "text_encoder_3")
    ]


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


def draw_plainly(pipeline, prompt, scale, seeds, settings):
    """One scale for a whole batch, by diffusers' own pipeline and its own argument."""
    import torch
    from diffusers import StableDiffusion3Pipeline

    return StableDiffusion3Pipeline(**pipeline.components)(
        prompt=prompt,
        negative_prompt=settings.negative_prompt,
        num_images_per_prompt=len(seeds),
        guidance_scale=scale,
        num_inference_steps=settings.steps,
        height=settings.height,
        width=settings.width,
        max_sequence_length=settings.max_sequence_length,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    ).to_tuple()[0]


WORLD_MODEL = SCRIPTS.parent / "demo/world/models/stable-diffusion-3-medium"


@pytest.mark.parametrize("model", ["random", "world"])
def test_a_row_of_the_batch_has_exactly_the_image_of_its_own_guidance_scale(settings, model):
    if model == "world":
        settings = settings.model_copy(
            update={"model": str(WORLD_MODEL), "height": 48, "width": 48}
        )
    generator = StableDiffusion3.load(settings, DEVICE)
    seeds = [1, 2, 3]
    scales = [5.0, 9.0, 1.5]  # none is the default of diffusers
    mixed = generator.generate(PROMPTS[0], scales, seeds)
    for place, scale in enumerate(scales):
        plain = draw_plainly(generator.pipeline, PROMPTS[0], scale, seeds, settings)
        same = [
            ours.tobytes() == theirs.tobytes() for ours, theirs in zip(mixed, plain, strict=True)
        ]
        assert same == [other == place for other in range(3)]


def test_a_scale_of_one_is_no_guidance(settings):
    generator = StableDiffusion3.load(settings, DEVICE)
    (image,) = generator.generate(PROMPTS[0], [1.0], [1])
    (plain,) = draw_plainly(generator.pipeline, PROMPTS[0], 1.0, [1], settings)
    assert image.tobytes() == plain.tobytes()


def test_diffusers_still_asks_the_two_properties_that_are_overridden(settings, monkeypatch):
    from diffusers import StableDiffusion3Pipeline

    generator = StableDiffusion3.load(settings, DEVICE)
    for name in ("guidance_scale", "do_classifier_free_guidance"):
        assert isinstance(vars(StableDiffusion3Pipeline)[name], property)
    asked = []
    pipeline = type(generator.pipeline)
    for name in ("guidance_scale", "do_classifier_free_guidance"):
        get = vars(pipeline)[name].fget

        def watched(self, name=name, get=get):
            asked.append(name)
            return get(self)

        monkeypatch.setattr(pipeline, name, property(watched))
    generator.generate(PROMPTS[0], [5.0, 7.0], [1, 2])
    assert asked.count("guidance_scale") == settings.steps
    assert asked.count("do_classifier_free_guidance") >= settings.steps


def test_memory_that_runs_out_at_decoding_draws_nothing_again(settings, monkeypatch):
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    plain = StableDiffusion3.load(settings, DEVICE).generate(PROMPTS[0], [5.0, 9.0], [1, 2])
    decode, forward = AutoencoderKL.decode, SD3Transformer2DModel.forward
    decoded: list[int] = []
    steps: list[int] = []

    def decode_with_too_little(self, *anything, **options):
        decoded.append(len(decoded))
        if len(decoded) == 1:
            raise MemoryError
        return decode(self, *anything, **options)

    def counted(self, *anything, **options):
        steps.append(len(steps))
        return forward(self, *anything, **options)

    monkeypatch.setattr(AutoencoderKL, "decode", decode_with_too_little)
    monkeypatch.setattr(SD3Transformer2DModel, "forward", counted)
    generator = StableDiffusion3.load(settings, DEVICE)
    again = generator.generate(PROMPTS[0], [5.0, 9.0], [1, 2])
    assert [image.tobytes() for image in again] == [image.tobytes() for image in plain]
    assert (len(decoded), len(steps)) == (2, settings.steps)
    assert generator.pipeline.transformer.device.type == DEVICE


@pytest.mark.skipif(DEVICE != "cuda", reason="of a GPU's memory")
def test_networks_that_are_on_a_gpu_in_turn_draw_the_same_bytes(settings, monkeypatch):
    plain = StableDiffusion3.load(settings, DEVICE).generate(PROMPTS[0], [5.0, 9.0], [1, 2])
    monkeypatch.setattr(pipelines, "fits_into_memory", lambda pipeline: False)
    generator = StableDiffusion3.load(settings, DEVICE)
    for _ in range(2):
        again = generator.generate(PROMPTS[0], [5.0, 9.0], [1, 2])
        assert [image.tobytes() for image in again] == [image.tobytes() for image in plain]
        assert generator.pipeline.text_encoder_3.device.type == "cpu"


@pytest.mark.skipif(DEVICE != "cuda", reason="a CPU compiles for a minute, and is not to")
def test_compiled_blocks_draw_the_same_bytes_each_time(settings):
    compiled = settings.model_copy(update={"compiled": True})
    drawn = [
        [
            image.tobytes()
            for image in StableDiffusion3.load(compiled, DEVICE).generate(
                PROMPTS[0], settings.guidance_scales, [1, 2, 3, 4]
            )
        ]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]


def test_compiled_or_not_is_in_a_key_where_it_is(settings):
    compiled = settings.model_copy(update={"compiled": True})
    assert "compiled" not in deciding(settings)
    assert deciding(compiled) == {**deciding(settings), "compiled": True}


def test_a_raised_version_of_the_generator_makes_its_images_again(run, tmp_path, monkeypatch):
    first = run(PROMPTS[0])[PROMPTS[0]]
    monkeypatch.setattr(StableDiffusion3, "VERSION", 2)
    second = run(PROMPTS[0])[PROMPTS[0]]
    assert (record(tmp_path)["computed"], record(tmp_path)["reused"]) == (1, 0)
    files = [candidate["file"] for row in (first, second) for candidate in row["candidates"]]
    assert len(set(files)) == 8, "images of the old version stay where they are"
    monkeypatch.undo()
    assert run(PROMPTS[0])[PROMPTS[0]] == first
    assert (record(tmp_path)["computed"], record(tmp_path)["reused"]) == (0, 1)


def test_another_kind_of_generator_is_found_by_its_name(run, tmp_path, monkeypatch):
    monkeypatch.setitem(IMAGE_GENERATORS.kinds, "plain", "test_generate_images:PlainColours")
    settings = PlainColours.Settings(kind="plain", model=str(WORLD_MODEL))
    row = run(PROMPTS[0], **settings.model_dump(mode="json"))[PROMPTS[0]]
    assert [candidate["blank"] for candidate in row["candidates"]] == [True] * 4
    file = tmp_path / "run" / row["candidates"][0]["file"]
    assert read_provenance(file)["kind"] == "plain", "a kind that is not the first is in the key"


class PlainColours:
    """Draws an image of one colour."""

    VERSION = 1

    class Settings(DrawnImageSettings):
        kind: Literal["plain"]

        @property
        def drawn(self):
            return [(scale, 1) for scale in (1.0, 2.0, 3.0, 4.0)]

    @classmethod
    def load(cls, settings, device):
        return cls()

    def cut(self, prompt):
        return {}

    def generate(self, prompt, scales, seeds):
        return [Image.new("RGB", (8, 8), (int(scale), 0, 0)) for scale in scales]


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


def test_with_other_shards_images_are_found_in_the_shards_that_made_them(run, tmp_path):
    together = run(*PROMPTS)
    apart = run(*PROMPTS[:2], wildcards={"topic": "art", "shard": "01"})
    there = record(tmp_path, shard="01")
    assert (there["computed"], there["reused"]) == (0, 2)
    for text, row in apart.items():
        assert hashes(row) == hashes(together[text])
        for candidate in row["candidates"]:
            assert candidate["file"].startswith("images/art/01/")
            path = tmp_path / "run" / candidate["file"]
            assert digest_of_file(path) == candidate["sha256"]


def test_images_of_another_run_are_taken_over_and_stay_when_that_run_is_deleted(
    run, tmp_path, monkeypatch
):
    first = run(*PROMPTS)
    other = tmp_path / "other"
    monkeypatch.setenv(REUSE_FROM, str(tmp_path / "run"))
    assert run(*PROMPTS, root=other) == first
    there = record(tmp_path, "other")
    assert (there["computed"], there["reused"]) == (0, 3)
    assert there["taken_over"] == {(tmp_path / "run").as_posix(): 3}
    shutil.rmtree(tmp_path / "run")
    monkeypatch.delenv(REUSE_FROM)
    assert run(*PROMPTS, root=other) == first
    assert (record(tmp_path, "other")["computed"], record(tmp_path, "other")["reused"]) == (0, 3)


def test_what_is_damaged_in_another_run_is_computed(run, tmp_path, monkeypatch):
    first = run(*PROMPTS)
    (tmp_path / "run" / first[PROMPTS[0]]["candidates"][1]["file"]).write_bytes(b"\x89PNG")
    monkeypatch.setenv(REUSE_FROM, str(tmp_path / "run"))
    assert run(*PROMPTS, root=tmp_path / "other") == first
    there = record(tmp_path, "other")
    assert (there["computed"], there["reused"]) == (1, 2)


def test_a_warm_shard_does_not_even_import_torch(run, tmp_path, settings):
    run(PROMPTS[0])
    root = str(tmp_path / "run")
    common = {"root": root, "device": DEVICE, "seed": 0, "max_failed_fraction": 0.0}
    code = f"""
import sys
from types import SimpleNamespace
import generate_images
class P(dict):
    __getattr__ = dict.__getitem__
params = P(common={common!r}, settings={params(settings, tmp_path / "prompts.jsonl")!r})
names = ["art", "00"]
output = [{str(tmp_path / "o.jsonl")!r}]
generate_images.main(
    SimpleNamespace(
        rule="generate_images", wildcards=names, input=[], output=output, params=params
    )
)
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


def test_a_folder_of_images_that_is_a_link_to_another_file_system_works(run, tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        assert os.stat(scratch).st_dev != os.stat(tmp_path).st_dev
        (tmp_path / "run").mkdir()
        (tmp_path / "run/images").symlink_to(scratch)
        row = run(PROMPTS[0])[PROMPTS[0]]
        for candidate in row["candidates"]:
            assert digest_of_file(tmp_path / "run" / candidate["file"]) == candidate["sha256"]
        names = {path.name for path in Path(scratch).rglob("*.png")}
        assert names == {Path(candidate["file"]).name for candidate in row["candidates"]}
