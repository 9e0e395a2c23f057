"""A base model of any family: asked alike wherever it is asked, trained on its language model
alone, merged, and answering.
"""

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import build_pairs
import merge_adapter
from conftest import DEVICE
from lib import weights
from lib.blocks import Model, deciding
from lib.chat_template import asked_as, own_template, seen_by_model, with_own_mark
from lib.config.evaluation import SYSTEM_PROMPT
from lib.config.pairs import BuildPairsJob
from lib.errors import UserError
from lib.files import read_jsonl, write_jsonl
from lib.loading import check_whole
from lib.models.response_generators.chat import chat_prompt
from lib.models.response_generators.requests import Request, Sampling
from lib.models.response_generators.transformers import TransformersGenerator
from lib.patches import lmms_eval as lmms_eval_patches
from lib.training.checkpoints import keep_results, state_at
from lib.training.dpo import ALL_BUT_LANGUAGE_MODEL, DPO, lora_targets
from lib.training.image_tokens import ImageTokens, load_processor
from lib.training.preference_data import format_for
from lib.training.settings import TrainingSettings
from lib.training.whole_modules import PROJECTORS, language_model_of
from merge_adapter import LAYER
from shown import showing
from test_train_dpo import KEY_OF_B7F97EC, PAIRS, key_of, training_job, write_pairs
from tiny.checkpoints import build_checkpoint, hold_lock
from tiny.registry import BASE_MODELS, FAMILIES

every_family = [showing("base_models", name) for name in {**FAMILIES, **BASE_MODELS}]
QUESTION = "How many lamps stand near the table?"
FORM = "USER: <image>\n{instruction} ASSISTANT:"


@pytest.fixture(scope="module")
def checkpoint(demo_models: Path) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint, built where it is not there yet."""

    def built(name: str) -> Path:
        if name in BASE_MODELS:
            with hold_lock(demo_models / ".lock"):
                build_checkpoint(name, BASE_MODELS[name], demo_models)
        return demo_models / name

    return built


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("dataset"), PAIRS)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("picture") / "wide.png"
    Image.linear_gradient("L").convert("RGB").resize((120, 60)).save(file)
    return file


def ids_in_training(folder: Path, picture: Path, system: str) -> list[int]:
    """Of a prompt, as TRL's collator makes them."""
    processor = load_processor(folder)
    template = with_own_mark(asked_as(Model(model=str(folder)), None, system), folder)
    prompt = format_for(processor, template).prompt(QUESTION)
    with Image.open(picture) as image:
        inputs = processor(images=[[image]], text=[prompt], add_special_tokens=False)
    return list(inputs["input_ids"][0])


def ids_of_our_rules(folder: Path, picture: Path, system: str) -> list[int]:
    """As the policy models' generator, and so answer_questions, asks."""
    processor = load_processor(folder)
    with Image.open(picture) as image:
        inputs = processor(images=[[image]], text=[chat_prompt(processor, QUESTION, True, system)])
    return list(inputs["input_ids"][0])


def ids_of_lmms_eval(
    folder: Path, picture: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """As lmms-eval's class asks, under our patches."""
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.chat.llava_hf import LlavaHf
    from lmms_eval.models.simple import llava_hf

    monkeypatch.setattr(llava_hf, "model_map", llava_hf.model_map)
    monkeypatch.setattr(LlavaHf, "__init__", LlavaHf.__init__)
    lmms_eval_patches.take_any_model()
    lmms_eval_patches.change_prompts(partial(seen_by_model, system=system))
    model = LlavaHf(pretrained=str(folder), dtype="float32", device_map="cpu", device="cpu")
    with Image.open(picture) as image:
        image.load()

    def messages(_: Any) -> list[dict[str, Any]]:
        parts = [{"type": "image", "url": image}, {"type": "text", "text": QUESTION}]
        return [{"role": "user", "content": parts}]

    seen: list[int] = []
    monkeypatch.setattr(
        model.model, "generate", lambda **inputs: seen.extend(inputs["input_ids"][0].tolist())
    )
    model.task_dict = {"task": {"test": [{}]}}
    asked = Instance(
        request_type="generate_until",
        arguments=(QUESTION, messages, {}, 0, "task", "test"),
        idx=0,
        metadata={"task": "task", "doc_id": 0, "repeats": 1},
    )
    model.generate_until([asked])
    return seen


@pytest.mark.parametrize("name", [*every_family, "llava-v1.6-vicuna-7b", "llama3-llava-next"])
def test_training_and_every_evaluation_ask_with_the_same_token_ids(
    checkpoint: Callable[[str], Path], picture: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = checkpoint(name)
    in_training = ids_in_training(folder, picture, SYSTEM_PROMPT)
    assert in_training == ids_of_our_rules(folder, picture, SYSTEM_PROMPT)
    assert in_training == ids_of_lmms_eval(folder, picture, SYSTEM_PROMPT, monkeypatch)
    tokenizer = load_processor(folder).tokenizer
    asks_as_vicuna = own_template(folder).startswith("USER:")
    assert (SYSTEM_PROMPT in tokenizer.decode(in_training)) == asks_as_vicuna
    assert in_training.count(tokenizer.bos_token_id) == int(tokenizer.bos_token is not None)


def test_a_template_that_writes_the_beginning_too_gives_one_everywhere(
    checkpoint: Callable[[str], Path],
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "llama3"
    shutil.copytree(checkpoint("llama3-llava-next"), folder)
    file = folder / "chat_template.json"
    template = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
    file.write_text(json.dumps({"chat_template": "{{ bos_token }}" + template}), encoding="utf-8")
    in_training = ids_in_training(folder, picture, "")
    begin = load_processor(folder).tokenizer.bos_token_id
    assert in_training.count(begin) == 1
    assert in_training == ids_of_our_rules(folder, picture, "")
    assert in_training == ids_of_lmms_eval(folder, picture, "", monkeypatch)


def test_the_paper_s_form_has_the_model_s_own_mark_of_a_picture(
    checkpoint: Callable[[str], Path],
) -> None:
    assert with_own_mark(FORM, checkpoint("llava-1.5")) == FORM
    assert with_own_mark(FORM, checkpoint("idefics3")) == FORM
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    assert with_own_mark(FORM, checkpoint("qwen2.5-vl")) == FORM.replace("<image>", mark)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "has no chat template"),
        ("{{ messages[0]['content'][-1]['text'] }}", "leaves the picture or the words"),
        ("{{ raise_exception('Only texts') }}", "Only texts"),
        ("{% for message in messages %}", "cannot put a picture and a question"),
    ],
)
def test_a_base_model_that_cannot_be_asked_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path, template: str | None, problem: str
) -> None:
    file = tmp_path / "model" / "chat_template.json"
    shutil.copytree(checkpoint("llava-1.5"), file.parent)
    file.unlink()
    if template:
        file.write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        own_template(file.parent)


def test_keys_of_trainings_and_pairs_are_those_of_the_form_whoever_says_it(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLaVA-1.5's chat template and the paper's form are the same; its system prompt is another."""
    base = checkpoint("llava-1.5")
    monkeypatch.setattr("lib.weights.folder_identity", lambda folder: "folder-0123456789abcdef")

    def key(**asked: Any) -> str:
        return key_of(TrainingSettings(), tmp_path, base, **asked)

    assert key(prompt_template=None) == key(prompt_template=FORM) == KEY_OF_B7F97EC
    assert key(prompt_template=None, system_prompt=SYSTEM_PROMPT) != KEY_OF_B7F97EC
    asked = {"policies": [], "min_margin": 0, "base_model": {"model": str(base)}, "max_length": 9}
    of_pairs = BuildPairsJob(**asked, prompt_template=None)
    assert build_pairs.how_it_is_asked(of_pairs) == {"prompt_template": FORM}
    assert "system_prompt" not in deciding(of_pairs)


@pytest.mark.shows("tuning", "lora")
@pytest.mark.parametrize("name", every_family)
def test_a_base_model_is_trained_on_its_language_model_merged_and_answers(
    checkpoint: Callable[[str], Path], dataset: Path, picture: Path, tmp_path: Path, name: str
) -> None:
    base = checkpoint(name)
    assert weights.config_in(base)["architectures"] == [FAMILIES.get(name, ["?"])[0]]
    template = asked_as(Model(model=str(base)), None, None)
    job = training_job(base, dataset, tmp_path / "training", epochs=1, gradient_accumulation=5)
    DPO.train(job.model_copy(update={"prompt_template": template}))
    (checkpoint_folder,) = job.checkpoints.glob("checkpoint-*")
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    keep_results(checkpoint_folder, adapter, Model(model=str(base)), DPO)
    losses = [row["loss"] for row in read_jsonl(adapter / "metrics.jsonl")]
    assert len(losses) == 2
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[1] != losses[0]
    merged.mkdir()
    assert merge_adapter.merge(base, adapter, merged) == 2 * 7
    check_whole(merged, with_images=True)
    assert_merged(base, adapter, merged, picture)
    generator = TransformersGenerator(merged, "float32", DEVICE, Sampling(4, 0), with_images=True)
    (answer,) = generator.generate([Request(QUESTION, 0, picture)])
    assert 1 <= answer.tokens <= 4


@pytest.mark.parametrize("name", ["llava-1.5", "qwen3-vl", "idefics3"])
def test_a_projector_that_is_asked_for_is_trained_at_its_own_rate_and_merged(
    checkpoint: Callable[[str], Path], dataset: Path, picture: Path, tmp_path: Path, name: str
) -> None:
    from safetensors.torch import load_file

    base = checkpoint(name)
    template = asked_as(Model(model=str(base)), None, None)
    settings = {"epochs": 1, "gradient_accumulation": 5, "projector_learning_rate": 1e-2}
    job = training_job(base, dataset, tmp_path / "training", **settings)
    DPO.train(job.model_copy(update={"prompt_template": template}))
    (trained,) = job.checkpoints.glob("checkpoint-*")
    groups = torch.load(trained / "optimizer.pt")["param_groups"]
    assert {group["initial_lr"] for group in groups if group["params"]} == {1e-3, 1e-2}
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    keep_results(trained, adapter, Model(model=str(base)), DPO)
    merged.mkdir()
    merge_adapter.merge(base, adapter, merged)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, merged))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    projector = {key for key in before if any(part in key for part in PROJECTORS)}
    assert projector & changed
    assert all(LAYER.search(key) for key in changed - projector)
    assert all(before[key].dtype == after[key].dtype for key in before)
    assert_merged(base, adapter, merged, picture)


@pytest.mark.shows("tuning", "full")
@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl", "idefics3"])
def test_all_weights_of_the_language_model_are_trained_where_that_is_asked_for_and_no_others(
    checkpoint: Callable[[str], Path], dataset: Path, picture: Path, tmp_path: Path, name: str
) -> None:
    from safetensors.torch import load_file

    base = checkpoint(name)
    template = asked_as(Model(model=str(base)), None, None)
    settings = {"epochs": 1, "gradient_accumulation": 5, "tuning": "full", "learning_rate": 1e-4}
    job = training_job(base, dataset, tmp_path / "training", **settings)
    DPO.train(job.model_copy(update={"prompt_template": template}))
    (trained,) = job.checkpoints.glob("checkpoint-*")
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    keep_results(trained, adapter, Model(model=str(base)), DPO)
    losses = [row["loss"] for row in read_jsonl(adapter / "metrics.jsonl")]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)  # the reference is the base model
    merged.mkdir()
    merge_adapter.merge(base, adapter, merged)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, merged))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    others = {key for key in before if any(part in key for part in ("vis", *PROJECTORS, "newline"))}
    assert changed == before.keys() - others
    check_whole(merged, with_images=True)
    assert_merged(base, adapter, merged, picture)


@pytest.mark.numeric
def test_weights_of_16_bits_are_trained_from_the_reference_itself(
    checkpoint: Callable[[str], Path], dataset: Path, tmp_path: Path
) -> None:
    """In 32 bits, in which small updates are not lost: the reference, too, or the first loss would
    not be ln 2.
    """
    from safetensors.torch import load_file

    base = checkpoint("llava-1.5")
    settings = {"epochs": 1, "gradient_accumulation": 10, "tuning": "full"}
    job = training_job(base, dataset, tmp_path, **settings)
    DPO.train(job.model_copy(update={"dtype": "bfloat16"}))
    (trained,) = job.checkpoints.glob("checkpoint-*")
    assert state_at(trained).log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    weights = load_file(trained / "adapter_model.safetensors").values()
    assert {each.dtype for each in weights} == {torch.float32}


def test_shared_embeddings_are_not_trained_apart(checkpoint: Callable[[str], Path]) -> None:
    model = load_model(checkpoint("qwen2.5-vl"))
    layers = ["language_model.layers.0", "language_model.layers.1", "language_model.norm"]
    assert sorted(language_model_of(model)) == [
        "language_model.embed_tokens",
        *layers,
        "lm_head",
    ]
    model.lm_head.weight = model.get_input_embeddings().weight
    assert sorted(language_model_of(model)) == layers


def assert_merged(base: Path, adapter: Path, merged: Path, picture: Path) -> None:
    """The merged model says what base and adapter say; nothing of the vision tower is trained."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    processor = load_processor(base)
    with Image.open(picture) as image:
        prompt = chat_prompt(processor, QUESTION, True)
        inputs = processor(images=[[image]], text=[prompt], return_tensors="pt")
    models = {
        file: AutoModelForImageTextToText.from_pretrained(file, dtype=torch.float32).eval()
        for file in (base, merged)
    }
    with torch.no_grad():
        plain, ours = (model(**inputs).logits for model in models.values())
        peft = PeftModel.from_pretrained(models[base], adapter)
        assert not any("vis" in name for name, _ in peft.named_parameters() if "lora_" in name)
        expected = peft.eval()(**inputs).logits
    assert torch.allclose(ours, expected, atol=1e-4)
    assert (expected - plain).abs().max() > 1e-3


def test_an_adapter_of_llava_names_the_layers_that_it_always_named(
    checkpoint: Callable[[str], Path],
) -> None:
    """The pattern stands in the adapter's configuration, which is published."""
    model = load_model(checkpoint("llava-1.5"))
    projections = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    assert lora_targets(model) == rf".*language_model.*\.({projections})"
    assert lora_targets(load_model(checkpoint("idefics3"))) == rf".*text_model.*\.({projections})"


@pytest.mark.parametrize("name", ["llava-1.5", *BASE_MODELS])
def test_qlora_holds_the_language_model_in_4_bits_and_nothing_else(
    checkpoint: Callable[[str], Path], name: str
) -> None:
    """What is not trained is the same in training and in the merged model."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    model = load_model(checkpoint(name))
    decoder = {id(module) for module in model.get_decoder().modules()}
    linear = [
        (place, id(module) in decoder)
        for place, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    assert {is_inside for _, is_inside in linear} == {True, False}
    for place, is_inside in linear:
        assert should_convert_module(place, [ALL_BUT_LANGUAGE_MODEL]) == is_inside, place


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.shows("tuning", "qlora")
@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl", "idefics3"])
def test_an_adapter_of_qlora_is_merged_into_the_weights_as_they_are(
    checkpoint: Callable[[str], Path], dataset: Path, tmp_path: Path, name: str
) -> None:
    base = checkpoint(name)
    template = asked_as(Model(model=str(base)), None, None)
    settings = {"epochs": 1, "gradient_accumulation": 5, "tuning": "qlora"}
    job = training_job(base, dataset, tmp_path / "training", **settings)
    DPO.train(job.model_copy(update={"prompt_template": template}))
    (trained,) = job.checkpoints.glob("checkpoint-*")
    (tmp_path / "merged").mkdir()
    keep_results(trained, tmp_path / "adapter", Model(model=str(base)), DPO)
    assert merge_adapter.merge(base, tmp_path / "adapter", tmp_path / "merged") == 2 * 7


def load_model(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


def test_a_picture_leaves_the_room_that_the_model_s_processor_says(
    checkpoint: Callable[[str], Path], tmp_path: Path, rule_object: Callable[..., SimpleNamespace]
) -> None:
    """A larger one leaves less: Qwen's take as many tokens as they are large."""
    base = checkpoint("qwen2.5-vl")
    root = tmp_path / "run"
    root.mkdir()
    for name, size in (("small", (28, 28)), ("large", (112, 112))):
        Image.new("RGB", size).save(root / f"{name}.png")
    rows = [
        {
            "id": f"art-{name}",
            "topic": "art",
            "prompt": "?",
            "image": {"file": f"{name}.png", "sha256": "0"},
            "instruction": "What is it?",
            "responses": {
                "a": {"text": "A lamp.", "score": 1.0},
                "b": {"text": "A.", "score": 0.0},
            },
        }
        for name in ("small", "large")
    ]
    ranking, output = tmp_path / "ranking.jsonl", tmp_path / "pairs.jsonl"
    write_jsonl(ranking, rows)
    processor = load_processor(base)
    template = own_template(base)
    tokens = ImageTokens(processor, template)
    assert (tokens.of_size((28, 28)), tokens.of_size((112, 112))) == (0, 15)
    prompt = len(processor.tokenizer(template.replace("{instruction}", "What is it?"))["input_ids"])
    settings = BuildPairsJob(
        policies=["a", "b"],
        min_margin=0,
        max_length=prompt + 10,
        prompt_template=None,
        base_model=Model(model=str(base)),
    ).model_dump(mode="json")
    inputs = SimpleNamespace(ranking=str(ranking), overlaps=[])
    wildcards = {"topic": "art", "shard": "00"}
    made = rule_object("build_pairs", wildcards, inputs, [str(output)], settings=settings)
    build_pairs.main(made)
    reasons = {row["id"]: row.get("no_pair") for row in read_jsonl(output)}
    assert reasons == {"art-small": None, "art-large": "no room for a response"}
