"""What every model of a role promises, each kind held to it with its tiny checkpoint (`TINY_OF` in
demo/tiny/registry.py): whoever adds a kind to a registry adds its line there, and this file does
the rest.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import make_models
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import shown
from chat_server import ChatServer, choosing, text_of
from conftest import DEVICE, Parameters, rounding, tiny_checkpoint
from lib.blocks import Block, models_in
from lib.data.prompts import Prompt
from lib.data.rows import InstructionRow, PickedRow
from lib.errors import ItemError, UserError
from lib.files import digest
from lib.jobs.job import Job, NoSettings
from lib.jobs.streams import Item, handing_out
from lib.model_files import WEIGHTS
from lib.models.content_checkers.base import Content, ContentChecker
from lib.models.content_checkers.registry import CONTENT_CHECKERS
from lib.models.image_generators.base import ImageGenerator
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.models.image_scorers.base import ImageScorer
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.models.instruction_authors.base import InstructionAuthor
from lib.models.instruction_authors.registry import INSTRUCTION_AUTHORS
from lib.models.policy_models.base import PolicyModel
from lib.models.policy_models.registry import POLICY_MODELS
from lib.models.policy_models.settings import ResponseSettings
from lib.models.response_generators.base import Generator
from lib.models.response_generators.chat import neutralised, special_tokens
from lib.models.response_generators.registry import GENERATORS
from lib.models.response_generators.requests import Question, Request, Sampling
from lib.models.response_rewards.base import ResponseReward
from lib.models.response_rewards.registry import RESPONSE_REWARDS
from lib.registry import Registry
from shown import kinds_held_by, showing
from tiny.registry import BUILDERS, ON_DEMAND, TINY_OF

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = REPOSITORY / "scripts"
GREEDY, SAMPLED = Sampling(12, 0.0), Sampling(12, 1.0)
#: Special tokens of some model or other; in a prompt they are text.
SPECIAL = ("[SEP]", "<|endoftext|>", "<image>", "</s>", "<|eot_id|>", "[INST]")
#: What the random run sets as well, so that a tiny model is a quick one.
SMALL = {
    "dtype": "float32",
    "height": 64,
    "width": 48,
    "candidates": [{"guidance_scale": 5.0}],
    "steps": 2,
    "max_sequence_length": 32,
    "max_model_len": 1024,
    "max_new_tokens": 12,
    "require_question": False,
    "labels": ["other", "unsafe"],
    "min_score": 0.0,
}


@dataclass(frozen=True)
class Role:
    """A registry and its protocol."""

    registry: Registry[Any]
    protocol: type


ROLES: Mapping[str, Role] = {
    "image_generators": Role(IMAGE_GENERATORS, ImageGenerator),
    "image_scorers": Role(IMAGE_SCORERS, ImageScorer),
    "instruction_authors": Role(INSTRUCTION_AUTHORS, InstructionAuthor),
    "policy_models": Role(POLICY_MODELS, PolicyModel),
    "response_generators": Role(GENERATORS, Generator),
    "response_rewards": Role(RESPONSE_REWARDS, ResponseReward),
    "content_checkers": Role(CONTENT_CHECKERS, ContentChecker),
}
ALL = [(role, kind) for role in ROLES for kind in ROLES[role].registry.kinds]


def of_role(role: str) -> pytest.MarkDecorator:
    """For tests of every kind of a role."""
    return pytest.mark.parametrize("kind", [showing(*name) for name in ALL if name[0] == role])


every_kind = pytest.mark.parametrize(("role", "kind"), ALL)
#: A policy model that runs in the job is loaded by a response generator.
every_loaded_kind = pytest.mark.parametrize(
    ("role", "kind"),
    [showing(*name, *name) for name in ALL if TINY_OF.get(name) and name[0] != "policy_models"],
)


#: Of the image generators: those that draw.
every_drawing_kind = pytest.mark.parametrize(
    "kind",
    [showing(*name) for name in ALL if name[0] == "image_generators" and TINY_OF.get(name)],
)
#: On a GPU torch convolves in TF32, of ten bits, and not alike in batches of every size.
CONVOLVED = 1e-3 if DEVICE == "cuda" else 0.0


# --- what is written of a kind


@every_kind
def test_every_kind_has_a_tiny_checkpoint_or_says_that_it_loads_no_model(
    role: str, kind: str
) -> None:
    assert (role, kind) in TINY_OF, (
        f"{role}: add the tiny checkpoint of '{kind}' to TINY_OF in demo/tiny/registry.py"
        " (docs/adding-a-model.md)"
    )
    assert TINY_OF[role, kind] in {None, *BUILDERS, *ON_DEMAND}


@pytest.mark.parametrize("section", make_models.sections(), ids=lambda section: section.role)
def test_every_row_of_docs_models_md_has_tests_of_its_contract(
    section: make_models.Section,
) -> None:
    tried = {(section.role, row.kind) for row in section.rows if row.tiny != make_models.NOT_TRIED}
    missing = tried - kinds_held_by(import_module(section.test))
    assert missing == set(), (
        f"tests/{section.test}.py: no test has the mark shows{min(missing)} (tests/shown.py)"
    )
    said = "say in its Settings, or in FAMILIES (demo/tiny/registry.py), what it takes"
    assert {row.kind for row in section.rows if not row.takes} == set(), said
    others = {kind for role, kind in make_models.ON_A_GPU if role == section.role}
    assert others <= {row.kind for row in section.rows}


def test_a_row_is_shown_where_all_tests_of_its_contract_ran_and_none_failed() -> None:
    def report(outcome: Any, kind: str, when: Any = "call") -> pytest.TestReport:
        told = [(shown.PROPERTY, ["image_scorers", kind, 2])]
        return pytest.TestReport("", ("", 0, ""), {}, outcome, None, when, user_properties=told)

    session = shown.Shown()
    for kind, outcomes in {
        "clip": ("passed", "passed"),
        "blip": ("passed", "skipped"),
        "siglip": ("passed",),
        "vqascore": ("skipped", "skipped"),
        "image-reward": ("passed", "failed"),
    }.items():
        for outcome in outcomes:
            session.pytest_runtest_logreport(report("passed", kind, "setup"))
            session.pytest_runtest_logreport(report(outcome, kind))
    assert {kind for _, kind in session.kinds()} == {"clip", "blip"}
    session.pytest_runtest_logreport(report("failed", "clip", "teardown"))
    text = "\n".join(session.lines())
    assert "Image scorers" in text
    assert "| `blip` | `BLIPScore` |" in text
    assert "`clip`" not in text


def test_the_table_of_tiny_checkpoints_names_no_kind_that_is_not_there() -> None:
    assert TINY_OF.keys() <= set(ALL)


@every_kind
def test_a_class_has_a_version_and_a_block_of_settings_that_names_its_kind(
    role: str, kind: str
) -> None:
    registry = ROLES[role].registry
    cls = registry.load(kind)
    assert type(cls.VERSION) is int
    assert cls.VERSION >= 1
    assert issubclass(cls.Settings, Block)
    named = cls.Settings.model_fields[registry.key].annotation
    assert get_origin(named) is Literal
    assert get_args(named) == (kind,)


@every_kind
def test_a_class_has_all_that_its_protocol_asks_for(role: str, kind: str) -> None:
    protocol, cls = ROLES[role].protocol, ROLES[role].registry.load(kind)
    if role == "image_generators" and not cls.Settings.IS_DRAWN:
        pytest.skip("it generates nothing")
    names = [name for name in vars(protocol) if not name.startswith("_")]
    assert names
    assert [name for name in names if not callable(getattr(cls, name, None))] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_protocol_is_read_on_one_page(role: str) -> None:
    text = (SCRIPTS / f"lib/models/{role}/base.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60


def test_importing_a_model_s_file_imports_no_library_that_runs_models() -> None:
    modules = sorted(
        {target.split(":")[0] for role in ROLES.values() for target in role.registry.kinds.values()}
    )
    code = f"""
import sys
from importlib import import_module
for name in {modules}:
    import_module(name)
    heavy = {{"torch", "transformers", "diffusers", "vllm", "numpy", "PIL"}} & set(sys.modules)
    if heavy:
        sys.exit(f"{{name}} imports {{', '.join(sorted(heavy))}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- loading


def settings_of(role: str, kind: str, folder: Path) -> Any:
    """The settings of a kind with the model of a folder."""
    registry = ROLES[role].registry
    fields = registry.settings_of(kind).model_fields
    model = {"model": str(folder)}
    values = {"llm": model | {"dtype": "float32"}} if "llm" in fields else model
    small = {name: value for name, value in SMALL.items() if name in fields}
    return registry.validate({registry.key: kind, **values, **small})


def job_in(root: Path, device: str = DEVICE, seed: int = 0) -> Job[NoSettings]:
    """A job of a rule that is told nothing of its own."""
    common = {"root": str(root), "device": device, "seed": seed, "max_failed_fraction": 1.0}
    rule = SimpleNamespace(rule="write", wildcards=[], params=Parameters(common=common))
    return Job(rule, NoSettings, 1)


def author_of(settings: Any, root: Path, device: str = DEVICE, seed: int = 0) -> Any:
    """An author of instructions for a job, and the prompts that are written about."""
    job = job_in(root, device, seed)
    written = settings.read_written([prompt_of(text) for text in TEXTS])
    return INSTRUCTION_AUTHORS.class_of(settings)(settings, job, written)


def load(role: str, settings: Any, device: str, sampling: Sampling = GREEDY) -> Any:
    """The loaded model of settings; an author's is let go at once."""
    cls = ROLES[role].registry.class_of(settings)
    if role == "response_generators":
        return cls.load(settings, device, sampling, with_images=True, batch_size=4)
    if role == "instruction_authors":
        with author_of(settings, Path(), device).at_work() as writer:
            return writer
    return cls.load(settings, device)


@pytest.fixture(scope="session")
def demo_models(demo_models: Path) -> Path:
    """The tiny checkpoints, with those that are built on demand."""
    for name in sorted({str(name) for name in TINY_OF.values()} & ON_DEMAND.keys()):
        tiny_checkpoint(demo_models, name)
    return demo_models


def chosen(body: Any) -> Any:
    """What a model at an endpoint says that is asked for a rating, or for Yes or No."""
    options = ("Yes", "No") if "Yes or No" in text_of(body) else "12345"
    return choosing(*options)(body)


@every_loaded_kind
def test_a_folder_without_weights_is_told_before_the_run_and_a_whole_one_is_let_pass(
    role: str, kind: str, demo_models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(demo_models / str(TINY_OF[role, kind]), folder)
    [model] = models_in(settings_of(role, kind, folder)).values()
    assert model.problem_with_files(folder) is None
    for path in folder.rglob("*"):
        if path.suffix in WEIGHTS:
            path.unlink()
    assert model.problem_with_files(folder)


@pytest.fixture(scope="module")
def loaded(demo_models: Path) -> Iterator[Callable[..., Any]]:
    """The loaded tiny model of a kind, or the connection to one at an endpoint, once for all."""

    def at_endpoint(role: str, kind: str) -> Any:
        settings = {ROLES[role].registry.key: kind, "endpoint": server.settings()}
        return connections.enter_context(
            load(role, ROLES[role].registry.validate(settings), DEVICE)
        )

    @cache
    def get(role: str, kind: str, sampling: Sampling = GREEDY) -> Any:
        if TINY_OF[role, kind] is None:
            return at_endpoint(role, kind)
        folder = demo_models / str(TINY_OF[role, kind])
        return load(role, settings_of(role, kind, folder), DEVICE, sampling)

    with ExitStack() as connections:
        server = ChatServer(chosen, api_key_variable=None)
        connections.callback(server.close)
        yield get


@pytest.fixture
def copied(
    demo_models: Path, tmp_path: Path, loaded: Callable[..., Any]
) -> Callable[[str, str], tuple[Path, Any]]:
    """A copy of a kind's tiny checkpoint to break, and settings with it."""

    def copy(role: str, kind: str) -> tuple[Path, Any]:
        loaded(role, kind)  # it is whole, and what loading imports is imported
        folder = tmp_path / "broken"
        shutil.copytree(demo_models / str(TINY_OF[role, kind]), folder)
        return folder, settings_of(role, kind, folder)

    return copy


def weights_of(folder: Path) -> list[Path]:
    """The files that hold tensors."""
    return sorted([*folder.rglob("*.safetensors"), *folder.rglob("*.pt")])


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor], str], object]) -> None:
    """Saves a file of tensors anew, changed by a function of them and of the last one's name."""
    is_safe = path.suffix == ".safetensors"
    state = load_file(path) if is_safe else torch.load(path, weights_only=True)
    change(state, max(state, key=lambda name: (state[name].is_floating_point(), name)))
    if is_safe:
        save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)


def take_a_tensor_out(path: Path) -> None:
    change_tensors(path, lambda state, name: state.pop(name))


def take_a_matrix_out(path: Path) -> None:
    def take_out(state: dict[str, torch.Tensor], _: str) -> None:
        matrices = [
            name for name in state if state[name].ndim == 2 and state[name].is_floating_point()
        ]
        del state[min(matrices, key=lambda name: ("lm_head" not in name, name))]

    change_tensors(path, take_out)


def put_a_tensor_in(path: Path) -> None:
    change_tensors(path, lambda state, name: state.update({f"{name}.another": torch.zeros(2)}))


def give_a_tensor_another_shape(path: Path) -> None:
    def lengthen(state: dict[str, torch.Tensor], name: str) -> None:
        state[name] = torch.cat([state[name], state[name]]).contiguous()

    change_tensors(path, lengthen)


def cut_in_half(path: Path) -> None:
    """What is left of a download that was broken off."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def assert_one_message(role: str, settings: Any, folder: Path, monkeypatch: Any) -> None:
    """Asserts that loading ends in a message of ours that names the folder, before the model would
    be put onto a GPU: on this machine torch has none, and would say so.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises((UserError, ValueError)) as error:
        load(role, settings, "cpu" if "vllm" in str(settings) else "cuda")
    assert str(folder) in str(error.value)


@every_loaded_kind
def test_an_empty_folder_is_one_message(
    role: str, kind: str, copied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = copied(role, kind)
    shutil.rmtree(folder)
    folder.mkdir()
    assert_one_message(role, settings, folder, monkeypatch)
    with pytest.raises(ValueError, match="holds no model"):
        settings_of(role, kind, folder)


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        cut_in_half,
        take_a_tensor_out,
        take_a_matrix_out,
        put_a_tensor_in,
        give_a_tensor_another_shape,
    ],
)
@every_loaded_kind
def test_a_folder_with_a_damaged_file_of_weights_is_one_message_before_a_gpu_is_asked_for(
    role: str, kind: str, damage: Callable[[Path], object], copied: Any, monkeypatch: Any
) -> None:
    folder, settings = copied(role, kind)
    files = weights_of(folder)
    assert files
    for path in files:
        content = path.read_bytes()
        damage(path)
        assert_one_message(role, settings, folder, monkeypatch)
        path.write_bytes(content)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@every_loaded_kind
def test_a_device_that_is_not_there_is_one_message(role: str, kind: str, copied: Any) -> None:
    _, settings = copied(role, kind)
    with pytest.raises(UserError, match="this machine shows no CUDA GPU"):
        load(role, settings, "cuda")


def tensors_in(thing: Any) -> Iterator[torch.Tensor]:
    """The weights of a loaded model: of its modules, its tables of tensors, its pipeline."""
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, torch.nn.Module):
        yield from thing.parameters()
    elif isinstance(thing, Mapping):
        for each in thing.values():
            yield from tensors_in(each)
    elif hasattr(thing, "log_probabilities"):
        yield from tensors_in(vars(thing))
    elif hasattr(thing, "components"):
        yield from tensors_in(thing.components)


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        name
        for name in ALL
        if TINY_OF.get(name)
        and name[0] not in ("instruction_authors", "policy_models")
        and "vllm" not in name
    ],
)
def test_all_weights_are_on_the_device_of_the_settings(role: str, kind: str, copied: Any) -> None:
    """The device "meta" holds no numbers, which loading needs none of."""
    _, settings = copied(role, kind)
    tensors = list(tensors_in(vars(load(role, settings, "meta"))))
    assert tensors
    assert {tensor.device.type for tensor in tensors} == {"meta"}


# --- image generators

PROMPT = "two red cats on a blue sofa"
WITH_SPECIAL = f"a cat {' '.join(SPECIAL)} and a dog"


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image).astype(int)


@every_drawing_kind
def test_images_are_a_function_of_prompt_scale_and_seed(kind: str, loaded: Any) -> None:
    generator = loaded("image_generators", kind)
    images = generator.generate(PROMPT, [5.0, 9.0], [1, 2])
    assert [(image.mode, image.size) for image in images] == [("RGB", (48, 64))] * 2
    again = generator.generate(PROMPT, [5.0, 9.0], [1, 2])
    assert [image.tobytes() for image in again] == [image.tobytes() for image in images]
    for prompt, scale, seed in (("snow", 5.0, 1), (PROMPT, 6.0, 1), (PROMPT, 5.0, 3)):
        (other,) = generator.generate(prompt, [scale], [seed])
        assert other.tobytes() != images[0].tobytes()


@pytest.mark.numeric
@every_drawing_kind
def test_an_image_is_the_same_alone_and_in_a_batch_but_for_rounding(kind: str, loaded: Any) -> None:
    generator = loaded("image_generators", kind)
    together = generator.generate(PROMPT, [5.0, 9.0, 7.0], [1, 2, 3])
    (alone,) = generator.generate(PROMPT, [9.0], [2])
    assert np.abs(pixels(alone) - pixels(together[1])).max() <= 2
    assert np.abs(pixels(alone) - pixels(together[0])).max() > 2


@every_drawing_kind
@pytest.mark.parametrize("prompt", ["", WITH_SPECIAL, "猫が三匹 😀", "one more cat and " * 60])
def test_any_prompt_can_be_drawn(kind: str, loaded: Any, prompt: str) -> None:
    (image,) = loaded("image_generators", kind).generate(prompt, [5.0], [1])
    assert image.size == (48, 64)


@pytest.mark.shows("image_generators", "folder")
def test_a_folder_s_pictures_are_those_of_the_prompts_whose_ids_they_are_named_by(
    tmp_path: Path,
) -> None:
    prompts = [Prompt("art", PROMPT), Prompt("art", "a blue dog")]
    for name in (f"{prompts[0].id}.png", f"{prompts[0].id}_1.png", "other.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    found = IMAGE_GENERATORS.validate({"folder": str(tmp_path)}).read_pictures(prompts)
    names = {prompt: [each["name"] for each in pictures] for prompt, pictures in found.items()}
    assert names.pop(prompts[0].id) == [f"{prompts[0].id}.png", f"{prompts[0].id}_1.png"]
    assert not any(names.values())


# --- image scorers


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Images of several sizes and shapes."""
    generator = np.random.default_rng(0)
    sizes = [(64, 64), (100, 72), (40, 90)]
    return [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


@pytest.mark.numeric
@of_role("image_scorers")
def test_a_prompt_s_score_of_an_image_is_the_same_alone_and_in_a_batch(
    kind: str, loaded: Any, images: list[Image.Image]
) -> None:
    scorer = loaded("image_scorers", kind)
    scores = scorer.score(PROMPT, images)
    assert {type(score) for score in scores} == {float}
    assert len(set(scores)) == len(images)
    alone = [scorer.score(PROMPT, [image])[0] for image in images]
    near = rounding(128)
    assert scores == pytest.approx(alone, rel=near, abs=near)
    assert scorer.score(PROMPT, images[::-1]) == pytest.approx(scores[::-1], rel=near, abs=near)
    assert scorer.score(PROMPT, []) == []


@of_role("image_scorers")
@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_in_a_prompt_are_text_to_a_scorer(
    kind: str, token: str, loaded: Any, images: list[Image.Image]
) -> None:
    """A model that answers questions is given them with a blank inside. The other tokenizers here
    do not tell capitals from small letters, but no special token is spelt in capitals and in small
    letters: as text both spellings are the same. An endpoint is sent it as it is.
    """
    scorer = loaded("image_scorers", kind)
    text = f"a cat {token} a dog"
    asked = getattr(scorer, "generator", None)
    as_text = neutralised(text, asked.processor) if asked else text.replace(token, token.swapcase())
    as_text = as_text if TINY_OF["image_scorers", kind] else text
    scores = scorer.score(text, images)
    assert scores == scorer.score(as_text, images)
    assert scores != scorer.score("a cat a dog", images)


@of_role("image_scorers")
def test_a_prompt_is_said_to_be_cut_if_its_end_makes_no_difference(
    kind: str, loaded: Any, images: list[Image.Image]
) -> None:
    scorer = loaded("image_scorers", kind)
    long = "one more cat and " * 60
    is_cut = scorer.score(long, images) == scorer.score(f"{long} a dog", images)
    assert (scorer.truncates(PROMPT), scorer.truncates(long)) == (False, is_cut)


# --- response generators


@pytest.fixture
def requests(tmp_path: Path, images: list[Image.Image]) -> list[Request]:
    """Questions of different lengths about different images."""
    texts = ("What is it?", "How many cats are in the image, and what are they doing?", "Where?")
    paths = [tmp_path / f"{number}.png" for number in range(len(texts))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return [
        Request(text, seed, path)
        for seed, (text, path) in enumerate(zip(texts, paths, strict=True))
    ]


@pytest.mark.numeric
@of_role("response_generators")
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_an_answer_is_the_same_alone_and_in_a_batch(
    kind: str, sampling: Sampling, loaded: Any, requests: list[Request]
) -> None:
    generator = loaded("response_generators", kind, sampling)
    together = generator.generate(requests)
    assert together == [generator.generate([request])[0] for request in requests]
    assert len({answer.text for answer in together}) > 1
    for answer in together:
        assert answer.finish_reason in ("stop", "length")
        assert 0 < answer.tokens <= sampling.max_new_tokens
        assert answer.text == answer.text.strip()


@of_role("response_generators")
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_a_stream_gives_each_request_its_answer_alone_and_fails_no_other_than_who_is_at_fault(
    kind: str, sampling: Sampling, loaded: Any, requests: list[Request], tmp_path: Path
) -> None:
    generator = loaded("response_generators", kind, sampling)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    asked = [Request(each.text, seed, each.image) for seed in range(3) for each in requests]
    items = [Item(str(number), "", request) for number, request in enumerate(asked)]
    items.insert(2, Item("broken", "", Request("What is there?", 0, broken)))
    take = handing_out(items)
    ended = [pair for each in generator.stream(take, print) for pair in each]
    assert sorted(item.id for item, _ in ended) == sorted(item.id for item in items)
    answers = {item.id: answer for item, answer in ended}
    assert isinstance(answers.pop("broken"), Exception)
    assert [answers[item.id] for item in items if item.id in answers] == [
        generator.generate([request])[0] for request in asked
    ]
    assert list(generator.stream(take, print)) == []


@of_role("response_generators")
def test_a_sampled_answer_is_a_function_of_its_seed(
    kind: str, loaded: Any, requests: list[Request]
) -> None:
    generator = loaded("response_generators", kind, SAMPLED)
    request = requests[0]
    seeded = [Request(request.text, seed, request.image) for seed in (7, 8, 7)]
    first, other, again = generator.generate(seeded)
    assert first == again
    assert first != other
    assert [first] == generator.generate(seeded[:1])


@of_role("response_generators")
def test_special_tokens_in_a_question_are_text_to_a_generator(
    kind: str, loaded: Any, requests: list[Request]
) -> None:
    generator = loaded("response_generators", kind)
    tokens = {*SPECIAL, *special_tokens(generator.processor)}
    for token in sorted(token for token in tokens if len(token) > 1):
        text = f"How many {token} cats?"
        as_text = neutralised(text, generator.processor)
        asked = [Request(each, 0, requests[0].image) for each in (text, as_text)]
        answer, answer_to_text = generator.generate(asked)
        assert answer == answer_to_text


@pytest.mark.numeric
@of_role("response_generators")
def test_the_probability_of_a_given_answer_is_the_same_alone_and_in_a_batch(
    kind: str, loaded: Any, images: list[Image.Image]
) -> None:
    generator = loaded("response_generators", kind)
    questions = [Question(f"Is it {n} cats{' or dogs' * n}?", im) for n, im in enumerate(images)]
    answers = ["Yes", "No", "No", "Two blue cats", "Two blue"]
    rows = generator.log_probabilities(questions, answers)
    near = max(rounding(256), CONVOLVED)
    for question, row in zip(questions, rows, strict=True):
        (alone,) = generator.log_probabilities([question], answers)
        assert row == pytest.approx(alone, rel=near, abs=near)
        yes, no, again, longer, shorter = row
        assert no == again != yes
        assert longer < shorter < 0
    assert len({row[0] for row in rows}) == len(rows)
    assert generator.log_probabilities([], answers) == []


@of_role("response_generators")
def test_what_a_generator_answers_greedily_is_its_likeliest_answer(
    kind: str, loaded: Any, requests: list[Request]
) -> None:
    generator = loaded("response_generators", kind)
    for request in requests[:2]:
        first = generator.generate([request])[0].text.split()[0]
        question = Question(request.text, Image.open(str(request.image)).convert("RGB"))
        (row,) = generator.log_probabilities([question], [first, "zebra", "Yes", "seven"])
        assert max(row) == row[0]


# --- response rewards

QUESTION = {"role": "user", "content": "What is on the table?"}
ANSWERS = ("A cup.", "Two red cups and a blue plate are on the table.", "")


@pytest.fixture
def conversations(kind: str, requests: list[Request]) -> list[list[dict[str, str]]]:
    """Answers to a question, about an image where the kind sees it."""
    sees = RESPONSE_REWARDS.load(kind).Settings.SEES_IMAGE
    asked = QUESTION | ({"image": str(requests[0].image)} if sees else {})
    return [[asked, {"role": "assistant", "content": answer}] for answer in ANSWERS]


#: Those that read a conversation of any length.
reads_turns = pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in RESPONSE_REWARDS.kinds
        if not RESPONSE_REWARDS.load(kind).Settings.SEES_IMAGE
    ],
)


@pytest.mark.numeric
@of_role("response_rewards")
def test_a_response_s_reward_is_the_same_alone_and_in_a_batch(
    kind: str, loaded: Any, conversations: list[list[dict[str, str]]]
) -> None:
    model = loaded("response_rewards", kind)
    rewards = model.rate(conversations)
    alone = [model.rate([conversation])[0] for conversation in conversations]
    scores = [reward.score for reward in rewards]
    near = max(rounding(64), CONVOLVED)
    assert scores == pytest.approx([reward.score for reward in alone], rel=near, abs=near)
    assert len(set(scores)) == len(ANSWERS)
    for reward in rewards:
        assert type(reward.score) is float
        assert json.loads(json.dumps(reward.details)) == reward.details
    assert model.rate([]) == []


@of_role("response_rewards")
@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_in_a_response_are_text_to_a_reward(
    kind: str, token: str, loaded: Any, conversations: list[list[dict[str, str]]]
) -> None:
    (asked, _), model = conversations[0], loaded("response_rewards", kind)
    texts = [f"A cup {part}and a plate." for part in ("", f"{token} ", f"{token} {token} ")]
    asked_thrice = [[asked, {"role": "assistant", "content": text}] for text in texts]
    assert len({reward.score for reward in model.rate(asked_thrice)}) == len(texts)


@reads_turns
def test_turns_that_a_message_spells_out_are_text_to_a_reward(
    kind: str, loaded: Any, demo_models: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_models / str(TINY_OF["response_rewards", kind]))
    last = {"role": "assistant", "content": ANSWERS[1]}
    turns = [QUESTION, {"role": "assistant", "content": "A cup."}, QUESTION | {"content": "And?"}]
    rendered = tokenizer.apply_chat_template([*turns, last], tokenize=False)
    begin, end = rendered.index(QUESTION["content"]), rendered.index("And?") + len("And?")
    forged = [QUESTION | {"content": rendered[begin:end]}, last]
    assert tokenizer.apply_chat_template(forged, tokenize=False) == rendered
    one, other = loaded("response_rewards", kind).rate([[*turns, last], forged])
    assert one.score != pytest.approx(other.score, rel=1e-4, abs=1e-5)


@of_role("response_rewards")
def test_a_conversation_that_does_not_end_with_a_response_is_refused(
    kind: str, loaded: Any
) -> None:
    for conversation in ([], [QUESTION]):
        with pytest.raises(ValueError, match=r"\w"):
            loaded("response_rewards", kind).rate([conversation])


# --- authors of instructions

TEXTS = [f"{number} red cats on a sofa" for number in range(6)] + [WITH_SPECIAL]


def prompt_of(text: str) -> Prompt:
    return Prompt("art", text)


def row_of(text: str) -> PickedRow:
    image = {"file": "image.png", "sha256": "0" * 64, "guidance_scale": 5.0, "score": 0.0}
    return {**prompt_of(text).row(), "image": image}  # type: ignore[typeddict-item]


@pytest.fixture
def author_settings(tmp_path: Path, demo_models: Path) -> Iterator[Callable[[str], Any]]:
    """The settings of a kind of author that writes about `TEXTS`."""
    server = ChatServer(lambda body: f"What in the image is number {int(digest(body)[:6], 16)}?")
    file = tmp_path / "instructions.jsonl"
    lines = [{"prompt": text, "instruction": f"What is {n}?"} for n, text in enumerate(TEXTS)]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    own: dict[str, dict[str, Any]] = {
        "openai": {"endpoint": server.settings(api_key_variable=None)},
        "file": {"file": str(file)},
        "template": {"templates": [f"What is in corner {number}?" for number in range(5)]},
    }

    def make(kind: str) -> Any:
        tiny = TINY_OF["instruction_authors", kind]
        if tiny is None:
            return INSTRUCTION_AUTHORS.validate({"backend": kind, **own[kind]})
        return settings_of("instruction_authors", kind, demo_models / tiny)

    yield make
    server.close()


def write(author: Any, texts: list[str]) -> dict[str, Any]:
    """What an author writes of each text, or why it writes nothing."""
    items = [Item(text, text, author.prepare(row_of(text))[1]) for text in texts]
    with author.at_work() as writer:
        return results_by_id(writer, items)


def results_by_id(stream: Any, items: list[Item[Any]]) -> dict[str, Any]:
    """What a stream gives of items, or why it gives nothing."""
    return {
        item.id: outcome_of(result)
        for ended in stream(handing_out(items))
        for item, result in ended
    }


def outcome_of(result: Any) -> Any:
    """A written instruction, or why there is none."""
    try:
        result = result.result() if isinstance(result, Future) else result
    except ItemError as error:
        result = error
    return str(result) if isinstance(result, ItemError) else result


@of_role("instruction_authors")
def test_an_instruction_depends_on_what_is_in_its_key_and_on_nothing_else(
    kind: str, author_settings: Any, tmp_path: Path
) -> None:
    settings = author_settings(kind)
    author = author_of(settings, tmp_path)
    results = write(author, TEXTS)
    assert any(isinstance(result, dict) for result in results.values()), results
    assert write(author_of(settings, tmp_path), TEXTS[::-1]) == results
    other = author_of(settings, tmp_path, seed=1)
    for text, result in write(other, TEXTS).items():
        decides, decides_with_other_seed = (
            each.prepare(row_of(text))[0] for each in (author, other)
        )
        assert json.dumps(decides)
        if result != results[text]:
            assert decides != decides_with_other_seed


@of_role("instruction_authors")
def test_prompts_have_keys_of_their_own(kind: str, author_settings: Any, tmp_path: Path) -> None:
    author = author_of(author_settings(kind), tmp_path)
    keys = {json.dumps(author.prepare(row_of(text))[0], sort_keys=True) for text in TEXTS}
    assert len(keys) == len(TEXTS)


# --- policy models

ANSWERING = ResponseSettings(max_new_tokens=12, max_model_len=1024, temperature=1.0)


@pytest.fixture
def instructed(tmp_path: Path, images: list[Image.Image]) -> list[InstructionRow]:
    """Prompts with their picked images and instructions."""
    rows: list[Any] = []
    for number, image in enumerate(images):
        row, file = row_of(TEXTS[number]), f"{number}.png"
        image.save(tmp_path / file)
        picked = {**row["image"], "file": file, "sha256": str(number) * 64}
        rows.append({**row, "image": picked, "instruction": f"What is in image {number}?"})
    return rows


@pytest.fixture
def policy_settings(tmp_path: Path, demo_models: Path) -> Iterator[Callable[[str], Any]]:
    """The settings of a kind of policy model that answers twice."""
    server = ChatServer(lambda body: f"It is {digest(body)[:6]}.")
    file = tmp_path / "answers.jsonl"
    lines = [{"prompt": text, "response": f"{text}, {n}."} for text in TEXTS[:3] for n in (1, 2)]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    own: dict[str, dict[str, Any]] = {
        "file": {"file": str(file)},
        "openai": {"endpoint": server.settings(api_key_variable=None)},
    }

    def make(kind: str) -> Any:
        tiny = TINY_OF["policy_models", kind]
        model = {"model": str(demo_models / tiny), "dtype": "float32"} if tiny else own[kind]
        return POLICY_MODELS.validate({"backend": kind, "samples": 2, **model})

    yield make
    server.close()


def policy_in(root: Path, settings: Any, seed: int = 0) -> Any:
    """A policy model for a job in a run's folder."""
    written = settings.read_written([prompt_of(text) for text in TEXTS[:3]]) or {}
    policy = POLICY_MODELS.class_of(settings)
    return policy(settings, ANSWERING, job_in(root, seed=seed), written)


def answer(policy: Any, rows: list[InstructionRow]) -> dict[tuple[str, int], Any]:
    """What a policy model answers to each prompt, twice, or why it does not."""
    asked = [(row, sample) for row in rows for sample in (1, 2)]
    items = [
        Item(f"{row['id']}#{sample}", "", policy.prepare(row, sample)[1]) for row, sample in asked
    ]
    with policy.at_work() as answerer:
        results = results_by_id(answerer, items)
    return {(row["id"], sample): results[f"{row['id']}#{sample}"] for row, sample in asked}


@of_role("policy_models")
def test_an_answer_of_a_policy_model_depends_on_what_is_in_its_key_and_on_nothing_else(
    kind: str, policy_settings: Any, instructed: list[InstructionRow], tmp_path: Path
) -> None:
    settings = policy_settings(kind)
    policy = policy_in(tmp_path, settings)
    results = answer(policy, instructed)
    for result in results.values():
        assert json.loads(json.dumps(result)) == result
        assert result["text"] == result["text"].strip() != ""
        assert result["finish_reason"] in ("stop", "length")
    assert len({result["text"] for result in results.values()}) == len(results)
    assert answer(policy_in(tmp_path, settings), instructed[::-1]) == results
    other = policy_in(tmp_path, settings, seed=1)
    for (name, sample), result in answer(other, instructed[:1]).items():
        decides, decides_with_other_seed = (
            each.prepare(instructed[0], sample)[0] for each in (policy, other)
        )
        if result != results[name, sample]:
            assert decides != decides_with_other_seed


@of_role("policy_models")
def test_each_answer_of_a_policy_model_has_a_key_of_its_own(
    kind: str, policy_settings: Any, instructed: list[InstructionRow], tmp_path: Path
) -> None:
    policy = policy_in(tmp_path, policy_settings(kind))
    keys = {
        json.dumps(policy.prepare(row, sample)[0], sort_keys=True)
        for row in instructed
        for sample in (1, 2)
    }
    assert len(keys) == 2 * len(instructed)


# --- content checkers


@of_role("content_checkers")
def test_what_a_content_checker_finds_is_the_same_again_and_of_what_it_was_shown(
    kind: str, demo_models: Path, images: list[Image.Image]
) -> None:
    tiny = TINY_OF["content_checkers", kind]
    if kind == "presidio":
        pytest.importorskip("presidio_analyzer")
    settings = (
        settings_of("content_checkers", kind, demo_models / tiny)
        if tiny
        else CONTENT_CHECKERS.validate({"kind": kind, "min_score": 0.0})
    )
    checker = load("content_checkers", settings, DEVICE)
    texts = {"prompt": PROMPT, "responses/a": "Write to jane.doe@example.org."}
    contents = [Content(image, texts) for image in images]
    findings = [checker.find(content) for content in contents]
    assert all(findings)
    assert findings == [checker.find(content) for content in contents]
    for finding in [each for of_one in findings for each in of_one]:
        assert finding["of"] in ("image", *texts)
        assert settings.min_score <= finding["score"] <= 1
        assert "jane" not in json.dumps(finding)
