"""The claims in the small world: what counts as a claim that holds, and that the document says what
was measured.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import build_world
import claims
from lib.config import run as configuration
from world import agreement, benchmarks, words
from world.scenes import KINDS

ROOT = Path(__file__).resolve().parent.parent
HOLDS = {"base": 42.0, "dpo": 12.0, "random-control": 40.0, "swapped-control": 60.0}


def run_with(root: Path, chair: dict[str, float]) -> Path:
    for model, value in chair.items():
        file = root / "evaluation" / model / "chair" / "scores.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"scores": {"chair_s": value}}), encoding="utf-8")
    return root


def test_a_run_in_which_dpo_halves_hallucination_and_controls_do_not_passes(tmp_path: Path) -> None:
    assert claims.problems(run_with(tmp_path, HOLDS)) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"dpo": 30.0}, "DPO lowers CHAIR_s from 42.0 to 30.0, which is less than by a third"),
        ({"random-control": 26.0}, "Pairs drawn by a coin lower CHAIR_s from 42.0 to 26.0"),
        ({"swapped-control": 41.0}, "Exchanged pairs lower CHAIR_s from 42.0 to 41.0"),
    ],
)
def test_a_run_in_which_a_claim_fails_is_told(
    tmp_path: Path, changed: dict[str, float], told: str
) -> None:
    (problem,) = claims.problems(run_with(tmp_path, HOLDS | changed))
    assert told in problem


def test_a_run_without_scores_fails_the_check_with_the_mend(tmp_path: Path) -> None:
    command = [sys.executable, "demo/claims.py", "--check", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "there is no CHAIR_s of base. Run `make demo` first." in ended.stdout


def test_a_seed_differs_from_another_in_its_seeds_and_name_only() -> None:
    one, two = claims.configuration(1, False), claims.configuration(2, False)
    assert (one.pop("seed"), two.pop("seed")) == (1, 2)
    assert (one["training"]["settings"].pop("seed"), two["training"]["settings"].pop("seed")) == (
        1,
        2,
    )
    assert (one.pop("run"), two.pop("run")) == ("seed-1", "seed-2")
    assert one == two


def test_the_judge_is_told_the_prompt_in_the_words_that_it_learnt() -> None:
    demo = yaml.safe_load((ROOT / "demo" / "config.yaml").read_text(encoding="utf-8"))
    assert demo["response_ranking"]["template"] == words.instruction("{prompt}", "{instruction}")
    asked = {*words.DESCRIBE, *(words.question(kind) for kind in KINDS)}
    assert asked.issuperset(demo["instructions"]["templates"]), (
        "what the policy models learnt to answer"
    )


@pytest.mark.parametrize("random_picture", [False, True])
def test_what_claims_run_is_valid_and_needs_nothing_of_the_hub(
    random_picture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    build_world.main(["--output", "demo/world/benchmarks"])
    values = claims.configuration(1, random_picture) | {"prompts": "demo/prompts"}
    values.pop("reuse_from", None)  # the first run is not made here
    found = configuration.load_config(values, [])
    assert found.figures.embedding is None
    models: list[Any] = [
        *found.image_ranking.scorers.values(),
        *found.responses.policy_models.values(),
        found.training.base_model,
    ]
    for model in (found.images, found.response_ranking, *models):
        assert (ROOT / model.model).is_dir(), model


def test_the_control_of_image_filtering_differs_in_the_pick_only() -> None:
    best, random = claims.configuration(1, False), claims.configuration(1, True)
    assert random["image_ranking"].pop("pick") == "random"
    assert random.pop("reuse_from") == [best["run"]]
    assert (
        random["training"]["experiments"]["dpo-160"] == best["training"]["experiments"]["dpo-160"]
    )
    for config in (best, random):
        del config["run"], config["training"]["experiments"], config["pairs"]
    assert best == random


def test_claims_ask_for_every_size_that_the_table_shows() -> None:
    experiments = claims.configuration(1, False)["training"]["experiments"]
    assert {*claims.SIZES, *claims.MODELS} - {"base"} == {*experiments}
    assert [experiments[name]["size"] for name in claims.SIZES if name != "base"] == [
        int(n) for n in list(claims.SIZES.values())[1:]
    ]
    demo = yaml.safe_load((ROOT / "demo" / "config.yaml").read_text(encoding="utf-8"))
    assert {"dpo", "random-control", "swapped-control"} == {*demo["training"]["experiments"]}, (
        "what --check reads"
    )


def test_tables_show_mean_and_spread_over_seeds() -> None:
    text = claims.markdown(
        "size", {"0": {"CHAIR_s ↓": [40.0, 42.0, 44.0]}, "40": {"CHAIR_s ↓": [20.0, 20.0, 20.0]}}
    )
    assert text.splitlines() == [
        "| pairs | CHAIR_s ↓ |",
        "|---|---:|",
        "| 0 | 42.0 ± 2.0 |",
        "| 40 | 20.0 ± 0.0 |",
    ]


def test_a_description_is_exact_if_it_names_every_thing_with_its_colour_as_often_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in benchmarks.chair(4, 3).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(claims, "CHAIR", tmp_path)
    monkeypatch.setattr(claims, "things_in_benchmark", claims.things_in_benchmark.__wrapped__)
    scenes, _ = benchmarks.unseen(4, 3)
    texts = [words.caption(scene) for scene in scenes]
    folder = tmp_path / "evaluation/one/chair"
    folder.mkdir(parents=True)
    for wrong in (0, 1):
        # Once more what is there already: no hallucination to CHAIR, which counts kinds.
        first, *more = scenes[0].things
        texts[0] = (
            words.sentence(f"{words.grouped([first, first, *more])} on {scenes[0].background}")
            if wrong
            else texts[0]
        )
        # What Python takes for the end of a line ends none of a file of JSON lines.
        rows = [
            {"id": str(number), "response": text, "question": "Line\u2028for\u0085line?"}
            for number, text in enumerate(texts, start=1)
        ]
        (folder / "answers.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
        assert claims.exact_descriptions(tmp_path, "one") == 100 - 25 * wrong


def test_the_document_has_the_tables_that_were_measured() -> None:
    document = (ROOT / "docs" / "microworld.md").read_text(encoding="utf-8")
    for table, text in claims.tables().items():
        assert text in document, (
            f"docs/microworld.md differs from `python demo/claims.py --tables` in the table {table}"
        )


def test_agreement_counts_the_pairs_that_differ_in_truth_and_ties_as_half() -> None:
    scored = [
        agreement.Scored([1.0, 0.5, 0.5], [3.0, 2.0, 9.0]),
        agreement.Scored([1.0, 0.0], [4.0, 4.0]),
    ]
    assert agreement.agreement(scored) == [1.0, 0.0, 0.5]


def test_an_answer_is_held_against_what_the_picture_shows() -> None:
    (scene,), _ = benchmarks.unseen(1, 3)
    kind = scene.things[0].kind
    assert agreement.true_of(words.DESCRIBE[0], words.caption(scene), scene) == 1.0
    assert agreement.true_of(words.question(kind), "Yes.", scene) == 1.0
    assert agreement.true_of(words.question(kind), "No", scene) == 0.0
