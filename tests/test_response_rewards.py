"""Response rewards of other kinds than ArmoRM: their numbers, and what is refused early."""

import json
import shutil

import pytest
import torch

from conftest import rounding
from lib.models.response_rewards.registry import RESPONSE_REWARDS
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
    with pytest.raises(ValueError, match="acme/reward is not on this machine yet to tell it"):
        RESPONSE_REWARDS.validate({"model": "acme/reward"})


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
