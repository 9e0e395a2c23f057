"""The losses of a training: TRL's own by name and weight, and what each needs."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.blocks import deciding
from lib.config.training import Training
from lib.training.dpo import DPO, build_trainer, training_arguments
from lib.training.losses import LOSSES
from lib.training.settings import TrainingSettings
from shown import showing
from test_train_dpo import PAIRS, training_job, write_pairs
from train_dpo import say_losses

LN_2 = math.log(2)
BETA = 0.1
#: What each loss is where policy and reference are the same model, by the formula of its paper.
AT_THE_BEGINNING: dict[str, float | None] = {
    "sigmoid": LN_2,
    "sigmoid_norm": LN_2,
    "hinge": 1.0,
    "ipo": (1 / (2 * BETA)) ** 2,
    "exo_pair": math.log(0.5) - (math.log(1 - 0.1) + math.log(0.1)) / 2,
    "nca_pair": 2 * LN_2,
    "robust": LN_2,
    "bco_pair": 2 * LN_2,
    "sppo_hard": 2 * (0.5 / BETA) ** 2,
    "aot": LN_2,
    "aot_unpaired": LN_2,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": (LN_2 + 1) / 2,
    "sft": None,  # what the model says of the chosen responses
}
MPO = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
#: In a batch of two, with a tenth of the preferences taken to be wrong where that plays a part.
SMOOTHED = {name for name, loss in LOSSES.items() if loss.smooths}


def settings_of(losses: Mapping[str, float]) -> dict[str, Any]:
    smoothing = 0.1 if SMOOTHED & losses.keys() else 0.0
    return {"losses": dict(losses), "label_smoothing": smoothing, "batch_size": 2, "beta": BETA}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("dataset"), PAIRS[:4])


class SharedTrainer:
    """One trainer with the tiny model, which takes its losses from the arguments that a training
    with these has.
    """

    def __init__(self, base: Path, dataset: Path, folder: Path) -> None:
        # The arguments first: making some takes the state of the trainer's processes away.
        mixtures: list[dict[str, float]] = [*({name: 1.0} for name in LOSSES), MPO]
        self.arguments = {
            tuple(each): training_arguments(
                training_job(base, dataset, folder, **settings_of(each))
            )
            for each in mixtures
        }
        self.trainer = build_trainer(training_job(base, dataset, folder, batch_size=4))

    def with_losses(self, losses: Mapping[str, float]) -> Any:
        arguments, trainer = self.arguments[tuple(losses)], self.trainer
        trainer.loss_types, trainer.loss_weights = arguments.loss_type, arguments.loss_weights
        trainer.label_smoothing, trainer.beta = arguments.label_smoothing, arguments.beta
        return trainer


@pytest.fixture(scope="module")
def shared(
    demo_models: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> SharedTrainer:
    return SharedTrainer(demo_models / "llava-1.5", dataset, tmp_path_factory.mktemp("trainer"))


def losses_of_updates(
    shared: SharedTrainer, losses: Mapping[str, float], updates: int
) -> list[float]:
    """The losses of some updates on one batch, from the same adapter each time."""
    trainer = shared.with_losses(losses)
    adapter = {n: each for n, each in trainer.model.named_parameters() if each.requires_grad}
    beginning = {name: each.detach().clone() for name, each in adapter.items()}
    optimizer = torch.optim.Adam(adapter.values(), lr=1e-5)
    rows = [trainer.train_dataset[number] for number in range(4)]
    collated = trainer.data_collator(copy.deepcopy(rows))
    batch = {name: each.to(trainer.args.device) for name, each in collated.items()}
    told = []
    for _ in range(updates):
        loss = trainer.compute_loss(trainer.model, batch)
        told.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for name, each in adapter.items():
            each.copy_(beginning[name])
    return told


def test_every_loss_that_trl_knows_is_known() -> None:
    assert set(AT_THE_BEGINNING) == set(LOSSES)


@pytest.mark.numeric
@pytest.mark.parametrize("name", [showing("losses", name) for name in LOSSES])
def test_a_loss_begins_at_its_papers_value_and_training_lowers_it(
    shared: SharedTrainer, name: str
) -> None:
    losses = losses_of_updates(shared, {name: 1.0}, 3)
    expected = AT_THE_BEGINNING[name]
    if expected is not None:
        assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < losses[0]


@pytest.mark.numeric
def test_a_mixture_is_the_weighted_sum(shared: SharedTrainer) -> None:
    alone = {name: losses_of_updates(shared, {name: 1.0}, 1)[0] for name in MPO}
    mixed = losses_of_updates(shared, MPO, 1)[0]
    assert mixed == pytest.approx(sum(weight * alone[name] for name, weight in MPO.items()))


def test_a_training_with_a_mixture_ends_and_its_order_changes_nothing(
    demo_models: Path, dataset: Path, tmp_path: Path
) -> None:
    """Keys do not tell one order from another, so the bytes must not."""
    adapters: list[bytes] = []
    for order in (MPO, dict(reversed(MPO.items()))):
        folder = tmp_path / str(len(adapters))
        settings = settings_of(order) | {"epochs": 1, "gradient_accumulation": 1}
        job = training_job(demo_models / "llava-1.5", dataset, folder, **settings)
        DPO.train(job)
        (checkpoint,) = job.checkpoints.glob("checkpoint-*")
        adapters.append((checkpoint / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"losses": {"nca": 1}}, "there is no loss 'nca'. Did you mean 'nca_pair'"),
        ({"losses": {"apo": 1}}, "Did you mean 'apo_zero' or 'apo_down'"),
        ({"losses": {"mpo": 1}}, "there is no loss 'mpo'"),
        ({"losses": {}}, "`losses` names none"),
        ({"losses": {"sigmoid": 0}}, "greater than 0"),
        ({"losses": {"sigmoid": True}}, "truth value"),
        ({"losses": {"exo_pair": 1}}, "'exo_pair' needs `label_smoothing`.*0.001"),
        ({"losses": {"sigmoid": 1, "robust": 1}}, "'robust' needs `label_smoothing`.*0.1"),
        ({"losses": {"robust": 1}, "label_smoothing": 0.5}, "less than 0.5"),
        ({"label_smoothing": 0.1}, "`label_smoothing` changes nothing of sigmoid"),
        ({"losses": {"aot": 1}}, "sorts the pairs of a batch, and `batch_size` is 1"),
    ],
)
def test_what_a_loss_needs_is_asked_for_before_anything_runs(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Training.model_validate({"settings": settings})
    with pytest.raises(ValueError, match="experiment 'a' overrides"):
        Training.model_validate({"experiments": {"a": {"size": 2000, "settings": settings}}})


def test_a_loss_is_in_the_key_unless_it_is_the_papers() -> None:
    assert deciding(TrainingSettings()).keys().isdisjoint({"losses", "label_smoothing"})
    other = deciding(TrainingSettings(losses={"robust": 1}, label_smoothing=0.1))
    assert (other["losses"], other["label_smoothing"]) == ({"robust": 1.0}, 0.1)


def test_the_figure_of_a_training_names_its_losses() -> None:
    assert say_losses({"sigmoid": 1.0}) == "DPO"
    assert say_losses(MPO) == "0.8 sigmoid + 0.2 bco_pair + 1 sft"


def test_the_page_names_every_loss_with_its_source_and_what_it_needs() -> None:
    page = (Path(__file__).parent.parent / "docs/training.md").read_text(encoding="utf-8")
    for name, loss in LOSSES.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"| {loss.what} | {loss.source} |" in row
        assert ("label_smoothing" in row) == (name in ("exo_pair", "robust"))
        assert ("batch_size" in row) == loss.sorts_batch
