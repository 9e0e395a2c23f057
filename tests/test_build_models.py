"""The tiny random checkpoints: real architectures and layouts, answers that end, the same bytes
from each build.
"""

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import build_models
from tiny.checkpoints import (
    Builder,
    build_checkpoint,
    have_same_content,
    list_files,
    source_files,
)
from tiny.instruct_llm import question_grammar
from tiny.llava import LLAVAS
from tiny.registry import BUILDERS, ON_DEMAND
from tiny.words import ANSWER_WORDS, QUESTION_WORDS

POLICY_MODELS = (
    "llava-v1.6-mistral",
    "llava-v1.6-vicuna-7b",
    "llava-v1.6-vicuna-13b",
    "llama3-llava-next",
)
QUESTIONS = (
    "What colour is the cat?",
    "Describe the people in this image in detail.",
    "How many boats are near the pier?",
)
PROMPTS = {
    "llava-1.5": "USER: <image>\nHi? ASSISTANT:",
    "llava-v1.6-mistral": "[INST] <image>\nHi? [/INST]",
    "llava-v1.6-vicuna-7b": "USER: <image>\nHi? ASSISTANT:",
    "llava-v1.6-vicuna-13b": "USER: <image>\nHi? ASSISTANT:",
    "llama3-llava-next": (
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nHi?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
}


class Checkpoint:
    """A LLaVA and its processor, loaded as a user loads them."""

    def __init__(self, folder: Path) -> None:
        kind = (
            transformers.LlavaForConditionalGeneration
            if folder.name == "llava-1.5"
            else transformers.LlavaNextForConditionalGeneration
        )
        self.model, self.loading = kind.from_pretrained(folder, output_loading_info=True)
        self.model.eval()
        self.processor = transformers.AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer

    def prompt(self, question: str) -> str:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return str(self.processor.apply_chat_template([turn], add_generation_prompt=True))

    def answer(
        self, image: Image.Image, question: str, seed: int, **settings: Any
    ) -> tuple[str, bool]:
        """The text of one answer, and whether the model ended it."""
        inputs = self.processor(images=image, text=self.prompt(question), return_tensors="pt")
        torch.manual_seed(seed)
        tokens = self.model.generate(**inputs, max_new_tokens=64, **settings)[
            0, inputs["input_ids"].shape[1] :
        ]
        return (
            self.tokenizer.decode(tokens, skip_special_tokens=True),
            int(tokens[-1]) == self.tokenizer.eos_token_id,
        )


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return [
        Image.fromarray(noise),
        Image.new("RGB", (64, 64), (200, 30, 30)),
        Image.new("RGB", (64, 64), (20, 160, 230)),
    ]


@pytest.fixture(scope="module")
def llavas(demo_models: Path) -> dict[str, Checkpoint]:
    return {name: Checkpoint(demo_models / name) for name in LLAVAS}


@pytest.mark.parametrize("name", LLAVAS)
def test_a_llava_loads_whole_with_from_pretrained(llavas: dict[str, Checkpoint], name: str) -> None:
    assert not any(llavas[name].loading.values())


@pytest.mark.parametrize("name", LLAVAS)
def test_a_llava_has_the_parameter_names_of_the_hubs_checkpoint(
    demo_models: Path, name: str
) -> None:
    from safetensors import safe_open

    with safe_open(demo_models / name / "model.safetensors", "pt") as tensors:
        names = set(tensors.keys())
    assert {"language_model.lm_head.weight", "language_model.model.embed_tokens.weight"} <= names
    assert {
        "multi_modal_projector.linear_1.weight",
        "vision_tower.vision_model.embeddings.class_embedding",
    } <= names


@pytest.mark.parametrize("name", LLAVAS)
def test_a_llavas_chat_template_is_its_hub_repositorys(
    llavas: dict[str, Checkpoint], name: str
) -> None:
    assert llavas[name].prompt("Hi?") == PROMPTS[name]
    # It is the processor's alone, as there.
    assert llavas[name].tokenizer.chat_template is None


@pytest.mark.parametrize("name", LLAVAS)
@pytest.mark.parametrize("size", [(64, 64), (96, 48), (48, 160)])
def test_an_images_placeholders_are_as_many_as_its_features(
    llavas: dict[str, Checkpoint], name: str, size: tuple[int, int]
) -> None:
    checkpoint = llavas[name]
    inputs = checkpoint.processor(
        images=Image.new("RGB", size), text=checkpoint.prompt("Hi?"), return_tensors="pt"
    )
    count = int((inputs["input_ids"] == checkpoint.model.config.image_token_id).sum())
    if size == (64, 64):
        assert count == (16 if name == "llava-1.5" else 24)
    with torch.no_grad():
        logits = checkpoint.model(**inputs).logits  # raises where the numbers differ
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", LLAVAS)
def test_image_is_one_token_and_a_text_starts_with_bos_once(
    llavas: dict[str, Checkpoint], name: str
) -> None:
    tokenizer = llavas[name].tokenizer
    tokens = tokenizer.encode("USER: <image>\nHi? ASSISTANT:")
    assert tokens.count(tokenizer.convert_tokens_to_ids("<image>")) == 1
    assert tokens[0] == tokenizer.bos_token_id
    assert tokens.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in tokens
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


@pytest.mark.parametrize("name", [*LLAVAS, "instruct-llm"])
@pytest.mark.parametrize(
    "text", ["Two red kites 😀🏳️‍🌈 fly.", "naïve  café\tمرحبا\n\n{x} 'y' $z", "日本語 ½ ∑"]
)
def test_any_text_comes_back_from_its_tokens(demo_models: Path, name: str, text: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(demo_models / name)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_prompt_and_answer_have_the_tokens_of_the_joint_text(llavas: dict[str, Checkpoint]) -> None:
    # What DPO concatenates: a space too many would train on other tokens than the model is asked
    # with.
    tokenizer = llavas["llava-1.5"].tokenizer
    prompt, answer = "<s>USER: <image>\nHi? ASSISTANT:", " The dog holds some balls.</s>"
    joint = tokenizer.encode(prompt + answer, add_special_tokens=False)
    start = tokenizer.encode(prompt, add_special_tokens=False)
    assert joint[: len(start)] == start
    assert tokenizer.convert_ids_to_tokens(joint[len(start) :]) == [
        "▁The",
        "▁dog",
        "▁holds",
        "▁some",
        "▁balls",
        ".",
        "</s>",
    ]


@pytest.mark.parametrize("name", POLICY_MODELS)
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_a_policy_models_sampled_answers_end_with_three_words_or_more(
    llavas: dict[str, Checkpoint], images: list[Image.Image], name: str, temperature: float
) -> None:
    answers = [
        llavas[name].answer(
            images[seed % 3],
            QUESTIONS[seed // 3 % 3],
            seed,
            do_sample=True,
            temperature=temperature,
        )
        for seed in range(20)
    ]
    assert sum(ended and len(text.split()) >= 3 for text, ended in answers) >= 17  # 85 %
    assert len({text for text, _ in answers}) >= 18


def test_the_policy_models_answer_differently(
    llavas: dict[str, Checkpoint], images: list[Image.Image]
) -> None:
    for settings in ({"do_sample": False}, {"do_sample": True, "temperature": 1.0}):
        answers = {
            llavas[name].answer(images[0], QUESTIONS[0], 3, **settings)[0] for name in POLICY_MODELS
        }
        assert len(answers) == len(POLICY_MODELS)


@pytest.mark.parametrize("name", LLAVAS)
def test_the_next_word_depends_on_the_image_and_on_the_question(
    llavas: dict[str, Checkpoint], images: list[Image.Image], name: str
) -> None:
    checkpoint = llavas[name]

    def next_word(image: Image.Image, question: str) -> torch.Tensor:
        inputs = checkpoint.processor(
            images=image, text=checkpoint.prompt(question), return_tensors="pt"
        )
        with torch.no_grad():
            return checkpoint.model(**inputs).logits[0, -1].softmax(-1)

    start = next_word(images[0], QUESTIONS[0])
    assert (start - next_word(images[1], QUESTIONS[0])).abs().sum() > 0.05
    assert (start - next_word(images[0], QUESTIONS[1])).abs().sum() > 0.01


def test_the_trained_model_says_yes_or_no_to_most_questions(
    llavas: dict[str, Checkpoint], images: list[Image.Image]
) -> None:
    answers = [
        llavas["llava-1.5"].answer(image, question, 0, do_sample=False)[0]
        for image in images
        for question in QUESTIONS
    ]
    assert sum(answer in ("Yes", "No") for answer in answers) >= 6


def test_the_instruction_writing_model_asks_one_question(demo_models: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(demo_models / "instruct-llm")
    model = transformers.AutoModelForCausalLM.from_pretrained(demo_models / "instruct-llm")
    turn = [{"role": "user", "content": "A red kite above a lake. Ask one question about it."}]
    inputs = tokenizer.apply_chat_template(
        turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert inputs["input_ids"][0].tolist().count(tokenizer.bos_token_id) == 1
    questions = set()
    for seed in range(10):
        torch.manual_seed(seed)
        tokens = model.generate(**inputs, max_new_tokens=32, do_sample=True, temperature=1.0)[
            0, inputs["input_ids"].shape[1] :
        ]
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        assert text.endswith("?")
        assert len(text.split()) >= 4
        questions.add(text)
    assert len(questions) >= 3


def test_stable_diffusion_3_draws_one_image_a_guidance_scale(demo_models: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(demo_models / "stable-diffusion-3-medium")
    pipeline.set_progress_bar_config(disable=True)

    def draw(prompt: str, guidance_scale: float) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        result = pipeline(
            prompt,
            guidance_scale=guidance_scale,
            num_inference_steps=4,
            generator=generator,
            output_type="np",
        )
        return np.asarray(result.images[0])

    pictures = [draw("a red boat on a lake", scale) for scale in (5.0, 7.0, 9.0, 11.0)]
    assert {picture.shape for picture in pictures} == {(64, 64, 3)}
    assert all(picture.std() > 0.05 for picture in pictures)  # not blank
    assert all(np.abs(one - other).mean() > 0.005 for one, other in itertools.pairwise(pictures))
    assert np.abs(pictures[0] - draw("three chefs in a kitchen", 5.0)).mean() > 0.05


def test_clip_and_blip_score_images_differently(
    demo_models: Path, images: list[Image.Image]
) -> None:
    clip = transformers.CLIPModel.from_pretrained(demo_models / "clip")
    inputs = transformers.CLIPProcessor.from_pretrained(demo_models / "clip")(
        text=["a dog"], images=images, return_tensors="pt"
    )
    blip = transformers.BlipForImageTextRetrieval.from_pretrained(demo_models / "blip")
    matching = transformers.BlipProcessor.from_pretrained(demo_models / "blip")(
        text=["a dog"] * 3, images=images, return_tensors="pt"
    )
    with torch.no_grad():
        for scores in (
            clip(**inputs).logits_per_image[:, 0],
            blip(**matching).itm_score.softmax(-1)[:, 1],
        ):
            assert scores.unique().numel() == len(images)


def test_the_random_runs_prompts_fit_clips_77_tokens(demo_models: Path) -> None:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(
        demo_models / "stable-diffusion-3-medium" / "tokenizer"
    )
    for path in (Path(build_models.__file__).parent / "random_prompts").glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(tokenizer(line)["input_ids"]) <= 77, line


def test_all_checkpoints_together_take_less_than_40_megabytes(demo_models: Path) -> None:
    assert set(BUILDERS) <= {path.name for path in demo_models.iterdir()}
    assert sum(size for name in BUILDERS for size in list_files(demo_models / name).values()) < 40e6


def test_two_builds_in_two_processes_give_the_same_bytes(demo_models: Path, tmp_path: Path) -> None:
    names = ["clip", "blip", "llava-1.5", "llama3-llava-next"]
    subprocess.run(
        [sys.executable, build_models.__file__, "--output", tmp_path, "--only", *names],
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"},
        check=True,
        capture_output=True,
    )
    for name in names:
        assert have_same_content(tmp_path / name, demo_models / name), name


TINY = Path(build_models.__file__).with_name("tiny")
EVERY = BUILDERS | ON_DEMAND
PRINT_DIGESTS = """
import json
from tiny.checkpoints import source_digest
from tiny.registry import BUILDERS
print(json.dumps({name: source_digest(builder) for name, builder in BUILDERS.items()}))
"""


def architecture_file(name: str) -> str:
    """The file that a checkpoint is built by."""
    builder = EVERY[name]
    function = builder.func if isinstance(builder, functools.partial) else builder
    return f"{function.__module__.removeprefix('tiny.')}.py"


def test_a_checkpoint_is_made_from_its_own_architectures_file_and_no_others() -> None:
    architectures = {architecture_file(name) for name in EVERY}
    for name, builder in EVERY.items():
        sources = {path.name for path in source_files(builder)}
        assert sources & architectures == {architecture_file(name)}


def test_every_file_of_the_package_makes_a_checkpoint_but_the_two_that_build_them() -> None:
    sources = {path for builder in EVERY.values() for path in source_files(builder)}
    others = {path.name for path in TINY.glob("*.py") if path not in sources}
    assert others == {"checkpoints.py", "registry.py"}


def test_an_edit_has_those_checkpoints_built_anew_that_are_made_from_the_file(
    tmp_path: Path,
) -> None:
    shutil.copytree(TINY, tmp_path / "tiny", ignore=shutil.ignore_patterns("__pycache__"))

    def digests() -> dict[str, str]:
        command = [sys.executable, "-B", "-c", PRINT_DIGESTS]
        printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
        return dict(json.loads(printed))

    languages = {*LLAVAS, "instruct-llm"}
    for file, expected in (
        ("clip.py", {"clip"}),
        ("llava.py", {*LLAVAS}),
        ("grammar.py", languages),
        ("tokenization.py", {*BUILDERS}),
        ("words.py", {*BUILDERS}),  # by way of tokenization.py
        ("registry.py", set()),
    ):
        before = digests()
        path = tmp_path / "tiny" / file
        path.write_text(path.read_text(encoding="utf-8") + "# an edit\n", encoding="utf-8")
        after = digests()
        assert {name for name in BUILDERS if before[name] != after[name]} == expected, file


@pytest.fixture
def contents() -> list[str]:
    """What `write` writes, a file an entry; "fail" has it fail."""
    return ["weights"]


@pytest.fixture
def write(contents: list[str]) -> Builder:
    """A builder of a checkpoint."""

    def write(directory: Path) -> None:
        for number, content in enumerate(contents):
            if content == "fail":
                raise RuntimeError("no")
            (directory / f"{number}.safetensors").write_text(content)

    return write


def test_a_complete_checkpoint_is_left_alone(
    write: Builder, contents: list[str], tmp_path: Path
) -> None:
    assert build_checkpoint("clip", write, tmp_path) == "built"
    contents[0] = "fail"
    assert build_checkpoint("clip", write, tmp_path) == "there"


def test_a_checkpoint_that_lost_a_file_is_built_again(write: Builder, tmp_path: Path) -> None:
    build_checkpoint("clip", write, tmp_path)
    (tmp_path / "clip" / "0.safetensors").unlink()
    assert build_checkpoint("clip", write, tmp_path) == "built"
    assert (tmp_path / "clip" / "0.safetensors").read_text() == "weights"


def test_a_rebuilt_checkpoint_that_is_the_same_keeps_its_files(
    write: Builder, tmp_path: Path
) -> None:
    build_checkpoint("clip", write, tmp_path)
    before = (tmp_path / "clip" / "0.safetensors").stat()
    (tmp_path / ".stamps" / "clip.json").unlink()
    assert build_checkpoint("clip", write, tmp_path) == "same"
    after = (tmp_path / "clip" / "0.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_build_that_fails_leaves_what_was_there_and_nothing_else(
    write: Builder, contents: list[str], tmp_path: Path
) -> None:
    build_checkpoint("clip", write, tmp_path)
    (tmp_path / ".stamps" / "clip.json").unlink()
    contents.append("fail")
    with pytest.raises(RuntimeError, match="no"):
        build_checkpoint("clip", write, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".stamps", "clip"]
    assert list_files(tmp_path / "clip") == {"0.safetensors": len("weights")}


def test_every_word_of_a_grammar_is_in_one_class_only() -> None:
    for words in (ANSWER_WORDS, QUESTION_WORDS):
        every = [word for text in words.values() for word in text.split()]
        assert len(every) == len(set(every))


def test_the_probabilities_of_a_grammar_add_up_to_one() -> None:
    for grammar in (
        *(kind.grammar for kind in LLAVAS.values()),
        question_grammar(),
    ):
        assert set(grammar.follow) == {*grammar.words, "start"}
        for following in grammar.follow.values():
            assert sum(following.values()) == pytest.approx(1.0)
