"""Rule data_set_card: what a data set says of itself is true, and read by those it is for."""

import hashlib
import json
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard

from data_set_run import (
    CARD,
    MODEL,
    MakeRule,
    describe_data_set,
    list_sizes,
    make_data_set,
    pair_row,
    write_run,
)
from lib.blocks import Model
from lib.config.licences import read_licences
from lib.config.run import Config
from lib.data.rows import PairRow
from lib.files import write_json, write_jsonl
from lib.head.cards import configuration_of, models_of_data, portable
from lib.report.licence import OTHER, Terms, UsedModel, licence_of, licence_page
from lib.report.sidecar import ModelOrigin


def described(
    tmp_path: Path, rule_object: MakeRule, validation: float = 0, **job: Any
) -> tuple[Path, str]:
    """A data set of 19 pairs with its card; one prompt more is a tie, one failed."""
    root = tmp_path / "run"
    tie: PairRow = {**pair_row("art", 100), "no_pair": "tie"}
    del tie["pair"]
    failed: Any = {
        **{name: pair_row("art", 101)[name] for name in ("id", "topic", "prompt")},
        "missing": {"rule": "write_instructions", "reason": "gone"},
    }
    rows = [pair_row("art" if n % 2 else "school", n, root) for n in range(20)]
    inputs = write_run(root, rows, [tie, failed])
    folder = make_data_set(rule_object, root, inputs, "19", validation)
    describe_data_set(rule_object, root, inputs, folder, CARD.model_copy(update=job))
    return folder, (folder / "README.md").read_text(encoding="utf-8")


def metadata(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---")[1]))


def test_the_hub_s_own_class_reads_the_card(tmp_path: Path, rule_object: MakeRule) -> None:
    _, text = described(tmp_path, rule_object)
    card = DatasetCard(text, ignore_metadata_errors=False)
    assert card.data.license == "other"
    assert card.data.language == ["en"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.task_categories == ["image-text-to-text", "visual-question-answering"]
    assert {"dpo", "preference"} <= set(card.data.tags)
    assert card.data.license_link == "LICENSE.md"
    assert card.data.configs == [
        {
            "config_name": "default",
            "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
        }
    ]


def test_the_card_counts_what_became_of_the_prompts(tmp_path: Path, rule_object: MakeRule) -> None:
    _, card = described(tmp_path, rule_object)
    for line in (
        "| Prompts | 22 |",
        "| Prompts with a picked image | 22 |",
        "| Prompts with an instruction | 21 |",
        "| Pairs | 20 |",
        "| Pairs in this data set | 19 |",
        "| tie | 1 |",
        "| write_instructions failed | 1 |",
        "| a | 19 | 0 |",
        f"| answers | `someone/model` | `{'a' * 40}` | not known here |",
    ):
        assert line in card, line
    assert "chosen answer is the longer one in 0.0% of the pairs" in card
    assert "against 16 characters on average)" in card


def test_what_was_not_looked_for_is_said(tmp_path: Path, rule_object: MakeRule) -> None:
    _, card = described(tmp_path, rule_object)
    assert "pairs were **not held against any benchmark**" in card
    assert "unsafe content was **not looked for**" in card
    assert "reads texts only: it has not seen the picture" in card


def test_overlaps_with_benchmarks_are_told_of_the_pairs_that_are_in_it(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    folder, _ = described(tmp_path, rule_object)
    root = folder.parents[1]
    ids = (folder / "prompt_ids.txt").read_text().split()
    overlaps = [{"id": ids[0], "benchmark": "pope"}, {"id": "art-0000000000", "benchmark": "mme"}]
    write_jsonl(root / "overlaps.jsonl", overlaps)
    checked = {"pope": {"checked": True}, "mme": {"checked": True}, "vqav2": {"checked": False}}
    write_json(root / "coverage.json", checked)
    inputs = {"pairs": [str(root / "pairs/all/00.jsonl")]}
    files = {name: str(root / f"{name}.json") for name in ("coverage",)}
    files["overlaps"] = str(root / "overlaps.jsonl")
    describe_data_set(rule_object, root, inputs, folder, CARD, **files)
    card = (folder / "README.md").read_text()
    assert "held against mme, pope; 1 of these pairs have something in common" in card
    assert "(pope 1 overlaps). **Not checked:** vqav2." in card


def test_the_configuration_on_the_card_is_one_and_names_no_folder_of_this_machine(
    tmp_path: Path,
) -> None:
    shutil.copytree("demo/world/models/armorm", tmp_path / "armorm")
    values = {
        "seed": 7,
        "response_ranking": {"model": str(tmp_path / "armorm"), "dtype": "float32"},
        "pairs": {"validation": 0.02, "freeze": True},
    }
    told = portable(configuration_of(Config.model_validate(values)))
    assert str(tmp_path) not in yaml.safe_dump(told)
    told["response_ranking"]["model"] = str(tmp_path / "armorm")
    again = Config.model_validate(told)
    assert again.seed == 7
    assert again.pairs.validation == 0.02
    assert portable(configuration_of(again)) == portable(told)
    policies = told["responses"]["policy_models"].values()
    assert {key for policy in policies for key in policy} == {"model", "revision", "dtype"}


# --------------------------------------------------------------------------------------------------


def used(name: str, terms: Terms | None, makes: bool = True) -> UsedModel:
    origin = ModelOrigin(model=name, revision="main")
    return UsedModel(does="answers", makes=makes, origin=origin, terms=terms)


FREE = Terms(name="Apache License 2.0", address="https://a.org", in_short="Free.")
BINDING = Terms(
    name="Llama 3 Community License", address="https://b.org", in_short="Not.", binds_output=True
)


@pytest.mark.parametrize(
    ("models", "own", "licence", "reason"),
    [
        ([used("a/b", FREE)], "cc-by-4.0", "cc-by-4.0", "its maker gives cc-by-4.0"),
        ([used("a/b", FREE)], None, OTHER, "has not given a licence yet"),
        ([used("a/b", FREE), used("c/d", BINDING)], "cc-by-4.0", OTHER, "Llama 3 Community"),
        ([used("a/b", FREE), used("c/d", None)], "cc-by-4.0", OTHER, "No terms are known .* c/d"),
        ([used("a/b", FREE), used("c/d", BINDING, makes=False)], "mit", "mit", "None of the terms"),
    ],
)
def test_the_licence_follows_from_the_models_that_made_the_data(
    models: list[UsedModel], own: str | None, licence: str, reason: str
) -> None:
    import re

    found = licence_of(models, own)
    assert found.id == licence
    assert re.search(reason, found.reason)
    if licence == OTHER:
        assert found.metadata()["license_link"] == "LICENSE.md"
    page = licence_page(found, models)
    assert all(model.name in page for model in models)


def test_the_paper_s_data_are_bound_by_four_terms_and_the_card_names_them() -> None:
    models = list(models_of_data(Config(), read_licences()))
    found = licence_of(models, "cc-by-4.0")
    assert found.id == OTHER
    for name in ("Llama 2", "Llama 3", "OpenAI's terms", "Stability AI"):
        assert name in found.reason
    assert [model.does for model in models].count("answers") == 4
    assert not any(model.makes for model in models if model.does.startswith(("picks", "ranks")))


def test_a_scorer_or_a_judge_at_an_endpoint_is_named_with_its_terms_and_made_nothing() -> None:
    endpoint = {"base_url": "https://api.openai.com/v1", "model": "gpt-4o"}
    scorers = {"far": {"kind": "vlm-rating", "endpoint": endpoint}}
    config = Config.model_validate(
        {
            "image_ranking": {"scorers": scorers, "select_by": "far"},
            "response_ranking": {"kind": "claims-endpoint", "endpoint": endpoint},
        }
    )
    models = list(models_of_data(config, read_licences()))
    judges = [model for model in models if model.does.startswith(("picks", "ranks"))]
    assert len(judges) == 2
    for judge in judges:
        assert (judge.name, judge.host, judge.makes) == ("gpt-4o", "api.openai.com", False)
        assert judge.terms is not None
        assert "OpenAI" in judge.terms.name


def test_a_model_s_folder_is_named_by_its_last_name_only(tmp_path: Path) -> None:
    shutil.copytree("demo/world/models/armorm", tmp_path / "armorm")
    model = used(Model(model=str(tmp_path / "armorm")).model, None)
    assert model.name == "armorm"


# --------------------------------------------------------------------------------------------------


def test_the_sums_are_those_of_every_file_and_sha256sum_agrees(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    folder, _ = described(tmp_path, rule_object)
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    told = {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in lines}
    there = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert told == there
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_a_card_made_twice_is_the_same_bytes(tmp_path: Path, rule_object: MakeRule) -> None:
    folder, _ = described(tmp_path, rule_object)
    names = ("README.md", "LICENSE.md", "croissant.json", "SHA256SUMS")
    before = [(folder / name).read_bytes() for name in names]
    inputs = {"pairs": [str(folder.parents[1] / "pairs/all/00.jsonl")]}
    describe_data_set(rule_object, folder.parents[1], inputs, folder)
    assert [(folder / name).read_bytes() for name in names] == before


@pytest.mark.slow
def test_mlcroissant_finds_no_fault_and_reads_the_pairs(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    import mlcroissant

    folder, _ = described(tmp_path, rule_object, validation=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
        assert not data_set.metadata.issues.errors
        for split, suffix in (("train", ""), ("validation", "_validation")):
            records = json.loads((folder / f"llava{suffix}.json").read_text(encoding="utf-8"))
            columns = list(data_set.records(split))
            texts = list(data_set.records(f"{split}-texts"))
            ids = [each[f"{split}/id"].decode() for each in columns]
            assert ids == [record["id"] for record in records]
            assert columns[0][f"{split}/images"][0].size == (8, 8)
            assert [each[f"{split}-texts/chosen"].decode() for each in texts] == [
                record["conversations"][1]["value"] for record in records
            ]


# --------------------------------------------------------------------------------------------------


def test_sizes_are_loaded_one_by_one_and_never_mixed(tmp_path: Path, rule_object: MakeRule) -> None:
    from datasets import get_dataset_config_names, load_dataset

    root = tmp_path / "run"
    inputs = write_run(root, [pair_row("art", n, root) for n in range(12)])
    folders = [make_data_set(rule_object, root, inputs, size, 0.3) for size in ("4", "all")]
    list_sizes(rule_object, root, folders)
    parent, cache = str(root / "dataset"), str(tmp_path / "cache")
    assert get_dataset_config_names(parent) == ["4", "all"]
    with pytest.raises(ValueError, match="Config name is missing"):
        load_dataset(parent, cache_dir=cache)
    for folder in folders:
        rows = load_dataset(parent, folder.name, cache_dir=cache)
        told = json.loads((folder / "dataset.json").read_text())
        assert {split: each.num_rows for split, each in rows.items()} == told["splits"]


def test_a_frozen_data_set_in_the_form_of_before_is_listed_with_a_warning_and_without_a_link(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    folders = [tmp_path / "dataset" / size for size in ("4", "all")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text('{"size": 4}')
    (folders[1] / "ms_swift.jsonl").touch()
    card = list_sizes(rule_object, tmp_path, folders).read_text()
    assert "4/README.md" not in card
    assert "all/README.md" in card
    assert "Do not give them to a trainer" in card


def test_a_demonstration_s_card_says_so(tmp_path: Path, rule_object: MakeRule) -> None:
    _, card = described(tmp_path, rule_object, label="demo", models=[MODEL])
    assert "no model is to be trained on it" in card
    assert "https://example.org/code/tree/" in card
