"""Rule model_cards: a model's card names what it is of, how it was trained and how it scores."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import ModelCard

import model_cards
from data_set_run import MODEL, MakeRule
from lib.files import write_json
from lib.report.licence import Terms, UsedModel
from lib.report.model_card import ModelCardJob
from lib.report.sidecar import ModelOrigin

LLAMA = Terms(
    name="Llama 2 Community License", address="https://l.org", in_short="-", binds_output=True
)
BASE = UsedModel(
    does="is trained",
    makes=True,
    origin=ModelOrigin(model="llava-hf/llava-1.5-7b-hf", revision="b" * 40),
    terms=LLAMA,
)
JOB = ModelCardJob(
    run="paper",
    experiment="pds-dpo-9k",
    label="ours",
    base=BASE,
    base_is_on_hub=True,
    data_models=[MODEL],
    license=None,
    languages=["en"],
    code=None,
    control=None,
    prompt_template="USER: <image>\n{instruction} ASSISTANT:",
    system_prompt=None,
    training={"beta": 0.1, "lora_rank": 128},
    scores={"pope": {"reference_f1": "F1 of yes, percent"}, "chair": {"chair_i": "mentions"}},
)


def cards(tmp_path: Path, rule_object: MakeRule, **changes: Any) -> dict[str, str]:
    folder = tmp_path / "run"
    told = {"scores": {"chair_i": 4.3}, "intervals": {"chair_i": [2.8, 5.9]}}
    beside = {"intervals": {"reference_f1": [98.8, 100.0]}}
    scores = {
        "ours/chair": {"benchmark": "chair", **told},
        "ours/pope": {"benchmark": "pope", "scores": {"reference_f1": 99.7}, "also": beside},
        "base/chair": {"benchmark": "chair", "scores": {"chair_i": 18.3}},
    }
    for name, scored in scores.items():
        write_json(folder / f"{name}.json", scored)
    write_json(folder / "dataset.json", {"size": 9000, "digest": "d" * 64})
    files = {
        side: [str(path) for path in sorted((folder / side).glob("*.json"))]
        for side in ("ours", "base")
    }
    inputs = {"scores": files["ours"], "base": files["base"]}
    output = {kind: folder / "cards" / kind / "README.md" for kind in ("adapter", "merged")}
    model_cards.main(
        rule_object(
            "model_cards",
            {"experiment": "pds-dpo-9k"},
            Inputs(inputs, data=str(folder / "dataset.json")),
            Inputs({kind: str(path) for kind, path in output.items()}),
            settings=JOB.model_copy(update=changes).model_dump(mode="json"),
        )
    )
    return {kind: path.read_text(encoding="utf-8") for kind, path in output.items()}


class Inputs(SimpleNamespace):
    """Files by name, by attribute and by key, as Snakemake gives them."""

    def __init__(self, files: dict[str, Any], **also: str) -> None:
        super().__init__(**files, **also)

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def test_the_hub_s_own_class_reads_both_cards_with_their_scores(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    made = cards(tmp_path, rule_object)
    adapter, merged = (
        ModelCard(made[kind], ignore_metadata_errors=False) for kind in ("adapter", "merged")
    )
    assert (adapter.data.library_name, merged.data.library_name) == ("peft", "transformers")
    assert adapter.data.base_model == merged.data.base_model == "llava-hf/llava-1.5-7b-hf"
    assert adapter.data.to_dict()["base_model_relation"] == "adapter"
    assert merged.data.to_dict()["base_model_relation"] == "finetune"
    results = {each.metric_type: each.metric_value for each in merged.data.eval_results or []}
    assert results == {"chair_i": 4.3, "reference_f1": 99.7}


def test_scores_stand_with_their_intervals_beside_the_base_model_s(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    card = cards(tmp_path, rule_object)["merged"]
    assert "| chair | mentions | 4.30 | 2.80 to 5.90 | 18.30 |" in card
    assert "| pope | F1 of yes, percent | 99.70 | 98.80 to 100.00 | — |" in card


def test_a_card_tells_base_data_settings_and_licence(tmp_path: Path, rule_object: MakeRule) -> None:
    card = cards(tmp_path, rule_object)["adapter"]
    assert f"`llava-hf/llava-1.5-7b-hf` at `{'b' * 40}`" in card
    assert f"9000 pairs, digest `{'d' * 64}`" in card
    assert "| `lora_rank` | 128 |" in card
    assert "goes on under the [Llama 2 Community License](https://l.org)" in card
    assert "of models that made it, so that none can be said to allow it" in card
    assert 'PeftModel.from_pretrained(model, "<this folder>")' in card


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"control": "labels swapped"},
            "negative control (labels swapped), not a model to be used",
        ),
        ({"label": "demo"}, "a tiny model, of no use but to show the workflow"),
    ],
)
def test_a_control_and_a_demonstration_are_marked(
    tmp_path: Path, rule_object: MakeRule, changes: dict[str, Any], text: str
) -> None:
    assert all(text in card for card in cards(tmp_path, rule_object, **changes).values())


def test_a_base_model_that_is_a_folder_is_not_given_out_as_the_hub_s(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    made = cards(tmp_path, rule_object, base_is_on_hub=False)
    assert all("base_model:" not in card for card in made.values())
