"""Image scorers: the same score alone and in a batch, prompts are data, and no checkpoint is taken
for what it is not.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from conftest import DEVICE, rounding, tiny_checkpoint
from lib.config.image_ranking import RankImagesJob
from lib.models.image_scorers.bert import BLIP_PROMPT_TOKENS
from lib.models.image_scorers.image_reward import (
    CLIP_PIXEL_MEAN,
    CLIP_PIXEL_STD,
    ImageReward,
    preprocess,
)
from lib.models.image_scorers.registry import IMAGE_SCORERS
from tiny.image_reward import write_image_reward
from tiny.registry import BUILDERS
from tiny.tokenization import bert_tokenizer

#: Of the widest hidden states of the tiny checkpoints.
ROUNDING = rounding(128)
PROMPT = "two red cats on a blue sofa"
LONG_PROMPT = "a very long prompt about " + "one more cat and " * 40


def settings_of(kind, folder, **settings):
    return IMAGE_SCORERS.validate({"kind": kind, "model": str(folder), **settings})


def load_image_scorer(kind, folder, **settings):
    """The scorer of a folder, as the rule loads it."""
    return IMAGE_SCORERS.load(kind).load(settings_of(kind, folder, **settings), DEVICE)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder with a tiny checkpoint for each kind of scorer."""
    root = tmp_path_factory.mktemp("scorers")
    for kind in ("clip", "blip"):
        (root / kind).mkdir()
        BUILDERS[kind](root / kind)
    write_image_reward(root / "image-reward")
    return root


@pytest.fixture(scope="session")
def scorers(folders):
    return {
        kind: load_image_scorer(kind, folders / kind) for kind in ("image-reward", "clip", "blip")
    }


@pytest.fixture(scope="session")
def images():
    """Four images of different sizes and shapes, none like another."""
    generator = np.random.default_rng(0)
    sizes = [(64, 64), (100, 72), (40, 90), (256, 200)]
    return [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


@pytest.fixture
def checkpoint(folders, tmp_path):
    """A copy of the ImageReward checkpoint to break: its folder, its state dict, and a function
    that saves what was changed.
    """
    folder = tmp_path / "image-reward"
    folder.mkdir()
    for path in (folders / "image-reward").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    state = torch.load(folder / "ImageReward.pt", weights_only=True)

    def save():
        torch.save(state, folder / "ImageReward.pt")
        return folder

    return folder, state, save


def reference_image_reward(
    folder: Path, tokens: dict[str, torch.Tensor], pixels: torch.Tensor
) -> float:
    """The original model's computation for one image, written out from its own parameter names."""
    state = torch.load(folder / "ImageReward.pt", weights_only=True)
    config = json.loads((folder / "med_config.json").read_text())

    def linear(name, inputs):
        return functional.linear(inputs, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name, inputs, epsilon):
        return functional.layer_norm(
            inputs, inputs.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], epsilon
        )

    def attend(query, key, value, heads, mask=0.0):
        query, key, value = (
            part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in (query, key, value)
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask).softmax(-1)
        return (weights @ value).transpose(0, 1).flatten(1)

    vision, text = "blip.visual_encoder", "blip.text_encoder"
    patches = functional.conv2d(
        pixels[None],
        *(state[f"{vision}.patch_embed.proj.{part}"] for part in ("weight", "bias")),
        stride=16,
    )
    image = (
        torch.cat([state[f"{vision}.cls_token"][0], patches[0].flatten(1).T])
        + state[f"{vision}.pos_embed"][0]
    )
    for number in range(2):
        block = f"{vision}.blocks.{number}"
        states = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", image, 1e-6))
        query, key, value = states.chunk(3, -1)
        attended = attend(query, key, value, image.shape[-1] // 64)
        image = image + linear(f"{block}.attn.proj", attended)
        hidden = functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", image, 1e-6)))
        image = image + linear(f"{block}.mlp.fc2", hidden)
    image = norm(f"{vision}.norm", image, 1e-6)

    ids, mask = (
        tokens["input_ids"][0],
        torch.where(tokens["attention_mask"][0] == 1, 0.0, -torch.inf),
    )
    embeddings = f"{text}.embeddings"
    words = (
        state[f"{embeddings}.word_embeddings.weight"][ids]
        + state[f"{embeddings}.position_embeddings.weight"][: len(ids)]
    )
    words = norm(f"{embeddings}.LayerNorm", words, 1e-12)
    for number in range(config["num_hidden_layers"]):
        layer = f"{text}.encoder.layer.{number}"
        for name, source, padding in (("attention", None, mask), ("crossattention", image, 0.0)):
            source = words if source is None else source
            query, key, value = (
                linear(f"{layer}.{name}.self.{part}", words if part == "query" else source)
                for part in ("query", "key", "value")
            )
            attended = attend(query, key, value, config["num_attention_heads"], padding)
            words = norm(
                f"{layer}.{name}.output.LayerNorm",
                words + linear(f"{layer}.{name}.output.dense", attended),
                1e-12,
            )
        hidden = functional.gelu(linear(f"{layer}.intermediate.dense", words))
        words = norm(
            f"{layer}.output.LayerNorm", words + linear(f"{layer}.output.dense", hidden), 1e-12
        )
    reward = words[0]
    for number in (0, 2, 4, 6, 7):
        reward = linear(f"mlp.layers.{number}", reward)
    return float(reward.item() - 0.16717362830052426) / 1.0333394966054072


@pytest.mark.numeric
def test_image_reward_is_the_original_computation(folders, scorers, images):
    scorer = scorers["image-reward"]
    for prompt in (PROMPT, LONG_PROMPT):
        tokens = scorer.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        )
        expected = [
            reference_image_reward(folders / "image-reward", tokens, preprocess(image, 64))
            for image in images
        ]
        assert scorer.score(prompt, images) == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.numeric
@pytest.mark.parametrize("kind", ["image-reward", "clip", "blip"])
def test_a_batch_gives_the_scores_of_each_image_alone(scorers, images, kind):
    scorer = scorers[kind]
    batch = scorer.score(PROMPT, images)
    assert batch == pytest.approx(
        [scorer.score(PROMPT, [image])[0] for image in images], abs=ROUNDING
    )
    assert batch == scorer.score(PROMPT, images), "the same batch again must give the same bits"
    assert len(set(batch)) == len(images), "different images must not tie"


@pytest.mark.parametrize("kind", ["image-reward", "clip", "blip"])
def test_the_score_depends_on_the_prompt(scorers, images, kind):
    assert scorers[kind].score(PROMPT, images) != scorers[kind].score("snow", images)


@pytest.mark.parametrize("kind", ["image-reward", "clip", "blip"])
def test_no_image_no_score(scorers, kind):
    assert scorers[kind].score(PROMPT, []) == []


def test_clip_is_a_cosine_and_blip_a_probability(scorers, images):
    assert all(-1 <= score <= 1 for score in scorers["clip"].score(PROMPT, images))
    assert all(0 < score < 1 for score in scorers["blip"].score(PROMPT, images))


@pytest.mark.numeric
def test_blip_is_transformers_own_itm_score(folders, scorers, images):
    scorer = scorers["blip"]
    pixels = scorer.image_processor(images, return_tensors="pt").pixel_values.to(DEVICE)
    tokens = scorer.tokenizer([PROMPT] * len(images), return_tensors="pt").to(DEVICE)
    with torch.inference_mode():
        output = scorer.model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=pixels
        )
    assert scorer.score(PROMPT, images) == pytest.approx(
        output.itm_score.softmax(-1)[:, 1].tolist(), abs=ROUNDING
    )


def test_pickscore_is_a_clip_whose_own_formula_ranks_as_ours(folders, scorers, images):
    """PickScore multiplies the cosine by a learnt scale, the same for all images of a prompt."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = folders / "clip"
    model = CLIPModel.from_pretrained(folder)
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(
        [image.convert("RGB") for image in images], return_tensors="pt"
    )
    tokens = CLIPTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**pixels, **tokens).logits_per_image[:, 0] / model.logit_scale.exp()
    assert scorers["clip"].score(PROMPT, images) == pytest.approx(logits.tolist(), abs=1e-5)


def test_vqascore_is_the_share_of_yes_among_all_first_tokens(demo_models, images):
    """Computed with nothing of ours but the question."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = demo_models / "llava-v1.6-mistral"
    settings = {"kind": "vqascore", "model": str(folder), "dtype": "float32"}
    scorer = IMAGE_SCORERS.load_model(IMAGE_SCORERS.validate(settings), "cpu")
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    text = f'Does this figure show "{PROMPT}"? Please answer yes or no.'
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    asked = processor.apply_chat_template([turn], add_generation_prompt=True)
    (yes, *_) = processor.tokenizer("Yes", add_special_tokens=False).input_ids
    image = images[0].convert("RGB")
    inputs = processor(images=[image], text=[asked], return_tensors="pt")
    with torch.inference_mode():
        share = model(**inputs).logits[0, -1].softmax(-1)[yes]
    (score,) = scorer.score(PROMPT, [image])
    assert 0 < score < 1
    assert score == pytest.approx(float(share), rel=1e-3)


def test_vqascore_asks_what_is_configured(demo_models):
    model = {"kind": "vqascore", "model": str(demo_models / "llava-v1.6-mistral")}
    with pytest.raises(ValueError, match=r"write \{prompt\} where the prompt is to stand"):
        IMAGE_SCORERS.validate({**model, "question": "Is it good?"})
    with pytest.raises(ValueError, match="there is no response generator 'vlm'"):
        IMAGE_SCORERS.validate({**model, "backend": "vlm"})


def test_siglip_is_transformers_own_logit_of_the_prompt_in_small_letters(demo_models, images):
    from transformers import AutoTokenizer, SiglipImageProcessorPil, SiglipModel

    folder = tiny_checkpoint(demo_models, "siglip")
    settings = {"kind": "siglip", "model": str(folder), "dtype": "float32"}
    scorer = IMAGE_SCORERS.load_model(IMAGE_SCORERS.validate(settings), "cpu")
    pixels = SiglipImageProcessorPil.from_pretrained(folder)(
        [image.convert("RGB") for image in images], return_tensors="pt"
    )
    ids = AutoTokenizer.from_pretrained(folder)(
        PROMPT, padding="max_length", max_length=64, return_tensors="pt"
    ).input_ids
    with torch.inference_mode():
        logits = SiglipModel.from_pretrained(folder)(input_ids=ids, **pixels).logits_per_image
    scores = scorer.score(PROMPT, images)
    assert scores == pytest.approx(logits[:, 0].tolist(), abs=1e-5)
    assert scorer.score(PROMPT.upper(), images) == scores


@pytest.mark.parametrize("kind", ["image-reward", "clip", "blip"])
def test_a_long_prompt_is_cut_at_the_end_and_that_is_stated(scorers, images, kind):
    scorer = scorers[kind]
    assert scorer.truncates(LONG_PROMPT)
    assert not scorer.truncates("snow")
    assert scorer.score(LONG_PROMPT, images) == scorer.score(LONG_PROMPT + "and a dog", images)
    assert scorer.max_prompt_tokens == (77 if kind == "clip" else BLIP_PROMPT_TOKENS)


@pytest.mark.parametrize(
    ("kind", "token"), [("image-reward", "[SEP]"), ("blip", "[SEP]"), ("clip", "<|endoftext|>")]
)
def test_special_tokens_in_a_prompt_are_data(scorers, images, kind, token):
    scorer = scorers[kind]
    text = f"cat {token} dog"
    special = scorer.tokenizer.convert_tokens_to_ids(token)
    tokens = scorer.tokenizer(text, split_special_tokens=True).input_ids
    assert (
        tokens.count(special)
        == scorer.tokenizer("cat dog").input_ids.count(special)
        < scorer.tokenizer(text).input_ids.count(special)
    )
    assert scorer.score(text, images) != scorer.score("cat dog", images)


@pytest.mark.parametrize(
    "prompt", ["", "猫が三匹", "قطة حمراء 😀", "a" * 5000, "{brace} \"quote' $(x) \\"]
)
def test_any_prompt_can_be_scored(scorers, images, prompt):
    for scorer in scorers.values():
        assert all(map(math.isfinite, scorer.score(prompt, images[:1])))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_images_of_any_mode_can_be_scored(scorers, images, mode):
    for scorer in scorers.values():
        assert all(map(math.isfinite, scorer.score(PROMPT, [images[0].convert(mode)])))


def test_a_score_that_is_not_a_number_is_returned_as_it_is(checkpoint, images):
    _, state, save = checkpoint
    state["mlp.layers.7.bias"][:] = torch.nan
    assert all(map(math.isnan, load_image_scorer("image-reward", save()).score(PROMPT, images)))


def test_preprocessing_is_that_of_torchvision_on_pil_images(images):
    transforms = pytest.importorskip("torchvision.transforms")
    for image in images:
        expected = transforms.Compose(
            [
                transforms.Resize(64, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(64),
                transforms.ToTensor(),
                transforms.Normalize(CLIP_PIXEL_MEAN, CLIP_PIXEL_STD),
            ]
        )(image)
        assert torch.equal(preprocess(image, 64), expected)


def test_other_number_formats_give_nearly_the_same_ranking_scores(folders, scorers, images):
    for kind, scorer in scorers.items():
        exact = scorer.score(PROMPT, images)
        half = load_image_scorer(kind, folders / kind, dtype="bfloat16").score(PROMPT, images)
        assert half == pytest.approx(exact, abs=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.update({"blip.visual_encoder.head.weight": torch.zeros(2)}),
            "unknown blip.visual_encoder.head.weight",
        ),
        (
            lambda state: state.update({"itm_head.weight": torch.zeros(2)}),
            "unknown itm_head.weight",
        ),
        (
            lambda state: state.update({"blip.text_encoder.pooler.dense.weight": torch.zeros(2)}),
            "unknown pooler.dense.weight",
        ),
        (
            lambda state: state.pop("blip.visual_encoder.blocks.1.norm2.bias"),
            "lacks encoder.layers.1.layer_norm2.bias",
        ),
        (lambda state: state.pop("blip.visual_encoder.pos_embed"), "vision encoder is incomplete"),
        (lambda state: state.pop("mlp.layers.6.bias"), "Sequential it lacks 3.bias"),
        (
            lambda state: state.update({"blip.visual_encoder.cls_token": torch.zeros(1, 1, 7)}),
            "another shape for embeddings.class_embedding",
        ),
        (
            lambda state: state.update({"blip.visual_encoder.pos_embed": torch.zeros(1, 12, 128)}),
            "11 patches are no square",
        ),
        (lambda state: state.update({"mlp.layers.0.weight": "text"}), "not a state dict"),
    ],
)
def test_a_checkpoint_that_is_not_image_rewards_is_refused_by_name(checkpoint, change, message):
    _, state, save = checkpoint
    change(state)
    with pytest.raises(ValueError, match=r"ImageReward\.pt") as error:
        load_image_scorer("image-reward", save())
    assert message in str(error.value)


def test_a_checkpoint_is_read_without_running_anything_in_it(checkpoint, tmp_path):
    folder, _, _ = checkpoint
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (exec, (f"open({str(marker)!r}, 'w')",))

    torch.save({"mlp.layers.0.weight": Payload()}, folder / "ImageReward.pt")
    with pytest.raises(ValueError, match="not a checkpoint that torch"):
        load_image_scorer("image-reward", folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ImageReward.pt", b"not a checkpoint", "not a checkpoint that torch.load"),
        ("ImageReward.pt", None, "has no ImageReward.pt"),
        ("med_config.json", None, "has no med_config.json"),
        ("med_config.json", b"{", "med_config.json is not a JSON object"),
        ("med_config.json", b"[1]", "med_config.json is not a JSON object"),
        ("med_config.json", b"{}", "med_config.json has no key 'vocab_size'"),
        ("tokenizer.json", None, "has no BERT tokenizer"),
    ],
)
def test_a_broken_folder_is_refused_by_the_file_at_fault(checkpoint, name, content, message):
    folder, _, _ = checkpoint
    settings = settings_of("image-reward", folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ImageReward.load(settings, "cpu")


def test_a_truncated_checkpoint_is_refused(checkpoint):
    folder, _, _ = checkpoint
    content = (folder / "ImageReward.pt").read_bytes()
    (folder / "ImageReward.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a checkpoint that torch"):
        load_image_scorer("image-reward", folder)


def test_an_older_checkpoint_that_is_no_zip_file_is_read(checkpoint, scorers, images):
    folder, state, _ = checkpoint
    torch.save(state, folder / "ImageReward.pt", _use_new_zipfile_serialization=False)
    assert load_image_scorer("image-reward", folder).score(PROMPT, images) == scorers[
        "image-reward"
    ].score(PROMPT, images)


def test_the_tokenizer_can_lie_in_a_folder_of_its_own(checkpoint, folders, scorers, images):
    folder, _, _ = checkpoint
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    scorer = load_image_scorer(
        "image-reward", folder, tokenizer={"model": str(folders / "image-reward")}
    )
    assert scorer.score(PROMPT, images) == scorers["image-reward"].score(PROMPT, images)


def test_a_tokenizer_with_more_entries_than_the_model_is_refused(checkpoint, tmp_path):
    folder, _, _ = checkpoint
    bert_tokenizer().save_pretrained(tmp_path / "bert")
    (tmp_path / "bert/config.json").write_text("{}")
    with pytest.raises(ValueError, match="but the model's embedding"):
        load_image_scorer("image-reward", folder, tokenizer={"model": str(tmp_path / "bert")})


@pytest.mark.parametrize("kind", ["clip", "blip"])
def test_another_kind_of_model_is_refused(folders, kind):
    other = {"clip": "blip", "blip": "clip"}[kind]
    with pytest.raises(ValueError, match=str(folders / other)):
        load_image_scorer(kind, folders / other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cilp"}, "there is no image scorer 'cilp'. Did you mean 'clip'"),
        ({"kind": "aesthetic"}, "Known: image-reward, clip, blip"),
        ({"backend": "onnx"}, "should be 'native' or 'image-reward'"),
        ({"dtype": "int8"}, "should be 'float32', 'bfloat16' or 'float16'"),
        ({"model": "/nowhere"}, "there is no folder '/nowhere'"),
        ({"kind": "clip", "backend": "image-reward"}, "should be 'native'"),
    ],
)
def test_wrong_settings_end_in_a_sentence(folders, settings, message):
    defaults = {"kind": "image-reward", "model": str(folders / "image-reward")}
    with pytest.raises(ValueError, match=message):
        RankImagesJob.model_validate({"scorer": defaults | settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "bfloat16"}, "computes in float32"),
        ({}, r"needs the packages of envs/image-reward\.txt"),
    ],
)
def test_the_package_says_what_it_cannot_do(folders, settings, message):
    with pytest.raises(ValueError, match=message):
        load_image_scorer(
            "image-reward", folders / "image-reward", backend="image-reward", **settings
        )


def test_the_tiny_checkpoint_is_the_same_bytes_whenever_it_is_built(folders, tmp_path):
    write_image_reward(tmp_path / "again")
    write_image_reward(tmp_path / "other", seed=1)
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (folders / "image-reward" / path.name).read_bytes(), path.name
    assert (tmp_path / "other/ImageReward.pt").read_bytes() != (
        tmp_path / "again/ImageReward.pt"
    ).read_bytes()
