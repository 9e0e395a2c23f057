"""A model's folder that cannot be loaded is told before the run, with what it lacks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import REPOSITORY
from lib.blocks import Model
from lib.config.evaluation import ReleasedModel
from lib.config.run import load_config
from lib.config.yaml_files import path_of, read_yaml
from lib.errors import UserError
from lib.head.preflight import Needs, blocks_with_models, check_folder
from lib.models.content_checkers.image_classifier import ImageClassifier
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.weights import holds_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
Change = Callable[[Path], object]


def gone(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def holding(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, size: int) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:size])

    return change


def renamed(name: str, other: str) -> Change:
    return lambda folder: (folder / name).rename(folder / other)


def sharded(*there: str) -> Change:
    """The weights in two files, of which these are there."""

    def change(folder: Path) -> None:
        whole = folder / "model.safetensors"
        for name in there:
            shutil.copy(whole, folder / name)
        whole.unlink()
        names = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    return change


def link_to_nothing(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("../blobs/gone")

    return change


@pytest.fixture
def folder_of(demo_models: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(model: str, change: Change) -> Path:
        folder = Path(shutil.copytree(demo_models / model, tmp_path / model))
        change(folder)
        return folder

    return make


LACKING: dict[str, tuple[str, Change, str]] = {
    "no weights": ("llava-1.5", gone("model.safetensors"), r"no weights \(model\.safetensors\)"),
    "weights in a pickle alone": (
        "llava-1.5",
        renamed("model.safetensors", "pytorch_model.bin"),
        r"it has pytorch_model\.bin alone, and only safetensors are read",
    ),
    "weights of another name": (
        "armorm",
        renamed("model.safetensors", "consolidated.safetensors"),
        r"it has consolidated\.safetensors, but neither model\.safetensors nor its index",
    ),
    "a pointer in place of the weights": (
        "llava-1.5",
        holding("model.safetensors", POINTER),
        r"its model\.safetensors is a pointer of Git LFS .*`git lfs pull`",
    ),
    "a pointer in place of the tokenizer": (
        "llava-1.5",
        holding("tokenizer.json", POINTER),
        r"its tokenizer\.json is a pointer of Git LFS",
    ),
    "weights that break off": (
        "llava-1.5",
        cut("model.safetensors", 100_000),
        r"its model\.safetensors breaks off after 100,000 of [\d,]+ bytes",
    ),
    "weights that break off in their head": (
        "llava-1.5",
        cut("model.safetensors", 100),
        r"its model\.safetensors is no whole file of safetensors",
    ),
    "an empty file of weights": (
        "llava-1.5",
        cut("model.safetensors", 0),
        r"its model\.safetensors is empty",
    ),
    "a part of the weights missing": (
        "llava-1.5",
        sharded("model-1-of-2.safetensors"),
        r"it has no model-2-of-2\.safetensors",
    ),
    "a link to nothing": (
        "llava-1.5",
        link_to_nothing("model.safetensors"),
        r"its model\.safetensors is a link to nothing",
    ),
    "no tokenizer": ("instruct-llm", gone("tokenizer.json"), r"no tokenizer \(tokenizer\.json"),
    "a tokenizer that breaks off": (
        "instruct-llm",
        cut("tokenizer.json", 50),
        r"its tokenizer\.json breaks off",
    ),
    "no configuration": ("instruct-llm", gone("config.json"), r"no config\.json"),
    "no processor of images": (
        "llava-1.5",
        gone("preprocessor_config.json", "processor_config.json"),
        r"no processor of images \(preprocessor_config\.json",
    ),
}


@pytest.mark.parametrize("name", LACKING)
def test_a_folder_that_cannot_be_loaded_is_told_with_what_it_lacks(folder_of, name):
    model, change, message = LACKING[name]
    folder = folder_of(model, lambda _: None)
    settings = Model(model=str(folder))
    assert settings.problem_with_files(folder) is None
    change(folder)
    with pytest.raises(UserError, match=message) as raised:
        check_folder(settings, holds_weights)
    assert f"the folder '{folder}'" in str(raised.value)


def test_weights_in_several_files_that_are_all_there_are_whole(folder_of):
    both = ("model-1-of-2.safetensors", "model-2-of-2.safetensors")
    folder = folder_of("llava-1.5", sharded(*both))
    assert Model(model=str(folder)).problem_with_files(folder) is None


OF_PIPELINES: dict[str, tuple[Change, str]] = {
    "a part without weights": (
        gone("vae/diffusion_pytorch_model.safetensors"),
        r"no weights \(vae/\*\.safetensors\)",
    ),
    "a part in a pickle": (
        renamed("text_encoder/model.safetensors", "text_encoder/pytorch_model.bin"),
        r"text_encoder/pytorch_model\.bin alone",
    ),
    "no tokenizer": (gone("tokenizer_2/tokenizer.json"), r"tokenizer_2/tokenizer\.json"),
    "no scheduler": (gone("scheduler/scheduler_config.json"), r"no scheduler/scheduler_config"),
    "no pipeline": (gone("model_index.json"), r"no model_index\.json"),
    "no T5 encoder": (gone("text_encoder_3/config.json"), r"no text_encoder_3/config\.json"),
}


@pytest.mark.parametrize("name", OF_PIPELINES)
def test_a_pipeline_that_lacks_a_part_is_told_with_the_part(folder_of, name):
    change, message = OF_PIPELINES[name]
    folder = folder_of("stable-diffusion-3-medium", lambda _: None)
    settings = IMAGE_GENERATORS.validate({"model": str(folder), "kind": "stable-diffusion-3"})
    assert settings.problem_with_files(folder) is None
    change(folder)
    with pytest.raises(UserError, match=message):
        check_folder(settings, holds_weights)


def test_a_part_that_is_not_loaded_may_be_missing(folder_of):
    folder = folder_of(
        "stable-diffusion-3-medium", lambda folder: shutil.rmtree(folder / "text_encoder_3")
    )
    values = {"model": str(folder), "kind": "stable-diffusion-3", "max_sequence_length": 0}
    assert IMAGE_GENERATORS.validate(values).problem_with_files(folder) is None


@pytest.mark.parametrize("kind", ["clip", "blip"])
def test_scorers_that_read_pickles_may_have_them(folder_of, kind):
    folder = folder_of(kind, renamed("model.safetensors", "pytorch_model.bin"))
    settings = IMAGE_SCORERS.validate({"kind": kind, "model": str(folder)})
    assert settings.problem_with_files(folder) is None
    holding("pytorch_model.bin", POINTER)(folder)
    assert "pytorch_model.bin is a pointer" in settings.problem_with_files(folder)


@pytest.mark.parametrize("name", ["ImageReward.pt", "med_config.json", "tokenizer.json"])
def test_image_reward_needs_the_files_of_its_own_layout(folder_of, name):
    folder = folder_of("image-reward", lambda _: None)
    settings = IMAGE_SCORERS.validate({"kind": "image-reward", "model": str(folder)})
    assert settings.problem_with_files(folder) is None
    gone(name)(folder)
    assert name in settings.problem_with_files(folder)


def test_a_classifier_of_images_needs_no_tokenizer(folder_of):
    def classify(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = ["ViTForImageClassification"]
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").unlink()

    folder = folder_of("clip", classify)
    values = {"kind": "image-classifier", "model": str(folder), "labels": ["x"]}
    settings = ImageClassifier.Settings.model_validate(values)
    assert settings.problem_with_files(folder) is None
    gone("preprocessor_config.json")(folder)
    assert "processor of images" in str(settings.problem_with_files(folder))


def test_a_model_in_the_form_of_llava_s_own_code_is_looked_at_when_it_is_converted(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["LlavaLlamaForCausalLM"]}')
    model = ReleasedModel(model=str(tmp_path), layout="llava")
    assert model.problem_with_files(tmp_path) is None


def test_every_demo_model_is_whole_for_its_role(demo_models, demo_benchmarks, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    config = load_config(read_yaml(Path("demo/random.yaml")), [])
    needs = Needs()
    for key, block in blocks_with_models(config).items():
        if block:
            needs.add_models(config, key)
    assert len(needs.models) > 8
    for model, is_whole in needs.models.values():
        check_folder(model, is_whole)


def test_a_key_is_found_whose_names_hold_dots():
    values = {"scorers": {"v1.5": {"model": "x"}, "v1": {"5": {}}}}
    assert path_of("scorers.v1.5.model", values) == ["scorers", "v1.5", "model"]
    assert path_of("images.candidates", {}) == ["images", "candidates"]
