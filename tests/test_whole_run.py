"""What a run leaves: products that the libraries of their users read."""

import csv
import json
import math

import pytest
from PIL import Image

from conftest import read_rows
from lib.config.run import load_config
from lib.config.yaml_files import read_yaml
from lib.data.image_files import read_provenance
from lib.data.rows import ImageRankingRow, ImagesRow, PairRow, ResponseRankingRow
from lib.head.plan import TABLES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(finished):
    return finished.folder / "results/random"


def test_the_published_format_is_read_with_its_images_as_llava_s_trainer_does(root):
    records = json.loads((root / "dataset/2/llava.json").read_text(encoding="utf-8"))
    assert len(records) == 2
    for record in records:
        with Image.open(root / "dataset/2" / record["image"]) as image:
            assert image.convert("RGB").size == (64, 64)
        human, gpt = record["conversations"]
        assert human["value"].startswith("<image> ")
        assert gpt["value"] != record["rejected_conversations"][1]["value"]


def test_datasets_reads_the_data_set_with_its_images(root, tmp_path):
    import datasets

    loaded = datasets.load_dataset(str(root / "dataset/2"), split="train", cache_dir=str(tmp_path))
    published = json.loads((root / "dataset/2/llava.json").read_text(encoding="utf-8"))
    assert loaded["id"][:] == [record["id"] for record in published]
    assert loaded[0]["images"][0].size == (64, 64)
    assert loaded[0]["chosen_score"] > loaded[0]["rejected_score"]


def test_every_image_of_a_pair_is_the_best_by_the_configured_scorer(root):
    rows = {
        row["id"]: row
        for path in root.glob("pairs/*/*.jsonl")
        for row in read_rows(path, PairRow).values()
    }
    for path in root.glob("image_ranking/image-reward/*/*.jsonl"):
        images = read_rows(
            root / "images" / path.relative_to(root / "image_ranking/image-reward"), ImagesRow
        )
        for prompt_id, row in read_rows(path, ImageRankingRow).items():
            best = row["scores"].index(max(row["scores"]))
            picked = images[prompt_id]["candidates"][best]
            assert rows[prompt_id]["image"]["file"] == picked["file"]
            assert read_provenance(root / picked["file"])["id"] == prompt_id


def test_chosen_and_rejected_are_the_best_and_worst_of_armorm_s_scores(root):
    checked = 0
    for path in root.glob("pairs/*/*.jsonl"):
        ranking = read_rows(
            root / "response_ranking" / path.relative_to(root / "pairs"), ResponseRankingRow
        )
        for prompt_id, row in read_rows(path, PairRow).items():
            scores = [
                answer["score"]
                for answer in ranking[prompt_id]["responses"].values()
                if "invalid" not in answer
            ]
            if "pair" in row:
                assert (row["pair"]["chosen"]["score"], row["pair"]["rejected"]["score"]) == (
                    max(scores),
                    min(scores),
                )
                checked += 1
            for answer in ranking[prompt_id]["responses"].values():
                if "invalid" not in answer:
                    assert set(answer["attributes"]) == {
                        "helpfulness",
                        "correctness",
                        "coherence",
                        "complexity",
                        "verbosity",
                    }
    assert checked >= 2


def test_training_starts_at_ln_2_and_its_adapter_and_merged_model_load(root):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    steps = [
        json.loads(line)
        for line in (root / "models/random-2/metrics.jsonl").read_text().splitlines()
    ]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    config = json.loads((root / "models/random-2/adapter/adapter_config.json").read_text())
    base = AutoModelForImageTextToText.from_pretrained(
        root.parents[1] / "demo/models/llava-1.5", dtype=torch.float32
    )
    assert not str(config["base_model_name_or_path"]).startswith("/")
    adapted = PeftModel.from_pretrained(base, root / "models/random-2/adapter").merge_and_unload()
    merged = AutoModelForImageTextToText.from_pretrained(
        root / "models/random-2/merged", dtype=torch.float32
    )
    AutoProcessor.from_pretrained(root / "models/random-2/merged")
    first, second = adapted.state_dict(), merged.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_the_tables_have_the_paper_s_rows_and_ours_marked_as_a_demo_s(root):
    with open(root / "tables/hallucination_table.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    sources = {row["source"] for row in rows}
    assert sources == {"paper", "ours, demo"}
    assert sum(row["source"] == "ours, demo" for row in rows) == 2
    for table in TABLES:
        assert (root / f"tables/{table}.md").read_text(encoding="utf-8").startswith("# ")
        assert "\\toprule" in (root / f"tables/{table}.tex").read_text(encoding="utf-8")


def test_no_published_file_tells_of_this_machine_or_moment(finished, root):
    import datetime

    configured = load_config(read_yaml(finished.folder / finished.configfile), [])
    assert configured.label == "demo"
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d").encode()
    for name, content in finished.published().items():
        assert str(finished.folder).encode() not in content, name
        assert today not in content, name


def test_every_job_left_a_record_and_a_log(root):
    records = [
        json.loads(path.read_text())
        for path in root.glob("work/*/**/*.json")
        if '"rule"' in path.read_text()
    ]
    rules = {record["rule"] for record in records if "computed" in record}
    assert {
        "generate_images",
        "rank_images",
        "write_instructions",
        "generate_responses",
        "rank_responses",
        "build_pairs",
    } <= rules
    assert {
        "check_pairs",
        "merge_pairs",
        "train_dpo",
        "merge_adapter",
        "answer_benchmark",
        "score_benchmark",
        "reasons_table",
    } <= rules
    assert {"index_benchmarks", "check_contamination", "list_overlaps"} <= rules
    assert list(root.glob("logs/generate_images/*/*.log"))
