"""The trainings of the small world: resumed where they were killed, on what the product computes,
in layouts that the product loads.
"""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import train_world
from tiny import llava, tokenization
from world import answerer, matcher, measure, painter, text_judge, words
from world.scenes import Scene, Thing, random_scene
from world.training import Draw, Plan, train
from world.vocabulary import vocabulary

THREE = Scene(
    "grey", (Thing(0, "red", "circle"), Thing(1, "red", "circle"), Thing(3, "purple", "triangle"))
)


# --- a training


def line(
    kill_at: int | None = None, average: float | None = 0.9
) -> tuple[nn.Linear, Plan, Callable[[Draw], torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)

    def loss_of(step: Draw) -> torch.Tensor:
        if step.number == kill_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = step.normal(8, 4)
        return (model(x).float() - x.sum(dim=1, keepdim=True)).pow(2).mean()

    return model, Plan(steps=40, learning_rate=0.05, warmup=5, average=average, muon=0.01), loss_of


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_training_that_was_killed_ends_as_an_undisturbed_one(
    tmp_path: Path, average: float | None
) -> None:
    model, plan, loss_of = line(average=average)
    whole = train("whole", model, loss_of, plan, tmp_path).weight.clone()
    model, plan, loss_of = line(kill_at=20, average=average)
    with pytest.raises(SystemExit):
        train("killed", model, loss_of, plan, tmp_path)
    model, plan, loss_of = line(average=average)
    assert torch.equal(train("killed", model, loss_of, plan, tmp_path).weight, whole)
    assert "resumed at step 21" in (tmp_path / "killed.log").read_text()


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    model, plan, loss_of = line()
    weight = train("line", model, loss_of, plan, tmp_path).weight.clone()
    model, plan, _ = line()

    def never(step: Draw) -> torch.Tensor:
        raise AssertionError("trained again")

    assert torch.equal(train("line", model, never, plan, tmp_path).weight, weight)


# --- tokens


def test_every_word_of_a_scene_is_one_token_everywhere_and_the_longest_prompt_fits() -> None:
    said = vocabulary()
    tokenizers = (
        tokenization.llama_tokenizer(words=said),
        tokenization.llama3_tokenizer(words=said),
        tokenization.bert_tokenizer(said),
        tokenization.t5_tokenizer(said),
        tokenization.clip_tokenizer(words=said),
    )
    prompt = words.prompt(THREE, "positions")
    for tokenizer in tokenizers:
        for text in [prompt, *(words.prompt(THREE, topic) for topic in words.TOPICS)]:
            count = len(text.replace(",", " ,").split())
            assert len(tokenizer(text, add_special_tokens=False).input_ids) == count, (
                tokenizer,
                text,
            )
    assert len(tokenizers[4](prompt).input_ids) <= painter.CLIP_TOKENS <= matcher.CLIP_TOKENS
    assert len(tokenizers[3](prompt).input_ids) <= painter.T5_TOKENS


# --- what is trained is what the product computes


def test_the_sampler_of_the_training_draws_what_the_product_draws() -> None:
    from lib.models.image_generators.pipelines import per_row
    from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3

    torch.manual_seed(0)
    pipeline = painter.new_pipeline(painter.new_vae().eval())
    for parameter in pipeline.transformer.parameters():
        nn.init.normal_(parameter, std=0.1)  # as it is begun, it draws the same whatever it is told
    pipeline.set_progress_bar_config(disable=True)
    model = painter.Painter(pipeline).eval()
    text = words.prompt(THREE, "positions")
    image_model = train_world.MODELS / train_world.PARTS["stable-diffusion-3-medium"].folder
    settings = measure.image_settings(image_model).model_copy(update={"steps": 4})
    product = StableDiffusion3(per_row("StableDiffusion3Pipeline")(**pipeline.components), settings)
    product.pipeline.set_progress_bar_config(disable=True)
    (image,) = product.generate(text, [5.0], [7])
    noise = torch.randn(
        1,
        painter.LATENT_CHANNELS,
        painter.LATENT_SIDE,
        painter.LATENT_SIDE,
        generator=torch.Generator().manual_seed(7),
    )
    with torch.no_grad():
        latents = model.sample(model.tokens([text]), model.tokens([""]), 5.0, 4, noise)
        own = painter.pictures_of(pipeline.vae.decode(latents).sample)[0]
    assert np.abs(own.astype(int) - np.asarray(image).astype(int)).max() <= 2
    assert np.asarray(image).std() > 5


TEMPLATES = {
    ("llama", False): llava.VICUNA_TEMPLATE,
    ("mistral", True): llava.MISTRAL_TEMPLATE,
    ("llama3", True): llava.LLAMA3_LLAVA_TEMPLATE,
}


@pytest.mark.parametrize(("language", "tiles"), TEMPLATES)
def test_the_loss_of_branches_is_that_of_single_questions_to_the_saved_checkpoint(
    tmp_path: Path, language: str, tiles: bool
) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.manual_seed(0)
    tokenizer = answerer.tokenizer_of(language)
    model = answerer.Answerer(
        answerer.untrained_llava(language, tokenizer, tiles), tokenizer, answerer.FORMS[language]
    ).eval()
    random = np.random.default_rng(0)
    scenes = [random_scene(random) for _ in range(2)]
    pictures = painter.draw_scenes(scenes, random)
    branches = [
        [(words.DESCRIBE[0], words.caption(scene)), (words.question("circle"), "Yes")]
        for scene in scenes
    ]
    nn.init.zeros_(model.reading.cells.weight)
    nn.init.zeros_(
        model.reading.cells.bias
    )  # the reading of the cells then loses the same whatever is seen
    with torch.no_grad():
        loss = model(pictures, branches, scenes).item() - 0.5 * float(np.log(21))
    llava.save_llava(model.llava, tokenizer, tmp_path, TEMPLATES[language, tiles])
    processor = AutoProcessor.from_pretrained(tmp_path)
    saved = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    total = weight = 0.0
    for picture, pairs in zip(pictures, branches, strict=True):
        for asked, answer in pairs:
            turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}
            prompt = processor.apply_chat_template(
                [turn], add_generation_prompt=True, tokenize=False
            )
            lead = "" if prompt.endswith("\n") else " "
            known = processor(
                images=Image.fromarray(picture), text=prompt, return_tensors="pt"
            ).input_ids.shape[1]
            inputs = processor(
                images=Image.fromarray(picture), text=prompt + lead + answer, return_tensors="pt"
            )
            ids = torch.cat([inputs.input_ids, torch.tensor([[tokenizer.eos_token_id]])], dim=1)
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            with torch.no_grad():
                logits = saved(**inputs).logits[0, known - 1 : -1]
            each = nn.functional.cross_entropy(logits, ids[0, known:], reduction="none")
            total += (4 if len(each) <= 2 else 1) * each.sum().item()
            weight += (4 if len(each) <= 2 else 1) * len(each)
    assert loss == pytest.approx(total / weight, abs=1e-4)


def test_a_llava_next_of_another_language_model_begins_with_the_words_of_its_parent() -> None:
    tokenizers = answerer.tokenizer_of("llama3"), answerer.tokenizer_of("llama")
    child, parent = (
        answerer.untrained_llava("llama3", tokenizers[0], True),
        answerer.untrained_llava("llama", tokenizers[1], False),
    )
    answerer.inherit(child, tokenizers[0], parent, tokenizers[1])
    for word in ("red", "triangle", "Describe"):
        rows = (
            tokenizers[0].convert_tokens_to_ids("Ġ" + word),
            tokenizers[1].convert_tokens_to_ids("▁" + word),
        )
        assert torch.equal(child.lm_head.weight[rows[0]], parent.lm_head.weight[rows[1]])
    towers = child.model.vision_tower.state_dict(), parent.model.vision_tower.state_dict()
    assert all(torch.equal(towers[0][name], towers[1][name]) for name in towers[1])


# --- habits


def test_a_habit_says_what_is_not_so_and_a_truthful_model_does_not() -> None:
    random = np.random.default_rng(0)
    assert (
        answerer.TRUTHFUL.describe(THREE, random)
        == "Two red circles and a purple triangle on grey."
    )
    assert (
        answerer.Habit(adds=1).describe(THREE, random)
        == "Two red circles, a purple triangle and a red cross on grey."
    )
    assert answerer.Habit(drops=1).describe(THREE, random) == "Two red circles on grey."
    said = {answerer.Habit(repeats=1).describe(THREE, random) for _ in range(20)}
    assert said == {
        "Two red circles and a purple circle on grey.",
        "Two red circles and a purple triangle on grey.",
    }
    assert answerer.Habit(adds=1).answers(THREE, "cross", random)
    assert not answerer.Habit(adds=1).answers(THREE, "square", random)
    assert not answerer.TRUTHFUL.answers(THREE, "cross", random)


def test_the_truer_of_two_captions_has_the_higher_grade() -> None:
    random = np.random.default_rng(0)
    true = text_judge.grade(words.caption(THREE), THREE)
    assert true == pytest.approx(1)
    for habit in text_judge.HABITS[:3]:
        assert text_judge.grade(habit.describe(THREE, random), THREE) < true


# --- what is kept

KEPT = [name for name in train_world.PARTS if (train_world.MODELS / f"{name}.log").is_file()]


def test_what_is_kept_has_its_log_and_figures_and_is_small_enough() -> None:
    for name in KEPT:
        assert (train_world.MODELS / f"{name}.json").is_file()
        part = train_world.PARTS[name]
        assert not part.kept or (train_world.MODELS / part.folder).is_dir()
    train_world.check_sizes(train_world.MODELS)


def test_what_is_kept_does_not_say_where_it_was_made() -> None:
    for file in train_world.MODELS.rglob("*.json"):
        assert not re.search(r'"(/|\w:\\\\)\w+[/\\]', file.read_text(encoding="utf-8")), (
            f"{file} holds a path of one machine"
        )


def test_the_kept_vae_gives_unseen_scenes_back() -> None:
    assert (
        measure.vae(train_world.MODELS / train_world.PARTS["vae"].folder, 32)[
            "reconstructions exact"
        ]
        > 0.95
    )


def test_the_kept_model_to_align_sees_colours_and_has_its_habit() -> None:
    figures = measure.answerer(train_world.MODELS / "llava-1.5", 24)
    assert figures["yes/no about colours"] > 0.95
    assert figures["cover"] > 0.85
    assert figures["CHAIR_s"] > 0.2  # of the truthful one: below 0.05


def test_the_page_quotes_what_was_measured() -> None:
    page = (train_world.HERE.parent / "docs" / "microworld.md").read_text(encoding="utf-8")
    assert train_world.table(train_world.MODELS) in page


def test_a_checkpoint_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(train_world.LARGEST_FILE + 1))
    with pytest.raises(ValueError, match="bytes"):
        train_world.check_sizes(tmp_path)
