"""Other models than the paper's in every role, from prompts to all tables: `make other`."""

import json
import subprocess
import sys
from typing import Any

import pytest

from chat_server import closed_port
from conftest import read_rows, tiny_checkpoint
from lib.data.rows import PairRow, ResponseRankingRow

POLICIES = {"llava-next", "served", "own#1", "own#2"}
REWARDS = {"judge", "text"}
EVALUATED = {"base", "mixture", "smolvlm"}


def make_other(project):
    """What `make other` does, at a port of this machine that is free."""
    for name in ("flux", "siglip", "qwen2.5-vl", "idefics3", "text-reward"):
        tiny_checkpoint(project.folder / "demo/models", name)
    port = str(closed_port())
    file = project.folder / "demo/other.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("8791", port), encoding="utf-8")
    project.configfile = "demo/other.yaml"
    done = subprocess.run(
        [
            *(sys.executable, "demo/serve.py", "demo/models/llava-v1.6-mistral", "--port", port),
            *("--", *project.command()),
        ],
        cwd=project.folder,
        env=project.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.fixture(scope="module")
def other(made_once):
    """The finished run's folder. Not to be changed."""
    return made_once("other", make_other).folder / "results/other"


def rows_of(other, stage, row):
    found: dict[str, Any] = {}
    for file in sorted((other / stage).glob("*/*.jsonl")):
        found |= read_rows(file, row)
    return found


@pytest.mark.slow
def test_a_run_with_another_model_in_every_role_goes_from_prompts_to_pairs(other):
    ranked = rows_of(other, "response_ranking", ResponseRankingRow)
    assert len(ranked) == 8
    for row in ranked.values():
        assert set(row["responses"]) == POLICIES
        valid = [each for each in row["responses"].values() if "invalid" not in each]
        assert all(set(each["parts"]) == REWARDS for each in valid)
        assert all(0 <= each["parts"]["judge"]["score"] <= 5 for each in valid)
    pairs = rows_of(other, "pairs", PairRow)
    sides = [row["pair"][side] for row in pairs.values() for side in ("chosen", "rejected")]
    assert {"llava-next", "served"} <= {side["policy"] for side in sides} <= POLICIES


@pytest.mark.slow
def test_a_model_of_another_family_is_trained_with_a_mixture_of_losses_and_is_in_all_tables(other):
    record = json.loads((other / "work/train_dpo/mixture.json").read_text(encoding="utf-8"))
    assert "qwen2.5-vl" in json.dumps(record["models"])
    for table in ("size_table", "vision_language_table", "hallucination_table"):
        text = (other / f"tables/{table}.md").read_text(encoding="utf-8")
        assert "mixture" in text
        assert "smolvlm" in text
    assert {each.name for each in (other / "evaluation").iterdir()} == EVALUATED
