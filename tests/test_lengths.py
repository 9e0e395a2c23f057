"""The reward against the length of responses: what is told of a judge, and pairs that are made of
what length leaves of its reward.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import build_pairs
import fit_length
from conftest import rounding
from lib.blocks import Model, deciding
from lib.config.pairs import BuildPairsJob
from lib.data.lengths import Rewarded, fit, rewarded
from lib.data.prompts import Prompt
from lib.data.rows import PairRow
from lib.data.shards import present, read_shard
from lib.files import write_jsonl
from reward_length_table import NO_DIFFERENCE, build_table


def rows(*prompts: dict[str, tuple[int, float]]) -> list[Any]:
    """Rows of response ranking; of each prompt: policy model -> its response's length and score."""
    made = []
    for number, responses in enumerate(prompts):
        prompt = Prompt("art", f"{number} cats")
        ranked = {
            policy: {"text": "x" * length, "finish_reason": "stop", "score": score}
            for policy, (length, score) in responses.items()
        }
        image = {"file": "a.png", "sha256": "0", "guidance_scale": 5.0, "score": 0.5}
        made.append(
            {**prompt.row(), "image": image, "instruction": "What is it?", "responses": ranked}
        )
    return sorted(made, key=lambda row: str(row["id"]))


#: In both prompts the reward grows by 1 as the length doubles, from another one.
GROWS = rows({"a": (8, 0.0), "b": (16, 1.0), "c": (32, 2.0)}, {"a": (4, 7.0), "b": (8, 8.0)})


def of_rewards(made: list[Any]) -> Any:
    return fit(rewarded(row["responses"]).get("reward", []) for row in made)


@pytest.mark.numeric
def test_what_a_reward_gains_with_length_is_told_within_prompts() -> None:
    found = of_rewards(GROWS)
    assert (found.prompts, found.responses, found.best_is_longer) == (2, 5, 1.0)
    assert found.slope == pytest.approx(1 / math.log(2), rel=rounding(64))
    assert found.within == pytest.approx(1, rel=rounding(64))
    assert found.correlation < 0, "the prompt with short answers has the higher rewards"
    assert of_rewards(GROWS[::-1]) == found


def test_what_is_not_ranked_is_no_part_of_it_and_nor_is_a_prompt_with_one_response() -> None:
    with_others = rows({"a": (8, 0.0), "b": (16, 1.0)}, {"a": (99, 5.0)})
    with_others[0]["responses"] |= {"c": {"invalid": "empty", "text": ""}}
    with_others[1]["responses"] |= {"c": {"invalid": "nan", "text": "x", "finish_reason": "stop"}}
    assert (of_rewards(with_others).prompts, of_rewards(with_others).responses) == (1, 2)


@pytest.mark.parametrize(
    "made",
    [[], rows({"a": (8, 1.0)}), rows({"a": (8, 1.0), "b": (8, 2.0)})],
    ids=["no prompts", "one response", "one length"],
)
def test_where_lengths_do_not_differ_nothing_is_told_of_them(made: list[Any]) -> None:
    found = of_rewards(made)
    assert (found.slope, found.within, found.correlation, found.best_is_longer) == (None,) * 4
    (line,) = build_table(made, "armorm", "ours", False).rows
    assert set(line.values) == {"responses"}
    assert set(line.missing.values()) == {NO_DIFFERENCE}


def test_the_table_has_a_line_for_the_reward_and_one_for_each_attribute() -> None:
    made = rows({"a": (8, 0.0), "b": (16, 1.0)})
    for response in made[0]["responses"].values():
        response["attributes"] = {"verbosity": 3.0, "correctness": -response["score"]}
    table = build_table(made, "armorm", "ours", is_controlled=True)
    lines = {row.texts["score"]: row.values for row in table.rows}
    assert list(lines) == ["reward", "correctness", "verbosity"]
    assert lines["reward"]["doubling"] == pytest.approx(1)
    assert lines["reward"]["best_is_longer"] == 100
    assert lines["correctness"]["best_is_longer"] == 0
    assert "within" not in lines["verbosity"]
    assert any("length_control" in note for note in table.notes)


@pytest.fixture
def build(
    tmp_path: Path, rule_object: Callable[..., Any], demo_models: Path
) -> Callable[..., dict[str, Any]]:
    """Runs fit_length and build_pairs on rows of response ranking; gives the pairs by prompt."""
    root = tmp_path / "run"
    ranking, lengths, output = (
        root / name
        for name in ("response_ranking/art/00.jsonl", "quality/length.json", "pairs/art/00.jsonl")
    )

    def run(made: list[Any], control: str, **changes: Any) -> dict[str, Any]:
        write_jsonl(ranking, made)
        if control != "none":
            fit_length.main(rule_object("fit_length", {}, [str(ranking)], [str(lengths)]))
        settings = BuildPairsJob(
            policies=list(made[0]["responses"]),
            min_margin=0,
            max_length=512,
            prompt_template="USER: <image>\n{instruction} ASSISTANT:",
            base_model=Model(model=str(demo_models / "llava-1.5")),
            length_control=control,
        ).model_copy(update=changes)
        files = [str(lengths)] if control != "none" else []
        inputs = SimpleNamespace(ranking=str(ranking), overlaps=[], content=[], lengths=files)
        told = settings.model_dump(mode="json")
        shard = {"topic": "art", "shard": "00"}
        build_pairs.main(rule_object("build_pairs", shard, inputs, [str(output)], settings=told))
        return {row["prompt"]: row for row in present(read_shard(output, PairRow).values())}

    return run


LONG_WINS = rows(
    *({"short": (50, 0.0), "long": (400, 3.0)} for _ in range(6)),
    {"short": (50, 1.0), "long": (400, 2.0)},
)


def test_with_length_control_pairs_are_made_of_what_length_leaves_of_the_reward(build: Any) -> None:
    as_rewarded = build(LONG_WINS, "none")["6 cats"]["pair"]
    assert (as_rewarded["chosen"]["policy"], as_rewarded["margin"]) == ("long", 1.0)
    assert "reward" not in as_rewarded["chosen"]
    pair = build(LONG_WINS, "residual")["6 cats"]["pair"]
    assert (pair["chosen"]["policy"], pair["chosen"]["reward"]) == ("short", 1.0)
    assert (pair["rejected"]["policy"], pair["rejected"]["reward"]) == ("long", 2.0)
    assert pair["margin"] == pair["chosen"]["score"] - pair["rejected"]["score"] > 0


def test_one_prompt_edited_leaves_the_pairs_of_the_others_as_they_are(
    build: Any, tmp_path: Path
) -> None:
    many = rows(*({"short": (50, number / 50), "long": (400, 3.0)} for number in range(40)))
    build(many, "residual")
    many[7]["responses"]["long"]["score"] = 3.01
    build(many, "residual")
    record = json.loads((tmp_path / "run/work/build_pairs/art/00.json").read_text())
    assert (record["computed"], record["reused"]) == (1, 39)


def test_without_length_control_keys_of_pairs_are_what_they_were(demo_models: Path) -> None:
    told = {
        "policies": ["a", "b"],
        "min_margin": 0,
        "max_length": 512,
        "prompt_template": "",
        "base_model": Model(model=str(demo_models / "llava-1.5")),
    }
    assert "length_control" not in deciding(BuildPairsJob.model_validate(told))
    controlled = BuildPairsJob.model_validate({**told, "length_control": "residual"})
    assert deciding(controlled)["length_control"] == "residual"


def test_slope_of_a_run_is_a_rounded_number_beside_the_exact_ones(
    build: Any, tmp_path: Path
) -> None:
    build(LONG_WINS, "residual")
    found = json.loads((tmp_path / "run/quality/length.json").read_text())
    assert found["used_slope"] == float(f"{found['slope']:.1e}") == 1.3
    assert found["prompts"] == 7


def test_lengths_are_compared_as_logarithms() -> None:
    doubled = [[Rewarded(math.log(10), 0.0), Rewarded(math.log(20), 1.0)]]
    longer = [[Rewarded(math.log(100), 0.0), Rewarded(math.log(200), 1.0)]]
    assert fit(doubled).slope == pytest.approx(fit(longer).slope)
