"""Response ranking: valid responses are rewarded together, the others say why they are not."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

import rank_responses
from conftest import DEVICE, rounding
from lib.config.response_ranking import RankResponsesJob
from lib.data.prompts import Prompt
from lib.data.rows import ResponseRankingRow
from lib.data.shards import missing_row, read_shard
from lib.errors import UserError
from lib.files import write_jsonl
from lib.models.response_rewards.armorm import ATTRIBUTES, HELPSTEER_ATTRIBUTES, ArmoRM
from lib.models.response_rewards.base import Reward
from lib.models.response_rewards.registry import RESPONSE_REWARDS
from lib.models.response_rewards.settings import LocalRewardSettings
from tiny.armorm import write_armorm

REPOSITORY = Path(__file__).resolve().parent.parent
POLICIES = ["zeta", "alpha", "mu"]
PROMPTS = ["two blue cats on a red sofa", "猫が三匹 and a dog"]
ANSWERS = {
    "zeta": "Two cats.",
    "alpha": "There are two blue cats on a sofa.\n\nIt is red.",
    "mu": "Cats<|eot_id|> 😀 and a sofa.",
}
IMAGE = {"file": "images/art/00/x.png", "sha256": "0" * 64, "guidance_scale": 7.0, "score": 0.3}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "armorm"
    write_armorm(folder)
    return folder


@pytest.fixture
def settings(model):
    return {"model": str(model), "dtype": "float32"}


def base(text):
    return {"id": Prompt("art", text).id, "topic": "art", "prompt": text}


def answered(text, response, finish_reason="stop"):
    instruction = f"What is in the image of {text}?"
    row = {**base(text), "image": IMAGE, "instruction": instruction, "response": response}
    return row | {"finish_reason": finish_reason, "tokens": 5}


def failed(text, reason="out of memory"):
    return missing_row(base(text), "generate_responses", reason)


@pytest.fixture
def shards():
    """Rows of the responses stage by policy model: two prompts, all answered."""
    return {
        policy: [answered(text, f"{answer} {text}") for text in PROMPTS]
        for policy, answer in ANSWERS.items()
    }


@pytest.fixture
def run(tmp_path, rule_object, settings):
    """Runs the rule on the rows of each policy model; gives the published rows by prompt text."""
    root = tmp_path / "run"

    def go(shards, max_failed_fraction=0.0, policies=None, **changes):
        sources = [root / f"responses/{policy}/art/00.jsonl" for policy in shards]
        for source, rows in zip(sources, shards.values(), strict=True):
            write_jsonl(source, sorted(rows, key=lambda row: row["id"]))
        output = root / "response_ranking/art/00.jsonl"
        common = {"max_failed_fraction": max_failed_fraction}
        told = RankResponsesJob(reward=settings | changes, policies=policies or list(shards))
        inputs, outputs = [str(source) for source in sources], [str(output)]
        rank_responses.main(
            rule_object(
                "rank_responses",
                {"topic": "art", "shard": "00"},
                inputs,
                outputs,
                settings=told.model_dump(mode="json"),
                common=common,
            )
        )
        return {row["prompt"]: row for row in read_shard(output, ResponseRankingRow).values()}

    return go


def record(tmp_path):
    return json.loads((tmp_path / "run/work/rank_responses/art/00.json").read_text())


def conversation(row, policy):
    return [
        {"role": "user", "content": row["instruction"]},
        {"role": "assistant", "content": row["responses"][policy]["text"]},
    ]


@pytest.mark.numeric
def test_score_attributes_rewards_and_gating_of_each_response_are_kept(run, shards, model):
    published = run(shards)
    armorm = ArmoRM.from_pretrained(model, dtype="float32", device=DEVICE)
    for text in PROMPTS:
        row = published[text]
        assert (row["image"], row["instruction"]) == (IMAGE, f"What is in the image of {text}?")
        expected = armorm.rate([conversation(row, policy) for policy in POLICIES])
        assert set(row["responses"]) == set(POLICIES)
        for policy, reward in zip(POLICIES, expected, strict=True):
            response = row["responses"][policy]
            assert response["text"] == f"{ANSWERS[policy]} {text}"
            assert response["score"] == reward.score
            assert {name: response[name] for name in reward.details} == reward.details
            assert set(response["attributes"]) == set(HELPSTEER_ATTRIBUTES)
            assert set(response["gating"]) == set(response["rewards"]) == set(ATTRIBUTES)
            assert (response["finish_reason"], response["cut_for_scoring"]) == ("stop", False)
            assert response["score"] == pytest.approx(
                armorm.rate([conversation(row, policy)])[0].score, abs=rounding(64)
            )


def test_the_reward_model_is_told_what_the_image_was_to_show_where_the_template_says_so(
    run, shards, model
):
    shards = {policy: [answered("{instruction} {x}", answer)] for policy, answer in ANSWERS.items()}
    (row,) = run(shards, template="It was to show {prompt}. {instruction}").values()
    armorm = ArmoRM.from_pretrained(model, dtype="float32", device=DEVICE)
    words = "It was to show {instruction} {x}. What is in the image of {instruction} {x}?"
    told = [
        [{"role": "user", "content": words}, {"role": "assistant", "content": ANSWERS[policy]}]
        for policy in POLICIES
    ]
    assert [row["responses"][policy]["score"] for policy in POLICIES] == [
        reward.score for reward in armorm.rate(told)
    ]
    assert row["instruction"] == "What is in the image of {instruction} {x}?", (
        "what the policy models were asked stays"
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("It was to show {prompt}.", "has no `{instruction}`"),
        ("{instruction} {image}", "knows no `{image}`"),
    ],
)
def test_a_template_that_the_reward_model_could_not_use_is_refused(template, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        ArmoRM.Settings(template=template)


@pytest.mark.parametrize(
    ("response", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        ("A red", "length", "truncated"),
        ("no " * 9, "stop", "repeating"),
    ],
)
def test_an_invalid_response_is_marked_and_not_scored(
    run, shards, tmp_path, response, finish_reason, reason
):
    shards["alpha"][0] = answered(PROMPTS[0], response, finish_reason)
    row = run(shards)[PROMPTS[0]]
    assert row["responses"]["alpha"] == {
        "text": response,
        "finish_reason": finish_reason,
        "invalid": reason,
    }
    assert all("score" in row["responses"][policy] for policy in ("zeta", "mu"))
    assert record(tmp_path)["failed"] == 0


def test_a_policy_model_without_a_response_does_not_stop_the_others(run, shards):
    shards["zeta"][0] = failed(PROMPTS[0])
    published = run(shards)
    assert published[PROMPTS[0]]["responses"]["zeta"] == {
        "invalid": "failed",
        "detail": "out of memory",
    }
    assert all("score" in published[PROMPTS[0]]["responses"][policy] for policy in ("alpha", "mu"))
    assert all("score" in published[PROMPTS[1]]["responses"][policy] for policy in POLICIES)


def test_samples_of_a_policy_model_are_ranked_like_other_policy_models(run, shards):
    apart = run(shards)
    sample = [
        {name: row[name] for name in ("response", "finish_reason", "tokens")}
        for policy in ("alpha", "mu")
        for row in shards[policy]
    ]
    shared = [
        base(text) | {"image": IMAGE, "instruction": row["instruction"]}
        for text, row in zip(PROMPTS, shards["mu"], strict=True)
    ]
    samples = [[sample[number], sample[number + 2], {"failed": "no words"}] for number in (0, 1)]
    rows = [row | {"samples": each} for row, each in zip(shared, samples, strict=True)]
    names = ["llava#1", "llava#2", "llava#3", "zeta"]
    together = run({"llava": rows, "zeta": shards["zeta"]}, policies=names)
    for text in PROMPTS:
        of_policies, of_samples = apart[text]["responses"], together[text]["responses"]
        assert list(of_samples) == names
        for name, policy in (("llava#1", "alpha"), ("llava#2", "mu"), ("zeta", "zeta")):
            assert of_samples[name]["text"] == of_policies[policy]["text"]
            near = pytest.approx(of_policies[policy]["score"], abs=rounding(64))
            assert of_samples[name]["score"] == near
        assert of_samples["llava#3"] == {"invalid": "failed", "detail": "no words"}
    lost = [failed(text) for text in PROMPTS]
    of_lost = run({"llava": lost, "zeta": shards["zeta"]}, policies=names)
    assert of_lost[PROMPTS[0]]["responses"]["llava#3"]["invalid"] == "failed"


def test_a_prompt_that_nobody_answered_is_missing_with_the_reason(run, shards, tmp_path):
    for policy in POLICIES:
        shards[policy][0] = failed(PROMPTS[0], f"{policy} failed")
    gone = missing_row(base(PROMPTS[1]), "write_instructions", "not a question")
    for policy in POLICIES:
        shards[policy][1] = gone
    published = run(shards)
    assert published[PROMPTS[0]]["missing"] == {
        "rule": "generate_responses",
        "reason": "zeta failed",
    }
    assert published[PROMPTS[1]] == gone
    assert record(tmp_path)["items"] == 0


def test_where_all_responses_are_invalid_no_model_is_loaded(run, shards, monkeypatch):
    monkeypatch.setattr(
        rank_responses, "load_reward", lambda *arguments: pytest.fail("a model was loaded")
    )
    published = run({policy: [answered(text, "") for text in PROMPTS] for policy in POLICIES})
    assert published[PROMPTS[0]]["responses"] == {
        policy: {"text": "", "finish_reason": "stop", "invalid": "empty"} for policy in POLICIES
    }


def test_a_score_that_is_not_a_number_makes_its_response_invalid(run, shards, monkeypatch):
    load = rank_responses.load_reward

    def load_broken(settings, device):
        armorm = load(settings, device)
        rate = armorm.rate

        def rate_badly(conversations):
            first, second, *others = rate(conversations)
            return [first, replace(second, score=math.nan), *others]

        monkeypatch.setattr(armorm, "rate", rate_badly)
        return armorm

    monkeypatch.setattr(rank_responses, "load_reward", load_broken)
    responses = run(shards)[PROMPTS[0]]["responses"]
    assert responses["alpha"] == {
        "text": f"{ANSWERS['alpha']} {PROMPTS[0]}",
        "finish_reason": "stop",
        "invalid": "nan",
    }
    assert math.isfinite(responses["mu"]["score"])


def test_special_tokens_in_a_response_are_data(run, shards):
    published = run(shards)[PROMPTS[0]]["responses"]["mu"]
    shards["mu"][0] = answered(PROMPTS[0], "Cats")
    assert run(shards)[PROMPTS[0]]["responses"]["mu"]["score"] != published["score"]
    assert published["text"].startswith("Cats<|eot_id|> 😀")


def test_a_response_that_is_cut_for_scoring_says_so_and_keeps_its_text(run, shards):
    words = " ".join(f"thing {number} stands there," for number in range(60))
    shards["alpha"][0] = answered(PROMPTS[0], words)
    response = run(shards, max_length=300)[PROMPTS[0]]["responses"]["alpha"]
    assert response["cut_for_scoring"]
    assert response["text"] == words


def test_an_instruction_that_leaves_no_room_fails_its_prompt_with_the_reason(run, shards):
    published = run(shards, max_length=20, max_failed_fraction=1.0)
    assert "leaves no room for a response in 20" in published[PROMPTS[0]]["missing"]["reason"]


def test_a_prompt_is_scored_again_only_when_something_it_depends_on_has_changed(
    run, shards, tmp_path
):
    def computed(**changes):
        run(shards, **changes)
        return record(tmp_path)["computed"]

    assert computed() == 2
    assert computed() == 0
    assert computed(policies=["a", "b", "c"]) == 0
    assert computed(max_repeats=4) == 0
    assert computed(max_length=2000) == 2
    shards["mu"][1] = answered(PROMPTS[1], "Something else.")
    assert computed() == 1


def test_a_response_is_rewarded_as_in_any_other_shard(run, shards, tmp_path):
    together = run(shards)
    for path in (tmp_path / "run/work").rglob("*.journal.jsonl"):
        path.unlink()
    assert (
        run({policy: rows[1:] for policy, rows in shards.items()})[PROMPTS[1]]
        == together[PROMPTS[1]]
    )


def test_a_warm_shard_loads_no_model(run, shards, tmp_path, monkeypatch):
    first = run(shards)
    monkeypatch.setattr(
        rank_responses, "load_reward", lambda *arguments: pytest.fail("a model was loaded")
    )
    assert run(shards) == first
    assert (
        record(tmp_path)["computed"],
        record(tmp_path)["reused"],
        record(tmp_path)["load_seconds"],
    ) == (0, 2, 0)


def test_a_model_that_is_no_armorm_ends_in_one_message(run, shards, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not usable as the response reward that is configured"):
        run(shards, model=str(tmp_path))


class WordCount:
    """A reward of a few lines, as someone might add one."""

    VERSION = 1

    class Settings(LocalRewardSettings):
        kind: Literal["word-count"]

    @classmethod
    def load(cls, settings, device):
        return cls()

    def rate(self, conversations):
        return [Reward(len(turns[-1]["content"].split()), {}) for turns in conversations]


def test_a_reward_of_another_file_is_found_by_its_kind_and_ranks(
    run, shards, tmp_path, monkeypatch
):
    monkeypatch.setitem(RESPONSE_REWARDS.kinds, "word-count", f"{__name__}:WordCount")
    responses = run(shards, kind="word-count")[PROMPTS[0]]["responses"]
    assert {policy: response["score"] for policy, response in responses.items()} == {
        policy: len(f"{answer} {PROMPTS[0]}".split()) for policy, answer in ANSWERS.items()
    }
    assert set(responses["mu"]) == {"text", "finish_reason", "score"}
    run(shards)
    assert record(tmp_path)["computed"] == 2, "ArmoRM's rewards are its own"
    monkeypatch.setattr(WordCount, "VERSION", 2)
    run(shards)
    assert record(tmp_path)["computed"] == 0
    run(shards, kind="word-count")
    assert record(tmp_path)["computed"] == 2


class Witness(WordCount):
    """A reward that sees the picture: it says which."""

    class Settings(LocalRewardSettings):
        SEES_IMAGE = True
        kind: Literal["witness"]

    def rate(self, conversations):
        return [Reward(1.0, {"seen": Path(turns[0]["image"]).name}) for turns in conversations]


def test_a_reward_that_sees_is_given_the_picture_and_rates_anew_only_what_has_another(
    run, shards, tmp_path, monkeypatch
):
    monkeypatch.setitem(RESPONSE_REWARDS.kinds, "witness", f"{__name__}:Witness")
    assert run(shards, kind="witness")[PROMPTS[0]]["responses"]["mu"]["seen"] == "x.png"
    run(shards)
    for computed, changes in ((0, {"file": "images/y.png"}), (1, {"sha256": "1" * 64})):
        for policy in shards:
            shards[policy][0] = shards[policy][0] | {"image": IMAGE | changes}
        run(shards, kind="witness")
        assert record(tmp_path)["computed"] == computed
        run(shards)
        assert record(tmp_path)["computed"] == 0, "ArmoRM does not see it"
