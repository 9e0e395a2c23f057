"""Pipelines of diffusers as image generators: what each can do is used, and what it cannot is
refused before anything runs.
"""

import functools
import inspect
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from conftest import tiny_checkpoint
from hub_server import hub_server
from lib.config.run import load_config
from lib.data.controls import pick_of
from lib.errors import UserError
from lib.models.image_generators.pipelines import PIPELINES, pipeline_in
from lib.models.image_generators.registry import IMAGE_GENERATORS
from shown import showing
from tiny.pipelines import PIPELINES as TINY
from tiny.registry import PIPELINE_OF

PROMPT = "two red cats on a blue sofa"
ALL_AT_ONCE = {"stable-diffusion-1.5", "stable-diffusion-xl"}
every_pipeline = pytest.mark.parametrize(
    "drawn",
    [showing("pipelines", PIPELINE_OF[name], name) for name in TINY],
    indirect=True,
    scope="module",
)


def settings_for(folder: Path, **more: Any) -> Any:
    values = {"model": str(folder), "dtype": "float32", "height": 64, "width": 48, "steps": 2}
    return IMAGE_GENERATORS.validate({**values, "candidates": [{"guidance_scale": 5}], **more})


@pytest.fixture(scope="module")
def drawn(request: pytest.FixtureRequest, demo_models: Path) -> tuple[str, Any, list[int]]:
    """A tiny checkpoint's name, its loaded pipeline, and the sizes of the batches that it drew."""
    settings = settings_for(tiny_checkpoint(demo_models, request.param))
    generator: Any = IMAGE_GENERATORS.load_model(settings, "cpu")
    batches: list[int] = []
    whole = generator.pipeline.__class__.__call__

    class Counting(generator.pipeline.__class__):  # type: ignore[misc]
        @functools.wraps(whole)
        def __call__(self, *arguments: Any, **named: Any) -> Any:
            batches.append(named["num_images_per_prompt"])
            return whole(self, *arguments, **named)

    generator.pipeline.__class__ = Counting
    return request.param, generator, batches


def pixels(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


@pytest.mark.numeric
@every_pipeline
def test_every_pipeline_draws_candidates_that_are_functions_of_prompt_scale_and_seed(
    drawn: tuple[str, Any, list[int]],
) -> None:
    name, generator, batches = drawn
    batches.clear()
    images = generator.generate(PROMPT, [5.0, 9.0, 9.0], [1, 2, 3])
    assert batches == ([3] if name in ALL_AT_ONCE else [1, 2])
    assert [(image.mode, image.size) for image in images] == [("RGB", (48, 64))] * 3
    (alone,) = generator.generate(PROMPT, [9.0], [2])
    assert np.abs(pixels(alone) - pixels(images[1])).max() <= 2
    for prompt, scale, seed in (("snow", 9.0, 2), (PROMPT, 3.0, 2), (PROMPT, 9.0, 4)):
        (other,) = generator.generate(prompt, [scale], [seed])
        assert np.abs(pixels(other) - pixels(alone)).max() > 2


@every_pipeline
def test_a_prompt_that_an_encoder_of_a_pipeline_cuts_is_told(
    drawn: tuple[str, Any, list[int]],
) -> None:
    name, generator, _ = drawn
    assert generator.cut(PROMPT) == {}
    cut = generator.cut("one more cat and " * 200)
    clips = {"stable-diffusion-1.5": 1, "stable-diffusion-xl": 2, "flux": 1, "z-image": 0}[name]
    assert list(cut.values()).count(77) == clips
    assert len(cut) == clips + (name in ("flux", "z-image"))


@pytest.mark.parametrize("name", TINY)
def test_the_kind_may_be_left_out_where_model_index_json_says_it(
    name: str, demo_models: Path
) -> None:
    folder = tiny_checkpoint(demo_models, name)
    assert pipeline_in(folder) == PIPELINE_OF[name]
    assert settings_for(folder).kind == "diffusers"
    third = IMAGE_GENERATORS.validate({"model": str(demo_models / "stable-diffusion-3-medium")})
    assert third.kind == "stable-diffusion-3"


@pytest.mark.parametrize("name", PIPELINES)
def test_diffusers_has_every_pipeline_of_the_table_and_it_takes_what_the_table_says(
    name: str,
) -> None:
    takes = inspect.signature(getattr(diffusers, name).__call__).parameters
    needed = {"prompt", "guidance_scale", "num_images_per_prompt", "num_inference_steps"}
    assert takes.keys() >= {*needed, "height", "width", "generator"}
    for argument, can in (
        ("negative_prompt", PIPELINES[name].negative),
        ("max_sequence_length", PIPELINES[name].length),
    ):
        assert not can or argument in takes


def edited(folder: Path, to: Path, file: str, **values: Any) -> Path:
    """A copy of a checkpoint with other values in one of its JSON files."""
    shutil.copytree(folder, to)
    path = to / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return to


@pytest.mark.parametrize(
    ("name", "file", "values", "more", "message"),
    [
        (
            "flux",
            "transformer/config.json",
            {"guidance_embeds": False},
            {"candidates": [{"guidance_scale": 0}, {"guidance_scale": 3}]},
            "distilled without guidance.*List one candidate.*`samples`",
        ),
        (
            "z-image",
            "model_index.json",
            {"_class_name": "StableDiffusionInpaintPipeline"},
            {},
            "is a StableDiffusionInpaintPipeline, which is none of.*StableDiffusionXLPipeline",
        ),
        ("flux", "model_index.json", {}, {"negative_prompt": "fog"}, "takes no `negative_prompt`"),
        (
            "stable-diffusion-xl",
            "model_index.json",
            {},
            {"max_sequence_length": 64},
            "takes no `max_sequence_length`",
        ),
        (
            "stable-diffusion-xl",
            "model_index.json",
            {},
            {"candidates": [{"guidance_scale": 5}, {"guidance_scale": 5.0}]},
            "the same candidate stands twice.*`samples`",
        ),
    ],
)
def test_what_a_pipeline_cannot_do_is_refused_with_what_could(
    name: str, file: str, values: Any, more: Any, message: str, demo_models: Path, tmp_path: Path
) -> None:
    folder = edited(tiny_checkpoint(demo_models, name), tmp_path / "model", file, **values)
    with pytest.raises(ValueError, match=message):
        settings_for(folder, **more)


def test_another_pipeline_under_stable_diffusion_3_s_kind_is_told_how_to_be_configured(
    demo_models: Path,
) -> None:
    folder = tiny_checkpoint(demo_models, "stable-diffusion-xl")
    images = {"kind": "stable-diffusion-3", "model": str(folder)}
    with pytest.raises(UserError, match=r"StableDiffusionXLPipeline. Write `kind: diffusers`"):
        load_config({"images": images}, [])


def test_samples_are_drawn_of_each_candidate(demo_models: Path) -> None:
    folder = tiny_checkpoint(demo_models, "flux")
    candidates = [{"guidance_scale": 3.5}, {"guidance_scale": 2.0}]
    settings = settings_for(folder, candidates=candidates, samples=2)
    assert settings.drawn == [(3.5, 1), (3.5, 2), (2.0, 1), (2.0, 2)]
    assert settings.scales == [3.5, 2.0]


def test_a_pipeline_at_the_hub_is_asked_for_its_description_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    index = json.dumps({"_class_name": "StableDiffusionInpaintPipeline"}).encode()
    files = {"model_index.json": index, "unet/diffusion_pytorch_model.safetensors": b"no weights"}
    settings = settings_for(Path("a/painter"))
    assert settings.kind == "diffusers"
    with hub_server({"a/painter": files}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(UserError, match="is a StableDiffusionInpaintPipeline, which is none"):
            settings.check_before_run()
    assert hub.sent == ["a/painter/model_index.json"]


def test_a_pick_by_chance_tells_seeds_of_one_scale_apart() -> None:
    candidates: list[Any] = [{"guidance_scale": 0.0, "blank": False} for _ in range(4)]
    picks = Counter(pick_of(candidates, 0, "random", 0, f"art-{n}") for n in range(400))
    assert picks.keys() == {0, 1, 2, 3}
    assert min(picks.values()) > 60
