"""Several response rewards as one: standardised over the run, weighted, and what they disagree
about.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import combine_rewards
import fit_rewards
from build_pairs import item_of, pair_of
from conftest import Project, rounding
from lib.blocks import Model, deciding
from lib.config.pairs import BuildPairsJob
from lib.config.run import load_config
from lib.data.ensembles import Standard, combined, standard_of
from lib.data.prompts import Prompt
from lib.data.rows import ResponseRankingRow
from lib.data.shards import is_missing, missing_row, present, read_shard
from lib.errors import UserError
from lib.files import write_jsonl
from lib.head import cards
from lib.head.plan import Plan
from lib.head.preflight import needs_of
from lib.head.software import environment_of, spared_packages
from lib.planning.graph import PlannedJob
from lib.planning.rates import Rates
from reward_length_table import build_table

STANDARDS: dict[str, Standard] = {
    "text": {"mean": 0.1, "deviation": 0.01},
    "judge": {"mean": 3.0, "deviation": 0.5},
}
WEIGHTS = {"text": 1.0, "judge": 3.0}


def rated(score: float, **details: Any) -> Any:
    return {"text": "A cup.", "finish_reason": "stop", "score": score, **details}


def ranking(number: int, responses: dict[str, Any]) -> Any:
    """A row of one reward."""
    image = {"file": "a.png", "sha256": "0", "guidance_scale": 5.0, "score": 0.5}
    prompt = Prompt("art", f"{number} cats").row()
    return {**prompt, "image": image, "instruction": "What is it?", "responses": responses}


# --- standardising


@pytest.mark.numeric
def test_a_reward_s_unit_is_how_much_it_differs_within_a_prompt() -> None:
    # Prompts are 100 apart, their responses 2: between prompts says nothing of pairs.
    found = standard_of([[1.0, 3.0], [101.0, 103.0], [201.0, 203.0]])
    assert found["deviation"] == pytest.approx(1.4)
    assert found["mean"] == pytest.approx(102, abs=found["deviation"] / 20)
    scaled = standard_of([[7.0, 21.0], [707.0, 721.0], [1407.0, 1421.0]])
    assert scaled["deviation"] == pytest.approx(7 * 2**0.5, rel=0.05)


def test_what_is_missing_is_no_part_of_it_and_order_means_nothing() -> None:
    groups = [[0.1, 0.3, 0.2], [0.7], [0.5, 0.4]]
    assert standard_of([*groups, []]) == standard_of(groups[::-1])
    assert standard_of([]) == {"mean": 0.0, "deviation": 0.0}
    assert standard_of([[0.25], [0.75]])["deviation"] == 0, "no prompt has two responses"


def test_one_response_among_thousands_leaves_what_scores_are_standardised_by() -> None:
    many = [[math.sin(n), math.sin(7 * n), math.sin(13 * n)] for n in range(1, 1000)]
    assert standard_of([*many[:-1], [0.3, -0.2, 0.9]]) == standard_of(many)


# --- combining


@pytest.mark.numeric
def test_a_response_is_ranked_by_the_weighted_mean_and_keeps_each_score_and_its_parts() -> None:
    of_text = rated(0.13, attributes={"helpfulness": 2.0})
    response = combined({"text": of_text, "judge": rated(2.5)}, STANDARDS, WEIGHTS)
    # 3 and -1 standard deviations, with a quarter and three quarters of the weight.
    assert response["score"] == pytest.approx(0, abs=rounding(8))
    assert response["spread"] == pytest.approx(3**0.5)
    text, judge = response["parts"]["text"], response["parts"]["judge"]
    assert (text["score"], text["weight"], judge["weight"]) == (0.13, 0.25, 0.75)
    assert text["standardised"] == pytest.approx(3)
    assert text["details"] == {"attributes": {"helpfulness": 2.0}}
    assert response["attributes"] == {"text": 0.13, "judge": 2.5}
    assert (response["text"], response["finish_reason"]) == ("A cup.", "stop")


def test_a_reward_that_tells_no_responses_apart_decides_nothing() -> None:
    standards: dict[str, Standard] = {**STANDARDS, "judge": {"mean": 3.0, "deviation": 0.0}}
    response = combined({"text": rated(0.13), "judge": rated(2.5)}, standards, WEIGHTS)
    assert response["parts"]["judge"]["standardised"] == 0


def test_a_response_that_one_reward_has_no_score_of_is_invalid_and_says_whose() -> None:
    nan = {"text": "A cup.", "finish_reason": "stop", "invalid": "nan"}
    rows: Any = {"text": rated(0.1), "judge": nan}
    assert combined(rows, STANDARDS, WEIGHTS) == nan | {"detail": "of reward judge"}
    empty: Any = {"text": "", "finish_reason": "stop", "invalid": "empty"}
    assert combined({"text": empty, "judge": empty}, STANDARDS, WEIGHTS) == empty


@pytest.fixture
def combine(tmp_path: Path, rule_object: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Runs fit_rewards and combine_rewards on the rows of each reward; gives those by prompt."""
    root = tmp_path / "run"
    standards = root / "quality/rewards.json"
    output = root / "response_ranking/art/00.jsonl"

    def run(rows: dict[str, list[Any]], **weights: float) -> dict[str, Any]:
        files = {name: root / f"response_rewards/{name}/art/00.jsonl" for name in rows}
        for name, path in files.items():
            write_jsonl(path, sorted(rows[name], key=lambda row: str(row["id"])))
        inputs = SimpleNamespace(**{f"scores_{name}": [str(path)] for name, path in files.items()})
        told: dict[str, Any] = {"rewards": list(rows)}
        fit_rewards.main(rule_object("fit_rewards", {}, inputs, [str(standards)], settings=told))
        inputs = SimpleNamespace(
            **{f"scores_{name}": str(path) for name, path in files.items()},
            standards=str(standards),
        )
        told = {"weights": {name: weights.get(name, 1.0) for name in rows}}
        shard = {"topic": "art", "shard": "00"}
        combine_rewards.main(
            rule_object("combine_rewards", shard, inputs, [str(output)], settings=told)
        )
        return {row["prompt"]: row for row in read_shard(output, ResponseRankingRow).values()}

    return run


def record(tmp_path: Path, job: str) -> Any:
    return json.loads((tmp_path / f"run/work/{job}.json").read_text())


def test_a_prompt_that_a_reward_has_no_result_for_is_missing_and_says_whose(combine: Any) -> None:
    whole = [ranking(n, {"a": rated(n), "b": rated(n + 1)}) for n in range(3)]
    out_of_memory = missing_row(whole[1], "rank_responses", "out of memory")
    earlier = missing_row(whole[2], "generate_images", "blank")
    rows = combine({"text": [*whole[:2], earlier], "judge": [whole[0], out_of_memory, earlier]})
    assert not is_missing(rows["0 cats"])
    missing = rows["1 cats"]["missing"]
    assert missing == {"rule": "rank_responses", "reason": "judge: out of memory"}
    assert rows["2 cats"]["missing"] == {"rule": "generate_images", "reason": "blank"}


def test_one_prompt_edited_combines_one_again_and_leaves_the_others(
    combine: Any, tmp_path: Path
) -> None:
    def rows(edited: float) -> dict[str, list[Any]]:
        of = [ranking(n, {"a": rated(n % 5), "b": rated(n % 7)}) for n in range(200)]
        other = [ranking(n, {"a": rated(n % 3), "b": rated(n % 4)}) for n in range(200)]
        other[7]["responses"]["a"]["score"] = edited
        return {"text": of, "judge": other}

    before = combine(rows(1.0))
    after = combine(rows(1.1))
    done = record(tmp_path, "combine_rewards/art/00")
    assert (done["computed"], done["reused"]) == (1, 199)
    assert [prompt for prompt in before if before[prompt] != after[prompt]] == ["7 cats"]
    combine(rows(1.1), judge=2.0)
    assert record(tmp_path, "combine_rewards/art/00")["computed"] == 200


def test_a_reward_that_decides_nothing_is_told(combine: Any, tmp_path: Path) -> None:
    whole = [ranking(n, {"a": rated(n), "b": rated(n + 1)}) for n in range(3)]
    flat = [ranking(n, {"a": rated(n), "b": rated(n)}) for n in range(3)]
    combine({"text": whole, "judge": flat})
    (note,) = record(tmp_path, "fit_rewards/fit_rewards")["notes"]
    assert "reward judge gives the responses to a prompt one score" in note


# --- disagreement


def of_two(text: float, judge: float) -> Any:
    return combined({"text": rated(text), "judge": rated(judge)}, STANDARDS, WEIGHTS)


def test_a_pair_keeps_the_share_of_rewards_that_would_have_it_the_other_way_round() -> None:
    agreed = {"a": of_two(0.2, 4.0), "b": of_two(0.1, 3.0)}
    assert pair_of(agreed, 0)["pair"]["disagreement"] == 0
    split = {"a": of_two(0.1, 5.0), "b": of_two(0.12, 3.0)}
    pair = pair_of(split, 0)["pair"]
    assert (pair["chosen"]["policy"], pair["disagreement"]) == ("a", 0.25)
    tied = {"a": of_two(0.1, 5.0), "b": of_two(0.1, 3.0)}
    assert pair_of(tied, 0)["pair"]["disagreement"] == 0, "one score for both is no disagreement"
    alone: Any = {"a": rated(0.2), "b": rated(0.1)}
    assert "disagreement" not in pair_of(alone, 0)["pair"]


def test_pairs_that_rewards_disagree_about_are_left_out_with_that_reason() -> None:
    split = {"a": of_two(0.1, 5.0), "b": of_two(0.12, 3.0)}
    assert pair_of(split, 0, max_disagreement=0.2) == {"no_pair": "rewards disagree"}
    assert "pair" in pair_of(split, 0, max_disagreement=0.25)
    assert "pair" in pair_of(split, 0)


def test_keys_of_pairs_know_of_an_ensemble_only_where_there_is_one(
    demo_models: Path, tmp_path: Path
) -> None:
    class Told:
        settings = BuildPairsJob(
            policies=["a", "b"],
            min_margin=0,
            max_length=512,
            prompt_template="",
            base_model=Model(model=str(demo_models / "llava-1.5")),
        )

        @staticmethod
        def key(**inputs: Any) -> str:
            return json.dumps(inputs)

    def key(responses: dict[str, Any]) -> str:
        row = ranking(0, responses)
        job: Any = Told
        return item_of(row, job, "", {}, False, {}).key

    assert "max_disagreement" not in deciding(Told.settings)
    assert "parts" not in key({"a": rated(0.2), "b": rated(0.1)})
    first = key({"a": of_two(0.1, 5.0), "b": of_two(0.12, 3.0)})
    # The same scores by other rewards: another disagreement.
    other = {"a": of_two(0.1, 5.0), "b": of_two(0.12, 3.0)}
    other["a"]["parts"]["text"]["standardised"] += 9
    assert key(other) != first


# --- configuration, and what is made of it


def configured(demo_models: Path, **changes: Any) -> Any:
    reward = {"kind": "armorm", "model": str(demo_models / "armorm")}
    judge = {"kind": "vlm-judge", "model": str(demo_models / "llava-v1.6-mistral")}
    block = {"rewards": {"armorm": reward, "judge": judge}, "weights": {"judge": 2.0}}
    return load_config({"response_ranking": block} | changes, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"response_ranking": {"rewards": {}}},
            r"response_ranking.rewards: Dictionary should have at least 1 item",
        ),
        (
            {"response_ranking": {"rewards": {"text": {}}, "weights": {"txt": 2}}},
            "`weights` has 'txt', but `rewards` has text",
        ),
        (
            {"response_ranking": {"rewards": {"text": {}}, "weights": {"text": 0}}},
            "response_ranking.weights.text: Input should be greater than 0",
        ),
        (
            {"response_ranking": {"rewards": {"text": {}}, "weight": {"text": 1}}},
            "Did you mean `weights`",
        ),
        (
            {"response_ranking": {"rewards": {"text": {"kind": "armor"}}}},
            "there is no response reward 'armor'. Did you mean 'armorm'",
        ),
        ({"pairs": {"max_disagreement": 0.2}}, "`pairs.max_disagreement` is of several rewards"),
        ({"pairs": {"max_disagreement": 2}}, "less than or equal to 1"),
    ],
)
def test_an_ensemble_that_cannot_rank_is_refused_with_its_key(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_config(changes, [])


def test_each_reward_s_model_is_looked_for_only_where_its_own_jobs_run(demo_models: Path) -> None:
    plan = Plan(configured(demo_models))
    shard = {"topic": "art", "shard": "00"}
    needs = needs_of(plan, [("rank_responses", {"reward": "judge", **shard})])
    assert set(needs.models) == {"response_ranking.rewards.judge"}
    assert not needs_of(plan, [("combine_rewards", shard)]).models


def test_rewards_of_different_environments_are_refused_where_a_rule_can_have_one(
    demo_models: Path,
) -> None:
    rule = SimpleNamespace(conda_env=lambda wildcards: "", script="../scripts/rank_responses.py")
    with pytest.raises(UserError, match=r"response_ranking\.rewards: they need different env"):
        environment_of(rule, configured(demo_models))
    assert environment_of(rule, load_config({}, [])) == "rewards"


def test_vllm_is_asked_for_where_a_reward_runs_on_it(demo_models: Path) -> None:
    judge = {"kind": "vlm-judge", "model": str(demo_models / "llava-v1.6-mistral")}
    stages = {name: {"backend": "transformers"} for name in ("responses", "evaluation")}
    for backend, is_spared in (("vllm", False), ("transformers", True)):
        rewards = {"judge": judge | {"backend": backend}}
        config = load_config({"response_ranking": {"rewards": rewards}, **stages}, [])
        assert ("vllm" in spared_packages(config)) == is_spared


def test_the_card_names_every_reward_and_the_configuration_has_them(demo_models: Path) -> None:
    config = configured(demo_models, pairs={"max_disagreement": 0.25})
    job = cards.data_set_card_job(Plan(config))
    ranked = [model.rule for model in job.models if model.does == "ranks the answers"]
    assert ranked == ["rank_responses/armorm", "rank_responses/judge"]
    assert set(job.configuration["response_ranking"]["rewards"]) == {"armorm", "judge"}
    assert job.configuration["pairs"]["max_disagreement"] == 0.25
    assert job.rewards_that_see == "some"


def test_a_reward_of_an_ensemble_may_have_a_rate_of_its_own() -> None:
    rates = Rates.model_validate(
        {
            "every_job": {"seconds": 0, "assumed": "a test"},
            "other_jobs": {"seconds": 0, "assumed": "a test"},
            "stages": {
                "rank_responses": {"seconds": 1, "assumed": "a test"},
                "rank_responses/judge": {"seconds": 9, "assumed": "a test"},
            },
        }
    )
    seconds = {
        reward: rates.of(PlannedJob("rank_responses", {"reward": reward}, 1)).seconds
        for reward in ("armorm", "judge")
    }
    assert seconds == {"armorm": 1, "judge": 9}


def test_each_reward_has_its_line_in_the_table_of_rewards_and_lengths() -> None:
    def response(length: int, text: float, judge: float) -> Any:
        return {**of_two(text, judge), "text": "x" * length}

    row = ranking(0, {"a": response(8, 0.1, 5.0), "b": response(16, 0.2, 3.0)})
    table = build_table([row], "armorm + vlm-judge", "ours", False)
    lines = {line.texts["score"]: line.values["best_is_longer"] for line in table.rows}
    assert lines == {"reward": 0, "text": 100, "judge": 0}


# --- a whole chain


@pytest.mark.slow
def test_an_ensemble_is_added_to_a_finished_run_and_only_what_is_new_is_computed(
    finished_copy: Project,
) -> None:
    project = finished_copy
    root = project.folder / "results/random"

    def records(rule: str) -> dict[str, Any]:
        folder = root / "work" / rule
        return {
            path.relative_to(folder).as_posix(): json.loads(path.read_text())
            for path in folder.rglob("*.json")
        }

    def add_judge(values: dict[str, Any]) -> None:
        judge = {"kind": "vlm-judge", "model": "demo/models/llava-v1.6-mistral", "dtype": "float32"}
        rewards = {"armorm": values["response_ranking"], "judge": judge}
        values["response_ranking"] = {"rewards": rewards}
        values["pairs"]["max_disagreement"] = 0.0

    project.edit_config(add_judge)
    before = records("rank_responses")
    target = "results/random/tables/reasons_table.json"
    project.snakemake(target)
    done = {name: each for name, each in records("rank_responses").items() if name not in before}
    assert {name.split("/")[0] for name in done} == {"armorm", "judge"}
    for name, each in done.items():
        assert bool(each["computed"]) == name.startswith("judge"), "ArmoRM's scores were there"
    ranked = [
        row
        for path in sorted((root / "response_ranking").rglob("*.jsonl"))
        for row in present(read_shard(path, ResponseRankingRow).values())
    ]
    valid = [each for row in ranked for each in row["responses"].values() if "score" in each]
    assert valid
    for response in valid:
        assert set(response["parts"]) == set(response["attributes"]) == {"armorm", "judge"}
        assert "ratings" in response["parts"]["judge"]["details"]
        assert "gating" in response["parts"]["armorm"]["details"]
    pairs = [
        json.loads(line)
        for path in (root / "pairs").rglob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert all(row["pair"]["disagreement"] == 0 for row in pairs if "pair" in row)
    left_out = sum(row.get("no_pair") == "rewards disagree" for row in pairs)
    table = (root / "tables/reasons_table.md").read_text()
    assert ("rewards disagree" in table) == bool(left_out)

    def weigh(values: dict[str, Any]) -> None:
        values["response_ranking"]["weights"] = {"judge": 3.0}

    project.edit_config(weigh)
    plan = project.snakemake(target, "-n", "--quiet", "rules").stdout
    assert "combine_rewards" in plan
    assert "fit_rewards" not in plan
    assert "rank_responses" not in plan

    # Back to one reward: its files are now the ensemble's, whatever Snakemake remembers.
    def rank_alone(values: dict[str, Any]) -> None:
        values["response_ranking"] = values["response_ranking"]["rewards"]["armorm"]
        del values["pairs"]["max_disagreement"]

    project.edit_config(rank_alone)
    shutil.rmtree(project.folder / ".snakemake")
    plan = project.snakemake(target, "-n").stdout
    assert "rank_responses" in plan
