"""A LLaVA-1.5 in the form of its authors' own code becomes the model that transformers loads."""

import json
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

import convert_model
from convert_model import NAMES, VISION_TOWER, llava_name
from lib.config.evaluation import ReleasedModel
from lib.errors import UserError


@pytest.fixture
def base(demo_models):
    return demo_models / "llava-1.5"


@pytest.fixture
def theirs(base):
    """Weights as LLaVA's own code names them: other values than the base model's, without the last
    two tokens, which transformers has added, and without a vision tower.
    """
    tensors = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        other = llava_name(name)
        if not other.startswith(VISION_TOWER):
            is_of_tokens = "embed_tokens" in other or "lm_head" in other
            tensors[other] = (tensor[:-2] if is_of_tokens else tensor).clone() + 0.25
    return tensors


@pytest.fixture
def convert(tmp_path, rule_object, base):
    """Has rule convert_model convert a model in a folder; gives its weights and its notes."""

    def go():
        output = tmp_path / "run/models/released/converted"
        models = {"model": str(tmp_path / "theirs"), "base_model": str(base)}
        settings = {
            name: {"model": model, "revision": "main", "dtype": "float32"}
            for name, model in models.items()
        }
        rule = rule_object(
            "convert_model",
            {"model": "released"},
            SimpleNamespace(),
            [str(output)],
            settings=settings,
        )
        convert_model.main(rule)
        record = json.loads((tmp_path / "run/work/convert_model/released.json").read_text())
        return output, record["notes"]

    return go


def write(folder, tensors, suffix):
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlavaLlamaForCausalLM"]}')
    names = sorted(tensors)
    halves = [names[::2], names[1::2]]
    for number, half in enumerate(halves, start=1):
        part = {name: tensors[name] for name in half}
        stem = f"{number:05d}-of-00002"
        if suffix == "bin":
            torch.save(part, folder / f"pytorch_model-{stem}.bin")
        else:
            save_file(part, folder / f"model-{stem}.safetensors")
    torch.save(SimpleNamespace(never="loaded"), folder / "training_args.bin")


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_the_other_model_s_weights_stand_in_the_base_model_s_files(
    suffix, tmp_path, base, theirs, convert
):
    write(tmp_path / "theirs", theirs, suffix)
    output, notes = convert()
    before = load_file(base / "model.safetensors")
    after = load_file(output / "model.safetensors")
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        other = llava_name(name)
        if other.startswith(VISION_TOWER):
            assert torch.equal(tensor, before[name])
        else:
            rows = len(theirs[other])
            assert torch.equal(tensor[:rows], theirs[other])
            assert torch.equal(tensor[rows:], before[name][rows:])
    assert "has no vision tower of its own" in notes[0]
    beside = {path.name for path in output.iterdir()}
    assert {"config.json", "tokenizer.json", "preprocessor_config.json"} <= beside


FAULTS = {
    "a weight is missing": (
        lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight"),
        r"lacks model\.layers\.0\.mlp\.up_proj\.weight: it is no whole LLaVA-1\.5",
    ),
    "a weight has another shape": (
        lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}),
        r"model\.norm\.weight has the shape \(3,\).*a model of another size",
    ),
    "there is a layer more": (
        lambda tensors: tensors.update({"model.layers.99.mlp.up_proj.weight": torch.zeros(3)}),
        r"no place for 1 of its weights, such as model\.layers\.99",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_is_none_of_this_kind_is_refused(fault, tmp_path, theirs, convert):
    spoil, told = FAULTS[fault]
    spoil(theirs)
    write(tmp_path / "theirs", theirs, "safetensors")
    with pytest.raises(UserError, match=told):
        convert()


def test_names_are_found_in_every_layout_of_transformers():
    assert {
        llava_name(f"{before}layers.0.mlp.up_proj.weight")
        for before in ("language_model.model.", "model.language_model.", "language_model.")
    } == {"model.layers.0.mlp.up_proj.weight"}
    assert llava_name("language_model.lm_head.weight") == llava_name("lm_head.weight")
    assert llava_name("model.vision_tower.a") == llava_name("vision_tower.a")
    assert len(NAMES) == 5


def test_a_model_in_that_form_is_refused_where_the_configuration_does_not_say_so(tmp_path):
    write(tmp_path / "theirs", {}, "bin")
    model = str(tmp_path / "theirs")
    with pytest.raises(ValidationError, match=r"Set `layout: llava`"):
        ReleasedModel(model=model)
    assert ReleasedModel(model=model, layout="llava").layout == "llava"
