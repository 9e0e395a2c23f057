"""Response rewards of other kinds than ArmoRM: their numbers, and what is refused early."""

import json
import math
import shutil

import pytest
import torch
from PIL import Image

from conftest import rounding
from lib.errors import UserError
from lib.models.response_rewards.claims import claims_of, share_of_yes
from lib.models.response_rewards.registry import RESPONSE_REWARDS
from lib.models.response_rewards.vlm_judge import reward_of
from lib.models.rubric import filled
from tiny.checkpoints import build_checkpoint, hold_lock
from tiny.registry import ON_DEMAND

QUESTION = {"role": "user", "content": "What is on the table?"}
ANSWERS = ("A cup.", "Two red cups and a blue plate are on the table.", "No")


def conversation(answer, **question):
    return [QUESTION | question, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="module")
def text_reward(demo_models):
    with hold_lock(demo_models / ".lock"):
        build_checkpoint("text-reward", ON_DEMAND["text-reward"], demo_models)
    return demo_models / "text-reward"


def loaded(folder, **settings):
    values = {"model": str(folder), "dtype": "float32", **settings}
    return RESPONSE_REWARDS.load_model(RESPONSE_REWARDS.validate(values), "cpu")


def changed_config(folder, tmp_path, **changes):
    """A copy of a checkpoint whose config.json says something else."""
    copy = shutil.copytree(folder, tmp_path / "changed")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    return copy


@pytest.mark.numeric
def test_a_text_reward_is_what_its_model_card_computes(text_reward):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(text_reward).eval()
    tokenizer = AutoTokenizer.from_pretrained(text_reward)
    rewards = loaded(text_reward).rate([conversation(answer) for answer in ANSWERS])
    for answer, reward in zip(ANSWERS, rewards, strict=True):
        ids = tokenizer.apply_chat_template(
            conversation(answer), tokenize=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            expected = model(**ids).logits[0][0].item()
        assert reward.score == pytest.approx(expected, abs=rounding(64))
        assert reward.details == {"cut_for_scoring": False}


def test_the_head_of_a_text_reward_is_computed_in_float32(text_reward):
    rewards = loaded(text_reward, dtype="bfloat16").rate([conversation(each) for each in ANSWERS])
    exact = [torch.tensor(reward.score).bfloat16().item() for reward in rewards]
    assert [reward.score for reward in rewards] != exact


def test_a_long_response_is_cut_at_its_end_for_scoring_and_a_long_prompt_leaves_no_room(
    text_reward,
):
    whole = loaded(text_reward).tokenize(conversation("one two three four"))[0]
    model = loaded(text_reward, max_length=len(whole) - 2)
    ids, is_cut = model.tokenize(conversation("one two three four"))
    assert (len(ids), is_cut) == (len(whole) - 2, True)
    assert ids[-1] == whole[-1], "the mark of the turn's end stays"
    assert ids == loaded(text_reward).tokenize(conversation("one two"))[0]
    assert model.rate([conversation("one two three four")])[0].details == {"cut_for_scoring": True}
    with pytest.raises(ValueError, match="leaves no room for a response"):
        loaded(text_reward, max_length=9).rate([conversation("one two three four")])


def test_the_kind_of_a_reward_may_be_left_out_where_its_checkpoint_tells_it(
    text_reward, demo_models
):
    for folder, kind in ((text_reward, "sequence-classification"), ("armorm", "armorm")):
        settings = RESPONSE_REWARDS.validate({"model": str(demo_models / folder)})
        assert settings.kind == kind
    assert RESPONSE_REWARDS.validate({}).kind == "armorm"
    not_here = RESPONSE_REWARDS.validate({"model": "acme/reward"})
    assert not_here.kind == "armorm"


def test_a_reward_of_another_kind_than_configured_is_told_the_kind_to_name(text_reward):
    with pytest.raises(UserError, match="it is one of `kind: sequence-classification`"):
        loaded(text_reward, kind="armorm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "has 3 outputs, and a reward has one"),
        ({"id2label": None}, "has 2 outputs"),
        ({"architectures": ["LlamaForCausalLM"]}, "holds no model for sequence classification"),
    ],
)
def test_a_model_that_gives_no_one_reward_is_refused_with_the_configuration(
    text_reward, tmp_path, changes, message
):
    folder = changed_config(text_reward, tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        RESPONSE_REWARDS.validate({"kind": "sequence-classification", "model": str(folder)})


# --- a judge that sees


@pytest.fixture
def judge(demo_models):
    """A loaded tiny judge, and the file of a picture."""
    return loaded(demo_models / "llava-v1.6-mistral", kind="vlm-judge")


def picture(tmp_path, colour):
    path = tmp_path / f"{colour}.png"
    Image.new("RGB", (48, 40), colour).save(path)
    return str(path)


def test_a_judge_s_score_is_the_expected_value_of_its_ratings(judge, tmp_path):
    red = picture(tmp_path, "red")
    rewards = judge.rate([conversation(answer, image=red) for answer in ANSWERS])
    for reward in rewards:
        shares = reward.details["ratings"]
        assert list(shares) == ["1", "2", "3", "4", "5"]
        assert sum(shares.values()) == pytest.approx(1)
        assert reward.score == pytest.approx(sum(int(n) * share for n, share in shares.items()))
        assert 0 < reward.details["rating_probability"] <= 1
    assert reward_of({"1": -1000.0, "5": -1000.0}).score == 3, "however unlikely ratings are"
    assert math.isnan(reward_of({"1": -math.inf, "5": -math.inf}).score)


def test_a_judge_sees_the_picture(judge, tmp_path):
    red, blue = (
        judge.rate([conversation("A cup.", image=picture(tmp_path, colour))])[0].score
        for colour in ("red", "blue")
    )
    assert red != blue
    with pytest.raises(ValueError, match="has to see the picture"):
        judge.rate([conversation("A cup.")])


def test_braces_in_a_response_are_text():
    words = {"instruction": "What is it?", "response": "A {instruction} of {nothing}"}
    assert (
        filled("{response}, {instruction}", **words) == "A {instruction} of {nothing}, What is it?"
    )


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"rubric": "How good is it?"}, "has no `{response}`"),
        ({"rubric": "{response} {answer}"}, "knows no `{answer}`. Known here: `{instruction}`"),
        ({"lowest": 5}, r"`highest` \(5\) has to be above `lowest` \(5\)"),
        ({"highest": 10}, "less than or equal to 9"),
        ({"backend": "vlm"}, "Did you mean 'vllm'"),
        ({"model": "instruct-llm"}, "is no vision-language model"),
    ],
)
def test_a_judge_that_cannot_judge_is_refused_with_the_configuration(demo_models, told, message):
    model = str(demo_models / told.get("model", "llava-1.5"))
    with pytest.raises(ValueError, match=message):
        RESPONSE_REWARDS.validate({"kind": "vlm-judge", **told, "model": model})


# --- claims


def test_the_claims_of_an_answer_are_its_sentences_and_lines():
    answer = """\
There are 2.5 cups (red). "Two plates!" Who knows?

1. A dog
- a cat. It sleeps.
---
桌上有杯子。还有盘子。"""
    assert claims_of(answer) == [
        "There are 2.5 cups (red).",
        '"Two plates!"',
        "Who knows?",
        "A dog",
        "a cat.",
        "It sleeps.",
        "桌上有杯子。",
        "还有盘子。",
    ]
    assert claims_of(" ?! ") == ["?!"]


def test_a_share_of_yes_is_that_of_the_two_probabilities():
    assert share_of_yes(math.log(0.06), math.log(0.02)) == pytest.approx(0.75)
    assert share_of_yes(-1000.0, -math.inf) == 1
    assert share_of_yes(-math.inf, -1000.0) == 0
    assert math.isnan(share_of_yes(-math.inf, -math.inf))


@pytest.mark.numeric
@pytest.mark.parametrize("score", ["mean", "failed"])
def test_claims_are_asked_one_by_one_and_those_that_fail_are_kept(demo_models, tmp_path, score):
    model = loaded(demo_models / "llava-v1.6-mistral", kind="claims", score=score)
    red, texts = picture(tmp_path, "red"), ["A cup.", "Two red cups!", "A dog is near the lamp."]
    (reward,) = model.rate([conversation(" ".join(texts), image=red)])
    claims = reward.details["claims"]
    assert [claim["text"] for claim in claims] == texts
    for text, claim in zip(texts, claims, strict=True):
        (alone,) = model.rate([conversation(text, image=red)])
        assert alone.details["claims"][0]["yes"] == pytest.approx(claim["yes"], abs=rounding(256))
    failed = [claim["text"] for claim in claims if claim["yes"] < 0.5]
    assert reward.details["failed_claims"] == failed
    mean = sum(claim["yes"] for claim in claims) / len(claims)
    assert reward.score == (-len(failed) if score == "failed" else pytest.approx(mean))
