"""What the reference model says of a pair is computed once, and changes no bit of a training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import train_dpo
from conftest import Parameters
from lib.blocks import Model
from lib.config.training import TrainDpoJob
from lib.jobs.job import REUSE_FROM, Job
from lib.training.base import TrainingJob
from lib.training.checkpoints import last_checkpoint, metrics_of, state_at
from lib.training.dpo import DPO
from lib.training.once import digest_of_tensors
from lib.training.reference import FOLDER, LogProbabilities, Reference, ReferencePlace
from lib.training.settings import TrainingSettings
from test_train_dpo import PAIRS, training_job, write_pairs

#: One pair a batch, as the paper trains; an epoch's last update has fewer pairs.
SETTINGS: dict[str, Any] = {"epochs": 2, "gradient_accumulation": 4, "save_steps": 100}


@pytest.fixture(scope="module")
def base(demo_models: Path) -> Path:
    return demo_models / "llava-1.5"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("dataset"), PAIRS)


def place(root: Path, name: str, key: str = "0" * 64) -> ReferencePlace:
    """The place of a training of this name in a run's folder."""
    rule = root / "work" / "train_dpo"
    return ReferencePlace(key=key, own=rule / name / FOLDER, elsewhere=[rule])


class Trained:
    """A training in this process: the bytes of its adapter, its metrics, and about how many batches
    the reference was asked.
    """

    def __init__(self, job: TrainingJob) -> None:
        DPO.train(job)
        checkpoint = last_checkpoint(job.checkpoints)
        assert checkpoint
        self.adapter = (checkpoint / "adapter_model.safetensors").read_bytes()
        self.metrics = metrics_of(state_at(checkpoint).log, DPO.METRICS, DPO.HELD_OUT)
        self.asked = 0
        if job.reference:
            self.asked = job.reference.journal(0).read_text().count('"status":"ok"')

    def equals(self, other: "Trained") -> bool:
        return self.adapter == other.adapter and self.metrics == other.metrics


def train(root: Path, name: str, base: Path, dataset: Path, **settings: Any) -> Trained:
    """A training that keeps what the reference says, in a run's folder."""
    job = training_job(base, dataset, root / name, **SETTINGS | settings)
    return Trained(job.model_copy(update={"reference": place(root, name)}))


def train_without(folder: Path, base: Path, dataset: Path, **settings: Any) -> Trained:
    """A training for which TRL computes the reference's forward pass each time."""
    return Trained(training_job(base, dataset, folder, **SETTINGS | settings))


# --------------------------------------------------------------------------------------------------


def test_epochs_betas_losses_and_nested_data_sets_ask_about_a_pair_once_and_train_to_the_same_bits(
    tmp_path: Path, base: Path, dataset: Path
) -> None:
    first = train(tmp_path, "first", base, dataset)
    assert first.equals(train_without(tmp_path / "plain", base, dataset))
    assert first.asked == len(PAIRS)

    ipo = {"losses": {"ipo": 1.0}, "beta": 0.5}
    second = train(tmp_path, "second", base, dataset, **ipo)
    assert second.equals(train_without(tmp_path / "plain-ipo", base, dataset, **ipo))
    assert second.asked == 0

    part = write_pairs(tmp_path / "part", PAIRS[:4])
    assert train(tmp_path, "nested", base, part).asked == 0


def test_pairs_that_share_a_batch_are_kept_as_that_batch(
    tmp_path: Path, base: Path, dataset: Path
) -> None:
    """What pads a pair differs with its neighbours, and with that its lowest bits."""
    batches = {"batch_size": 2, "gradient_accumulation": 2, "epochs": 1}
    first = train(tmp_path, "first", base, dataset, **batches)
    assert first.asked == len(PAIRS) / 2
    again = train(tmp_path, "again", base, dataset, **batches, losses={"hinge": 1.0})
    assert again.asked == 0
    plain = train_without(tmp_path / "plain", base, dataset, **batches, losses={"hinge": 1.0})
    assert again.equals(plain)


def test_recomputed_activations_train_to_the_same_bits(
    tmp_path: Path, base: Path, dataset: Path
) -> None:
    job = training_job(base, dataset, tmp_path / "recomputed", **SETTINGS)
    recomputed = Trained(job.model_copy(update={"recomputes": True}))
    assert recomputed.equals(train_without(tmp_path / "plain", base, dataset))


def test_held_out_pairs_are_asked_about_once(tmp_path: Path, base: Path) -> None:
    held_out = [("What stands there?", "A lamp.", "The dog watches a cat near the buildings.")]
    data = write_pairs(tmp_path / "split", PAIRS[:4], held_out)
    files = sorted((data.parent / "data").glob("validation-*"))
    job = training_job(base, data, tmp_path / "with", **SETTINGS | {"gradient_accumulation": 1})
    job = job.model_copy(update={"held_out": files, "reference": place(tmp_path, "with")})
    trained = Trained(job)
    assert trained.asked == 4 + 1
    assert sum("held_out/loss" in row for row in trained.metrics) == 8


# --------------------------------------------------------------------------------------------------


def test_what_another_training_adds_meanwhile_is_found_and_a_torn_line_is_not(
    tmp_path: Path,
) -> None:
    values = LogProbabilities([-1.5, -0.1], [-2.0, -3.25], "torch.float32")
    with Reference(place(tmp_path, "one"), 0) as one, Reference(place(tmp_path, "two"), 1) as two:
        assert two.find("a") is None
        one.add("a", values, 0.1)
        assert two.find("a") == values
        with open(place(tmp_path, "one").journal(0), "ab") as stream:
            stream.write(b'{"sum":"0123456789abcdef","key":"b","sta')
        assert two.find("b") is None
        two.add("nan", LogProbabilities([float("nan")], [0.0], "torch.float32"), 0.1)
        assert two.find("nan") is None
    with Reference(place(tmp_path, "one"), 0) as again:
        assert again.find("a") == values
    with Reference(place(tmp_path, "one", key="1" * 64), 0) as other_model:
        assert other_model.find("a") is None


def test_a_batch_is_known_by_every_byte_that_the_model_is_shown() -> None:
    batch = {
        "input_ids": torch.tensor([[1, 2, 3], [1, 2, 4]]),
        "attention_mask": torch.ones(2, 3, dtype=torch.long),
        "pixel_values": torch.zeros(2, 3, 4, 4),
    }
    others = [
        {**batch, "input_ids": torch.tensor([[1, 2, 4], [1, 2, 3]])},
        {**batch, "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])},
        {**batch, "pixel_values": torch.zeros(2, 3, 4, 4).index_fill(3, torch.tensor(3), 1e-30)},
        {**batch, "pixel_values": torch.zeros(2, 3, 2, 8)},
        {**batch, "pixel_values": torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)},
        {**batch, "token_type_ids": torch.ones(2, 3, dtype=torch.long)},
    ]
    keys = {digest_of_tensors(each) for each in (batch, *others)}
    assert len(keys) == 1 + len(others)
    assert digest_of_tensors(dict(reversed(batch.items()))) == digest_of_tensors(batch)


def place_of(root: Path, base: Path, dtype: str = "float32", **settings: Any) -> Any:
    """Where rule train_dpo has a training keep what the reference says."""
    job = TrainDpoJob(
        base_model=Model.model_validate({"model": str(base), "dtype": dtype}),
        prompt_template=None,
        training=TrainingSettings.model_validate(settings),
        control=None,
    )
    common = {"root": root, "device": "cpu", "seed": 0, "max_failed_fraction": 0.0}
    params = Parameters(common=common, settings=job.model_dump(mode="json"))
    snakemake = SimpleNamespace(rule="train_dpo", wildcards=["test"], params=params)
    key = "0123456789abcdef"
    folder = train_dpo.TrainingFolder(Job(snakemake, TrainDpoJob, train_dpo.VERSION), [], [], key)
    return folder.reference()


def test_trainings_share_it_that_ask_the_same_model_alike(
    tmp_path: Path, base: Path, demo_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REUSE_FROM, str(tmp_path / "before"))
    here = place_of(tmp_path / "now", base)
    runs = [tmp_path / "now", tmp_path / "before"]
    assert here.elsewhere == [run / "work" / "train_dpo" for run in runs]
    alike: list[dict[str, Any]] = [
        {"beta": 0.5, "losses": {"ipo": 1.0}, "epochs": 1, "seed": 1, "lora_rank": 8},
        {"zero_stage": 1, "processes": 8, "batch_size": 2, "gradient_checkpointing": False},
    ]
    for settings in alike:
        assert place_of(tmp_path, base, **settings).key == here.key
    others = [
        place_of(tmp_path, base, zero_stage=0),
        place_of(tmp_path, base, tuning="qlora"),
        place_of(tmp_path, base, projector_learning_rate=2e-5),
        place_of(tmp_path, base, dtype="bfloat16"),
        place_of(tmp_path, demo_models / "llava-v1.6-vicuna-7b"),
    ]
    assert len({here.key, *(each.key for each in others)}) == 1 + len(others)


def test_with_a_dropout_the_reference_is_asked_each_time(tmp_path: Path, base: Path) -> None:
    assert place_of(tmp_path, base, lora_dropout=0.05) is None
