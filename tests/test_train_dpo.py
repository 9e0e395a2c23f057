"""Rule train_dpo: real vision DPO whose results are the same bytes, whatever stopped it."""

import copy
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import train_dpo
from conftest import DEVICE, PYTHONPATH, Parameters
from lib.blocks import Model
from lib.config.training import Experiment, TrainDpoJob, Training
from lib.data.controls import Control, is_exchanged
from lib.data.data_sets import DataSetPair, RatedResponse, Split
from lib.data.export_forms.base import Contents
from lib.data.export_forms.trl_parquet import TrlParquet
from lib.errors import UserError
from lib.files import read_jsonl, write_json
from lib.jobs.job import REUSE_FROM, Job
from lib.jobs.kept import MARKER
from lib.report.training_figure import draw_training
from lib.training.base import TrainingJob
from lib.training.checkpoints import (
    is_finished,
    last_checkpoint,
    metrics_of,
    state_at,
)
from lib.training.dpo import DPO, build_trainer, training_arguments
from lib.training.image_tokens import load_processor
from lib.training.launch import Progress, launch, what_stopped_them
from lib.training.messages import LAST_LINES, WorkerError, first_error, leaving_errors
from lib.training.pairs_digest import PairsDigest, digest_pairs
from lib.training.preference_data import preference_dataset
from lib.training.registry import TRAINERS
from lib.training.settings import TrainingSettings
from lib.weights import folder_identity

TEMPLATE = "USER: <image>\n{instruction} ASSISTANT:"
PAIRS = [
    (
        "What stands near the table?",
        "A small lamp stands near the table.",
        "The dog watches some trees.",
    ),
    (
        "How many objects are visible?",
        "Two.",
        "Every man holds a lamp and a ball and a book near buildings.",
    ),
    ('Is "{instruction}" a {brace}?', "No", "Yes, 100% {of it} 'quoted'."),
    ("What is it? 🙂 שלום", "A café – “here”.", "Nothing."),
    ("Which colour is the ball?", "The ball is red.", "The ball is blue."),
    ("Who sits on the bench?", "A woman sits there.", "Nobody."),
    ("What moves behind the house?", "A train moves behind the house.", "A cat."),
    ("How many windows are open?", "Three windows are open.", "3"),
    ("Is there a bridge?", "Yes, a long one.", "No."),
    ("What hangs above the door?", "A flag hangs above the door.", "A lamp hangs under the door."),
]
#: 10 pairs in two processes are five batches each: the last update of an epoch has fewer pairs than
#: the others.
SETTINGS: dict[str, Any] = {
    "processes": 2,
    "zero_stage": 2,
    "gradient_accumulation": 2,
    "epochs": 4,
    "save_steps": 3,
    "learning_rate": 1e-3,
    "lora_rank": 8,
    "lora_alpha": 16,
    "max_length": 128,
    "warmup_ratio": 0.0,
}
UPDATES = 12


def write_pairs(
    folder: Path,
    pairs: list[tuple[str, str, str]],
    held_out: Sequence[tuple[str, str, str]] = (),
) -> Path:
    """A data set as merge_pairs writes it; returns its summary file."""
    splits: dict[Split, Sequence[tuple[str, str, str]]] = {"train": pairs}
    if held_out:
        splits["validation"] = held_out
    folder.mkdir(parents=True, exist_ok=True)
    contents = Contents("test", {split: len(texts) for split, texts in splits.items()})
    with TrlParquet.write(folder, contents) as add:
        for split, texts in splits.items():
            for number, (instruction, chosen, rejected) in enumerate(texts):
                add(split, a_pair(number, instruction, chosen, rejected))
    write_json(folder / "dataset.json", {"size": len(pairs)})
    return folder / "dataset.json"


def a_pair(number: int, instruction: str, chosen: str, rejected: str) -> DataSetPair:
    """A pair with a picture of its own."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (64, 64), (40 * number % 256, 255 - 20 * number, 90))
    ImageDraw.Draw(picture).ellipse([5, 5, 20 + 4 * number, 40], fill=(200, 17 * number % 256, 30))
    encoded = BytesIO()
    picture.save(encoded, "png")
    return DataSetPair(
        id=f"art-{number:010x}",
        topic="art",
        image_prompt=f"picture {number}",
        instruction=instruction,
        chosen=RatedResponse("a", chosen, 1.0, {}),
        rejected=RatedResponse("b", rejected, 0.0, {}),
        margin=1.0,
        source=Path(f"{number}.png"),
        image=encoded.getvalue(),
        image_file=f"images/art/{number}.png",
        image_sha256="",
        image_reward=0.0,
        image_seed=number,
        guidance_scale=7.0,
    )


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("dataset"), PAIRS)


#: The same updates on a machine with one GPU, and without DeepSpeed.
ON_A_GPU = {"processes": 1, "zero_stage": 0, "gradient_accumulation": 4}
#: Of the default settings, computed by the code of that commit.
KEY_OF_B7F97EC = "ffc79517af80d99be2cf7aa8d162addb63d7414272bf4613bd37173c4ecfc1f9"


class Run:
    """An experiment in a run's folder, and the rule's job on it in a process of its own, as
    Snakemake would start it.
    """

    def __init__(self, folder: Path, base: Path, dataset: Path, **settings: Any) -> None:
        self.folder = folder
        self.base = base
        self.dataset = dataset
        values = SETTINGS | (ON_A_GPU if DEVICE == "cuda" else {}) | settings
        self.settings = TrainingSettings(**values).model_dump(mode="json")
        self.models = folder / "models" / "test"
        self.control: Control | None = None
        self.also_on_path = ""

    def start(self) -> "subprocess.Popen[str]":
        params = {
            "root": str(self.folder),
            "model": str(self.base),
            "dataset": str(self.dataset),
            "training": self.settings,
        }
        params |= {"control": self.control} if self.control else {}
        return subprocess.Popen(
            [sys.executable, __file__, json.dumps(params)],
            env=os.environ | {"PYTHONPATH": f"{PYTHONPATH}:{self.also_on_path}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, code: int = 0) -> str:
        process = self.start()
        output, _ = process.communicate()
        assert process.returncode == code, output
        return output

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "work" / "train_dpo" / "test.json").read_text()))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return read_jsonl(self.models / "metrics.jsonl")

    def published(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.models).as_posix(): path.read_bytes()
            for path in sorted(self.models.rglob("*"))
            if path.is_file()
        }

    def checkpoint_appears(self, process: "subprocess.Popen[str]") -> None:
        """Waits until the training has a complete checkpoint."""
        while not list(self.folder.glob("work/train_dpo/test/*/checkpoints/*/complete.json")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)


def as_snakemake(params: dict[str, Any]) -> SimpleNamespace:
    """What Snakemake would hand to the script."""
    models = Path(params["root"], "models", "test")
    (models / "adapter").mkdir(parents=True, exist_ok=True)
    settings = TrainDpoJob(
        base_model=Model(model=params["model"], dtype="float32"),
        prompt_template=TEMPLATE,
        training=params["training"],
        control=params.get("control"),
    ).model_dump(mode="json")
    common = {"root": params["root"], "device": DEVICE, "seed": 0, "max_failed_fraction": 0.0}
    output = {
        "adapter": models / "adapter" / "adapter_model.safetensors",
        "config": models / "adapter" / "adapter_config.json",
        "metrics": models / "metrics.jsonl",
        "figure": models / "training.svg",
        "picture": models / "training.png",
    }
    return SimpleNamespace(
        rule="train_dpo",
        wildcards=["test"],
        input=SimpleNamespace(dataset=params["dataset"]),
        output=SimpleNamespace(**output),
        log=[],
        params=Parameters(common=common, settings=settings),
    )


@pytest.fixture(scope="session")
def base(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random run's base model, in a folder that no build of its models changes while the tests
    run.
    """
    return Path(
        shutil.copytree(demo_models / "llava-1.5", tmp_path_factory.mktemp("base") / "llava-1.5")
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path, dataset: Path) -> Run:
    """One undisturbed training, two processes under ZeRO-2, shared by the tests that look at it."""
    run = Run(tmp_path_factory.mktemp("trained"), base, dataset)
    run.run()
    return run


def training_job(base: Path, dataset: Path, folder: Path, **settings: Any) -> TrainingJob:
    """A training for a process of its own, without DeepSpeed."""
    values = SETTINGS | {"processes": 1, "zero_stage": 0} | settings
    return TrainingJob(
        trainer="dpo",
        base=base,
        dtype="float32",
        device=DEVICE,
        prompt_template=TEMPLATE,
        settings=TrainingSettings.model_validate(values),
        data=[dataset.parent / "data" / "train-00000-of-00001.parquet"],
        folder=folder,
    )


@pytest.fixture
def job(tmp_path: Path, base: Path, dataset: Path) -> TrainingJob:
    """A training in this process, without DeepSpeed; the same pairs a update as `trained`."""
    return training_job(base, dataset, tmp_path, gradient_accumulation=4)


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory, base: Path, dataset: Path) -> Any:
    """TRL's trainer as the script builds it, before its first step."""
    folder = tmp_path_factory.mktemp("trainer")
    return build_trainer(training_job(base, dataset, folder, batch_size=10))


def changed(job: TrainingJob, **settings: Any) -> TrainingJob:
    return job.model_copy(update={"settings": job.settings.model_copy(update=settings)})


# --------------------------------------------------------------------------------------------------


@pytest.mark.numeric
def test_the_first_loss_is_ln_2(trained: Run) -> None:
    assert trained.metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert trained.metrics[0]["rewards/margins"] == 0


def test_training_prefers_the_chosen_responses(trained: Run) -> None:
    assert trained.metrics[-1]["loss"] < 0.5
    assert trained.metrics[-1]["rewards/margins"] > 0.3
    assert trained.metrics[-1]["rewards/accuracies"] == 1


def test_the_metrics_have_one_row_an_update_and_no_times(trained: Run) -> None:
    assert [row["step"] for row in trained.metrics] == list(range(1, UPDATES + 1))
    assert set(trained.metrics[0]) == {"step", *DPO.METRICS}


def test_the_adapter_is_on_the_language_model_only(trained: Run) -> None:
    from safetensors import safe_open

    with safe_open(
        trained.models / "adapter" / "adapter_model.safetensors", framework="np"
    ) as adapter:
        names = list(adapter.keys())
    assert len(names) == 2 * 2 * 7  # A and B, two layers, seven projections
    assert all(".language_model." in name for name in names)


def test_no_published_file_names_a_folder_of_this_machine(trained: Run) -> None:
    for name, content in trained.published().items():
        assert str(trained.folder).encode() not in content, name
        assert str(trained.base.parent).encode() not in content, name


def test_the_figure_says_nothing_but_the_metrics(trained: Run, tmp_path: Path) -> None:
    title = f"test: DPO on {len(PAIRS)} pairs, β = 0.1, LoRA rank 8"
    again = [tmp_path / "training.svg", tmp_path / "training.png"]
    draw_training(trained.metrics, title, again)
    for path in again:
        assert path.read_bytes() == (trained.models / path.name).read_bytes()
    assert b"<dc:date>" not in again[0].read_bytes()


def test_the_figure_of_a_long_training_is_drawn(tmp_path: Path) -> None:
    rows = [
        {"step": step, "loss": 1 / step, "rewards/margins": step, "rewards/accuracies": 0.5}
        for step in range(1, 2001)
    ]
    draw_training(rows, "long", [tmp_path / "training.png"])
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_the_record_counts_updates(trained: Run) -> None:
    record = trained.record
    assert (record["computed"], record["reused"], record["failed"]) == (UPDATES, 0, 0)
    assert record["load_seconds"] > 0
    assert record["compute_seconds"] > 0
    assert record["models"] == {str(trained.base): folder_identity(str(trained.base))}
    assert record["versions"]["trl"] == [version("trl")]


def test_disk_space_of_checkpoints_is_given_back(trained: Run) -> None:
    left = [path.name for path in trained.folder.glob("work/train_dpo/test/*/*")]
    assert sorted(name for name in left if not name.endswith(".journal.jsonl")) == [
        "finished",
        "job.json",
        "versions.jsonl",
        "worker-0.lock",
        "worker-1.lock",
    ]


def test_two_processes_ask_the_reference_about_a_pair_once(trained: Run) -> None:
    """In four epochs, in each of which a pair may be the other's."""
    journals = trained.folder.glob("work/train_dpo/test/reference/*.journal.jsonl")
    keys = [row["key"] for path in journals for row in read_jsonl(path) if "key" in row]
    assert len(keys) == len({*keys}) == len(PAIRS)


def test_all_that_the_workers_said_is_in_their_log(trained: Run) -> None:
    assert (
        "rewards/margins"
        in (trained.folder / "logs" / "train_dpo" / "test.workers.log").read_text()
    )


# --------------------------------------------------------------------------------------------------


def test_the_token_ids_are_those_of_the_joint_text(trainer: Any, base: Path) -> None:
    """One BOS, one EOS, the image's tokens, no doubled space: what the processor makes of the whole
    text.
    """
    processor = load_processor(base)
    rows = [trainer.train_dataset[index] for index in range(len(PAIRS))]
    batch = trainer.data_collator(copy.deepcopy(rows))
    tokenizer = processor.tokenizer
    image_tokens = (56 // 14) ** 2
    for index, (instruction, chosen, rejected) in enumerate(PAIRS):
        for place, response in ((index, chosen), (len(PAIRS) + index, rejected)):
            ids = batch["input_ids"][place][batch["attention_mask"][place] == 1].tolist()
            text = f"{TEMPLATE.replace('{instruction}', instruction)} {response}"
            joint = processor(images=rows[index]["images"], text=text)["input_ids"][0]
            assert ids == [*joint, tokenizer.eos_token_id]
            assert ids.count(tokenizer.bos_token_id) == 1
            assert ids.count(tokenizer.eos_token_id) == 1
            assert ids.count(processor.image_token_id) == image_tokens
            completion = batch["input_ids"][place][batch["completion_mask"][place] == 1]
            assert tokenizer.decode(completion, skip_special_tokens=True) == response


def test_another_image_gives_other_log_probabilities(trainer: Any) -> None:
    import torch

    inputs = next(iter(trainer.get_train_dataloader()))
    first, _ = trainer.compute_ref_log_probs(trainer.model, inputs)
    inputs["pixel_values"] = inputs["pixel_values"].flip(0)
    second, _ = trainer.compute_ref_log_probs(trainer.model, inputs)
    assert (torch.abs(first - second) > 1e-4).all()


def test_only_the_adapter_is_trained(trainer: Any) -> None:
    names = [
        name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad
    ]
    assert names
    assert all("lora_" in name and ".language_model." in name for name in names)
    assert trainer.ref_model is None  # the reference is the model with its adapter off


def test_pairs_that_cannot_be_trained_on_are_left_out_and_counted(
    tmp_path: Path, job: TrainingJob
) -> None:
    bad = [
        ("What is this?", "The <image> shows it.", "A lamp."),
        ("What? " * 150, "Yes", "No"),
        ("What?", "word " * 300, "No"),
    ]
    summary = write_pairs(tmp_path / "odd", [*PAIRS[:2], *bad])
    odd = job.model_copy(update={"data": [*(summary.parent / "data").glob("*")]})
    dataset, notes = preference_dataset(odd, training_arguments(odd), load_processor(odd.base))
    assert len(dataset) == 3
    assert [note.split(":")[0] for note in notes] == [
        "1 pair(s) left out",
        "1 pair(s) left out",
        "1 pair(s) have a response that is cut at `max_length` (128 tokens)",
    ]


def test_no_trainable_pair_is_a_clear_error(job: TrainingJob) -> None:
    short = changed(job, max_length=10)
    with pytest.raises(UserError, match=r"No pair can be trained on.*max_length"):
        preference_dataset(short, training_arguments(short), load_processor(short.base))


def test_a_configured_dropout_is_one(job: TrainingJob) -> None:
    assert training_arguments(job).disable_dropout
    assert not training_arguments(changed(job, lora_dropout=0.05)).disable_dropout


def test_a_data_set_from_before_there_were_messages_is_the_same_training(
    tmp_path: Path, dataset: Path
) -> None:
    """Its texts stood in columns of their own, beside a `prompt` that was the picture's: the key
    is of what is trained on, and what was trained stays.
    """
    from datasets import Dataset

    (file,) = (dataset.parent / "data").glob("*")
    now = Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
    columns = {"instruction": [pair[0] for pair in PAIRS], "prompt": ["a picture"] * len(PAIRS)}
    columns |= {"chosen": [pair[1] for pair in PAIRS], "rejected": [pair[2] for pair in PAIRS]}
    before = now.remove_columns(["prompt", "chosen", "rejected"])
    for name, texts in columns.items():
        before = before.add_column(name, texts)
    before.to_parquet(tmp_path / "before.parquet")
    for control in (None, "random"):
        assert digest_pairs([tmp_path / "before.parquet"], control) == digest_pairs([file], control)


@pytest.mark.numeric
def test_held_out_pairs_are_asked_and_change_nothing_of_the_training(
    tmp_path: Path, base: Path, dataset: Path
) -> None:
    held_out = [("What stands there?", "A lamp.", "The dog watches a cat near the buildings.")]
    with_them = write_pairs(tmp_path / "split", PAIRS, held_out)
    rows = []
    for name, data in (("with", with_them), ("without", dataset)):
        job = training_job(base, data, tmp_path / name, epochs=1, gradient_accumulation=1)
        validation = sorted((data.parent / "data").glob("validation-*"))
        DPO.train(job.model_copy(update={"held_out": validation}))
        (checkpoint,) = job.checkpoints.glob("checkpoint-*")
        rows.append(metrics_of(state_at(checkpoint).log, DPO.METRICS, DPO.HELD_OUT))
    asked, plain = rows
    told = set(DPO.HELD_OUT.values())
    assert all(told <= row.keys() for row in asked)
    assert asked[-1]["held_out/accuracies"] in (0, 1)
    assert asked[-1]["held_out/margins"] != asked[0]["held_out/margins"]
    assert [{k: v for k, v in row.items() if k not in told} for row in asked] == plain
    draw_training(asked, "with", [tmp_path / "with.svg"])
    draw_training(plain, "without", [tmp_path / "without.svg"])
    assert "held-out pairs" in (tmp_path / "with.svg").read_text(encoding="utf-8")
    assert "held-out pairs" not in (tmp_path / "without.svg").read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------


def ids_exchanged(seed: int, count: int = 1000) -> set[str]:
    return {
        name
        for name in (f"art-{number:010x}" for number in range(count))
        if is_exchanged("random", seed, name)
    }


def test_the_coin_is_fair_and_depends_on_the_training_seed_and_the_prompt_alone() -> None:
    heads = ids_exchanged(42)
    assert 440 < len(heads) < 560
    assert heads == ids_exchanged(42)
    assert heads > ids_exchanged(42, 100)
    assert 440 < len(heads ^ ids_exchanged(43)) < 560


def test_without_a_control_nothing_is_exchanged_and_swapped_exchanges_all() -> None:
    assert not any(is_exchanged(None, 42, f"art-{number:010x}") for number in range(20))
    assert all(is_exchanged("swapped", 42, f"art-{number:010x}") for number in range(20))


@pytest.mark.parametrize("control", [None, "random", "swapped"])
def test_a_control_exchanges_chosen_and_rejected_in_what_the_trainer_reads_and_nothing_else(
    job: TrainingJob, control: Any
) -> None:
    controlled = job.model_copy(update={"control": control})
    dataset, _ = preference_dataset(controlled, training_arguments(job), load_processor(job.base))
    plain, _ = preference_dataset(job, training_arguments(job), load_processor(job.base))
    for number, (ours, theirs) in enumerate(zip(dataset, plain, strict=True)):
        sides = [theirs["chosen"], theirs["rejected"]]
        if is_exchanged(control, SETTINGS.get("seed", 42), f"art-{number:010x}"):
            sides.reverse()
        assert [ours["chosen"], ours["rejected"]] == sides
        assert ours["prompt"] == theirs["prompt"]
        assert ours["images"][0].tobytes() == theirs["images"][0].tobytes()
        assert set(ours) == {"prompt", "chosen", "rejected", "images"}


def test_the_digest_of_a_control_is_that_of_the_pairs_it_trains_on(
    tmp_path: Path, dataset: Path
) -> None:
    by_hand = write_pairs(
        tmp_path / "swapped",
        [(instruction, rejected, chosen) for instruction, chosen, rejected in PAIRS],
    )
    files, swapped = ([next((each.parent / "data").glob("*"))] for each in (dataset, by_hand))
    digest, count, exchanged = digest_pairs(files)
    assert (count, exchanged) == (len(PAIRS), 0)
    assert digest_pairs(files, "swapped", 42) == (
        digest_pairs(swapped)[0],
        len(PAIRS),
        len(PAIRS),
    )
    by_coin = digest_pairs(files, "random", 42)
    assert 0 < by_coin[2] < len(PAIRS)
    assert len({digest, by_coin[0], digest_pairs(files, "random", 43)[0]}) == 3


@pytest.mark.slow
def test_trained_on_swapped_pairs_it_prefers_the_rejected_and_says_so(
    trained: Run, tmp_path: Path, base: Path, dataset: Path
) -> None:
    """And a data set with the sides exchanged by hand is the same training, which is not done
    twice.
    """
    control = Run(tmp_path, base, dataset)
    control.control = "swapped"
    control.run()
    assert control.record["notes"] == [
        "control 'swapped': chosen and rejected are exchanged in 10 of 10 pairs"
    ]
    assert trained.record["notes"] == []
    assert control.metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    # The first update sees the same pairs in both: what was chosen there is rejected here.
    assert control.metrics[0]["logps/chosen"] == pytest.approx(
        trained.metrics[0]["logps/rejected"], rel=1e-4
    )
    assert control.metrics[-1]["rewards/margins"] > 0.3
    published = control.published()
    exchanged = [(instruction, rejected, chosen) for instruction, chosen, rejected in PAIRS]
    by_hand = Run(tmp_path, base, write_pairs(tmp_path / "by hand", exchanged))
    by_hand.run()
    assert (by_hand.record["computed"], by_hand.record["reused"], by_hand.record["notes"]) == (
        0,
        UPDATES,
        [],
    )
    # The figure names the control.
    assert {
        name for name, content in by_hand.published().items() if published[name] != content
    } == {"training.svg", "training.png"}


def test_the_parameters_of_an_experiment_with_a_control_differ_in_nothing_else(base: Path) -> None:
    training = Training(
        base_model=Model(model=str(base)),
        experiments={"a": Experiment(size=2), "b": Experiment(size=2, control="random")},
    )
    plain, controlled = training.train_params("a"), training.train_params("b")
    assert plain.control is None
    assert controlled == plain.model_copy(update={"control": "random"})


def key_of(training: TrainingSettings, root: Path, base: Path, **params: Any) -> str:
    """The key of a training on pairs whose digest is "pairs"."""
    settings = {
        "base_model": {"model": str(base)},
        "prompt_template": TEMPLATE,
        "training": training.model_dump(),
        "control": None,
    }
    common = {"root": root, "device": "cpu", "seed": 0, "max_failed_fraction": 0.0}
    values = Parameters(common=common, settings=settings | params)
    snakemake = SimpleNamespace(rule="train_dpo", wildcards=["test"], params=values)
    job = Job(snakemake, TrainDpoJob, train_dpo.VERSION)
    return train_dpo.key_of(job, PairsDigest("pairs", 8, 0), None)


def test_the_key_is_that_of_trainings_before_settings_were_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    """Results of commit b7f97ec are taken over; `save_steps` is in no key."""
    monkeypatch.setattr("lib.weights.folder_identity", lambda folder: "folder-0123456789abcdef")
    key = KEY_OF_B7F97EC
    assert key_of(TrainingSettings(), tmp_path, base) == key
    assert key_of(TrainingSettings(save_steps=7), tmp_path, base) == key
    # A control's own is the digest of its pairs.
    assert key_of(TrainingSettings(), tmp_path, base, control="swapped") == key
    assert key_of(TrainingSettings(beta=0.2), tmp_path, base) != key


class TrainerOfTheNextVersion(DPO):
    VERSION = 2


def test_the_version_of_a_trainers_class_is_in_its_keys_and_in_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    where = f"{__name__}:{TrainerOfTheNextVersion.__name__}"
    monkeypatch.setitem(TRAINERS.kinds, "next", where)
    before = key_of(TrainingSettings(), tmp_path, base)
    assert key_of(TrainingSettings(), tmp_path, base, trainer="next") != before
    monkeypatch.setattr(TrainerOfTheNextVersion, "VERSION", 1)
    assert key_of(TrainingSettings(), tmp_path, base, trainer="next") == before


# --------------------------------------------------------------------------------------------------


def test_a_base_model_that_is_not_whole_is_refused(
    tmp_path: Path, job: TrainingJob, base: Path
) -> None:
    """It would be trained on random weights."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, tmp_path / "base")
    [path] = (tmp_path / "base").glob("*.safetensors")
    state = load_file(path)
    del state["language_model.lm_head.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"{tmp_path / 'base'}.*it lacks lm_head\.weight"):
        DPO.train(job.model_copy(update={"base": tmp_path / "base"}))


def test_two_processes_under_zero_2_train_like_one(trained: Run, job: TrainingJob) -> None:
    """The same pairs in each update, also in an epoch's last, which has fewer: equal up to the
    order of sums.
    """
    DPO.train(job)
    (checkpoint,) = job.checkpoints.glob("checkpoint-*")
    alone = metrics_of(state_at(checkpoint).log, DPO.METRICS, DPO.HELD_OUT)
    for one, two in zip(alone, trained.metrics, strict=True):
        for name in (
            "loss",
            "learning_rate",
            "rewards/margins",
            "rewards/accuracies",
            "logps/chosen",
        ):
            assert one[name] == pytest.approx(two[name], rel=2e-3, abs=2e-4), (one["step"], name)


def test_training_that_diverges_stops_with_a_clear_message(job: TrainingJob) -> None:
    with pytest.raises(
        UserError, match=r"diverges: \w+ is (nan|inf) at update \d of 12.*learning_rate"
    ):
        DPO.train(changed(job, learning_rate=1e30, save_steps=100))
    assert last_checkpoint(job.checkpoints) is None


# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bytes(
    trained: Run, tmp_path: Path, base: Path, dataset: Path
) -> None:
    run = Run(tmp_path, base, dataset)
    process = run.start()
    run.checkpoint_appears(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not run.published()
    # As if the first part had been under another version of a library.
    [sessions] = tmp_path.glob("work/train_dpo/test/*/versions.jsonl")
    sessions.write_text(sessions.read_text().replace(version("trl"), "0.1"))
    run.run()
    assert run.published() == trained.published()
    [note] = run.record["notes"]
    assert note == f"its results are of several versions of libraries: trl 0.1 and {version('trl')}"
    assert run.record["reused"] >= 3
    assert run.record["computed"] + run.record["reused"] == UPDATES
    assert run.record["computed"] < UPDATES


def test_a_finished_adapter_is_not_trained_again(
    trained: Run, tmp_path: Path, base: Path, dataset: Path
) -> None:
    """Also under other `save_steps`, which decide nothing; and no worker is started."""
    run = Run(tmp_path, base, dataset, save_steps=5)
    shutil.copytree(trained.folder / "work", tmp_path / "work")
    run.run()
    assert run.published() == trained.published()
    assert (run.record["computed"], run.record["reused"]) == (0, UPDATES)
    assert not (tmp_path / "logs").exists()


def test_an_adapter_that_another_run_finished_is_not_trained_again(
    trained: Run, tmp_path: Path, base: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one that had another name; and it stays when the other run is deleted."""
    shutil.copytree(trained.folder / "work", tmp_path / "before/work")
    (tmp_path / "before/work/train_dpo/test").rename(tmp_path / "before/work/train_dpo/other")
    monkeypatch.setenv(REUSE_FROM, str(tmp_path / "before"))
    run = Run(tmp_path / "now", base, dataset)
    run.run()
    assert run.published() == trained.published()
    assert (run.record["computed"], run.record["reused"]) == (0, UPDATES)
    assert run.record["taken_over"] == {str(tmp_path / "before"): UPDATES}
    assert run.record["versions"] == trained.record["versions"]
    assert not (tmp_path / "now/logs").exists()
    shutil.rmtree(tmp_path / "before")
    run.run()
    assert (run.record["computed"], run.record["taken_over"]) == (0, {})


def test_what_determines_the_training_decides_what_is_reused(
    trained: Run, tmp_path: Path, demo_models: Path
) -> None:
    """Other settings, another data set or another base model start anew: their folder has another
    name.
    """
    params = {
        "root": str(tmp_path),
        "model": str(trained.base),
        "dataset": str(trained.dataset),
        "training": trained.settings,
    }
    keys = set()

    def remember(job: Any, *anything: Any) -> None:
        keys.add(anything[0].folder)
        raise UserError("enough")

    other_data = write_pairs(tmp_path / "other", [*PAIRS[:-1], ("What?", "This.", "That.")])
    reordered = write_pairs(tmp_path / "reordered", PAIRS[::-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_dpo, "train_in_processes", remember)
        for change in (
            {},
            {"training": trained.settings | {"beta": 0.2}},
            {"training": trained.settings | {"seed": 1}},
            {"dataset": str(other_data)},
            {"dataset": str(reordered)},
            {"model": str(demo_models / "llava-v1.6-vicuna-7b")},
        ):
            with pytest.raises(UserError, match="enough"):
                train_dpo.main(as_snakemake(params | change))
    assert len(keys) == 6


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "global_step").mkdir(parents=True)
    (path / "global_step" / "state.pt").write_bytes(b"x" * step)
    write_json(path / MARKER, {"global_step/state.pt": step})
    return path


def test_a_torn_checkpoint_is_ignored(tmp_path: Path) -> None:
    for step in (3, 20, 100, 200):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-200" / MARKER).unlink()
    (tmp_path / "checkpoint-100" / "global_step" / "state.pt").write_bytes(b"short")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-20"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-20"]


def test_a_damaged_result_is_not_reused(tmp_path: Path, trained: Run) -> None:
    (finished,) = trained.folder.glob("work/train_dpo/test/*/finished")
    copied = tmp_path / "finished"
    shutil.copytree(finished, copied)
    assert is_finished(copied)
    with open(copied / "adapter_model.safetensors", "r+b") as stream:
        stream.seek(2000)
        stream.write(b"damage")
    assert not is_finished(copied)


# --------------------------------------------------------------------------------------------------


def test_an_empty_data_set_is_a_clear_error(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    file = tmp_path / "train-00000-of-00001.parquet"
    columns = ("id", "images", "prompt", "chosen", "rejected")
    parquet.write_table(pyarrow.table({name: [] for name in columns}), file)
    with pytest.raises(UserError, match=r"no pair to train on.*min_margin"):
        digest_pairs([file])
    parquet.write_table(pyarrow.table({"instruction": ["What?"]}), file)
    with pytest.raises(UserError, match="no column chosen, id, images, rejected"):
        digest_pairs([file])


def test_a_damaged_data_set_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "train-00000.parquet"
    file.write_bytes(b"PAR1 not a parquet file")
    with pytest.raises(
        UserError, match=r"train-00000.parquet: is damaged .* merge_pairs makes it anew"
    ):
        digest_pairs([file])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"is_user_error": True, "message": "Lower it."}, "^Lower it.$"),
        (
            {"type": "OutOfMemoryError", "out_of_memory": True, "message": "CUDA out of memory"},
            "(?s)Out of memory.*gradient_checkpointing",
        ),
        (
            {"type": "ValueError", "message": "what went wrong", "trace": ["line"]},
            "Process 1 of 2 stopped: ValueError: what went wrong",
        ),
    ],
)
def test_what_stopped_a_worker_is_told_in_few_lines(
    tmp_path: Path, error: dict[str, Any], message: str
) -> None:
    plain = {"rank": 1, "type": "", "message": "", "is_user_error": False, "trace": []}
    WorkerError.model_validate(plain | {"out_of_memory": False} | error).write(tmp_path)
    shown = what_stopped_them(first_error(tmp_path), 2, 1, tmp_path / "log")
    assert re.search(message, shown)
    assert shown.count("\n") <= LAST_LINES + 2


def test_workers_that_were_killed_are_told_by_their_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(f"line {number}" for number in range(500)))
    message = what_stopped_them(first_error(tmp_path), 2, -9, log)
    assert "memory" in message
    assert "line 499" in message
    assert "line 480" not in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_model": {"dtype": "float16"}}, "float16"),
        (
            {"experiments": {"a": {"size": 8, "settings": {"learnig_rate": 1}}}},
            "Did you mean `learning_rate`",
        ),
        (
            {"experiments": {"a": {"size": 8, "settings": {"epochs": -1}}}},
            "experiment 'a' overrides `epochs`: .*greater than 0",
        ),
        ({"prompt_template": "{instruction}"}, "<image>"),
        ({"experiments": {"base": {"size": 8}}}, "called 'base'"),
        ({"settings": {"tuning": "qlora", "zero_stage": 3}}, "`zero_stage` 3 shares"),
        ({"settings": {"tuning": "full", "zero_stage": 3}}, "second copy that `tuning: full`"),
        ({"settings": {"tuning": "dora"}}, "'lora', 'qlora' or 'full'"),
        ({"experiments": {"a": {"size": 8, "control": "swap"}}}, "'random' or 'swapped'"),
    ],
)
def test_mistakes_in_the_configuration_are_told_before_anything_runs(
    base: Path, values: dict[str, Any], message: str
) -> None:
    model = {"model": str(base), "dtype": "float32"}
    with pytest.raises(ValueError, match=message):
        Training.model_validate(
            {"base_model": model}
            | {k: model | v if k == "base_model" else v for k, v in values.items()}
        )


# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_every_zero_stage_trains_alike(
    trained: Run, tmp_path: Path, base: Path, dataset: Path, stage: int
) -> None:
    from safetensors.numpy import load_file

    run = Run(tmp_path, base, dataset, zero_stage=stage)
    run.run()
    for one, two in zip(run.metrics, trained.metrics, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=2e-3)
    ours, theirs = (
        load_file(each.models / "adapter" / "adapter_model.safetensors") for each in (run, trained)
    )
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }
    assert all(abs(ours[name] - theirs[name]).mean() < 1e-3 for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [1, 3])
def test_fewer_pairs_than_one_update_takes_are_trained_on(
    tmp_path: Path, base: Path, pairs: int
) -> None:
    run = Run(
        tmp_path,
        base,
        write_pairs(tmp_path / "few", PAIRS[:pairs]),
        batch_size=2,
        gradient_accumulation=4,
    )
    run.run()
    assert [row["step"] for row in run.metrics] == [1, 2, 3, 4]  # one an epoch
    assert run.metrics[-1]["loss"] < math.log(2)


@pytest.mark.slow
def test_asked_to_stop_it_saves_a_checkpoint_and_goes_on_to_the_same_bytes(
    trained: Run, tmp_path: Path, base: Path, dataset: Path
) -> None:
    run = Run(tmp_path, base, dataset, save_steps=1000)
    process = run.start()
    assert process.stdout is not None
    for line in process.stdout:
        if "update 1 of" in line:
            process.send_signal(signal.SIGTERM)
            break
    output = process.communicate()[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "goes on from the last checkpoint" in output
    run.run()
    assert run.published() == trained.published()
    assert 0 < run.record["reused"] < UPDATES


@pytest.mark.slow
def test_killed_at_many_moments_it_ends_with_the_same_bytes(
    trained: Run, tmp_path: Path, base: Path, dataset: Path
) -> None:
    """Each moment is the appearance of a file or folder: before the first step, in the middle of a
    checkpoint, after the last, ...
    """
    run = Run(tmp_path, base, dataset, save_steps=1)
    for moment in (
        "job.json",
        "cache/*",
        "checkpoints/checkpoint-*",
        "checkpoints/checkpoint-*/global_step*/*",
        "checkpoints/checkpoint-*/complete.json",
        "checkpoints/checkpoint-*/trainer_state.json",
        "finished.tmp",
        "finished",
    ):
        there = set(tmp_path.glob(f"work/train_dpo/test/*/{moment}"))
        process = run.start()
        while (
            process.poll() is None
            and not set(tmp_path.glob(f"work/train_dpo/test/*/{moment}")) - there
        ):
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run.run()
    assert run.published() == trained.published()


#: A launcher that the system ends, as some libraries do, while Python cleans up.
ABORT_AT_EXIT = """
import atexit, os, runpy, sys
runpy.run_path({own!r})
if "torch.distributed.run" in sys.orig_argv:
    atexit.register(os.abort)
"""


@pytest.mark.slow
def test_a_training_whose_processes_fail_when_all_is_done_counts_and_says_so(
    trained: Run, tmp_path: Path, base: Path, dataset: Path
) -> None:
    own = str(Path(__file__).parents[1] / "envs" / "sitecustomize.py")
    (tmp_path / "sitecustomize.py").write_text(ABORT_AT_EXIT.format(own=own))
    run = Run(tmp_path, base, dataset)
    run.also_on_path = str(tmp_path)
    run.run()
    assert run.published() == trained.published()
    [note] = run.record["notes"]
    assert note == "its processes ended with exit code -6 when all was done"


def test_what_a_gpu_cannot_compute_twice_alike_is_trained_without_and_told(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU computes all of a training alike, so the operation is another one."""
    modes = []

    def run_workers(job: TrainingJob, progress: Progress, output: Path) -> int:
        modes.append(job.deterministic)
        torch.use_deterministic_algorithms(True, warn_only=not job.deterministic)
        try:
            with leaving_errors(job.folder, 0):
                torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        except RuntimeError:
            return 1
        finally:
            torch.use_deterministic_algorithms(False)
        return 0

    monkeypatch.setattr("lib.training.launch.run_workers", run_workers)
    notes: list[str] = []
    job.folder.mkdir(parents=True, exist_ok=True)
    launch(job, Progress(notes.append), tmp_path / "output")
    assert modes == [True, False]
    [note] = notes
    assert note.startswith("two runs may differ in their low bits: put_")


@pytest.mark.parametrize("is_allowed", [True, False])
def test_activations_are_recomputed_once_memory_runs_out_where_that_is_allowed(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_allowed: bool
) -> None:
    """A CPU's memory does not run out here, so what is allocated is another thing."""
    tried: list[tuple[bool, Path | None]] = []

    def run_workers(job: TrainingJob, progress: Progress, output: Path) -> int:
        assert training_arguments(job).gradient_checkpointing == job.recomputes
        tried.append((job.recomputes, job.resume))
        if job.recomputes:
            return 0
        checkpoint(job.checkpoints, 3)
        with pytest.raises(RuntimeError), leaving_errors(job.folder, 0):
            torch.empty(2**50)
        return 1

    monkeypatch.setattr("lib.training.launch.run_workers", run_workers)
    notes: list[str] = []
    job = changed(job, gradient_checkpointing=is_allowed)
    if is_allowed:
        launch(job, Progress(notes.append), tmp_path / "output")
        assert tried == [(False, None), (True, job.checkpoints / "checkpoint-3")]
        [note] = notes
        assert note.startswith("activations are recomputed: ")
    else:
        with pytest.raises(UserError, match="Out of memory in process 0"):
            launch(job, Progress(notes.append), tmp_path / "output")
        assert len(tried) == 1


@pytest.mark.slow
def test_a_worker_that_fails_is_shown_without_its_traceback(
    tmp_path: Path, base: Path, dataset: Path
) -> None:
    run = Run(tmp_path, base, dataset, learning_rate=1e30)
    output = run.run(code=1)
    assert "Error in train_dpo: The training diverges" in output
    assert "Traceback" not in output
    assert "Traceback" in (tmp_path / "logs" / "train_dpo" / "test.workers.log").read_text()
    assert not run.published()


def _started_as_a_rule() -> None:
    from lib.jobs.script import run_script

    main = vars(sys.modules["__main__"])
    main["snakemake"], main["__file__"] = as_snakemake(json.loads(sys.argv[1])), train_dpo.__file__
    run_script(train_dpo.main)


if __name__ == "__main__":
    _started_as_a_rule()
