"""Pairs: best against worst of the valid responses, and a reason wherever there is no pair."""

import pytest
from tokenizers import Tokenizer

from build_pairs import image_tokens, pair_of, same_after_truncation, unusable_for_training


def responses(**scores):
    return {policy: {"text": f"answer of {policy}", "score": score} for policy, score in scores.items()}


def test_chosen_is_the_best_and_rejected_the_worst():
    pair = pair_of(responses(a=0.1, b=0.3, c=-0.2, d=0.2), 0)["pair"]
    assert (pair["chosen"]["policy"], pair["rejected"]["policy"]) == ("b", "c")
    assert pair["chosen"]["text"] == "answer of b"
    assert pair["margin"] == pytest.approx(0.5)


def test_of_equals_the_first_in_the_configured_order_is_taken():
    pair = pair_of(responses(a=0.1, b=0.3, c=0.3, d=0.1), 0)["pair"]
    assert (pair["chosen"]["policy"], pair["rejected"]["policy"]) == ("b", "a")


def test_an_invalid_response_is_neither_best_nor_worst():
    answers = responses(a=0.1, b=0.3) | {"c": {"text": "", "invalid": "empty"}, "d": {"invalid": "failed"}}
    pair = pair_of(answers, 0)["pair"]
    assert (pair["chosen"]["policy"], pair["rejected"]["policy"]) == ("b", "a")


@pytest.mark.parametrize(
    ("answers", "min_margin", "reason"),
    [
        (responses(a=0.5, b=0.5, c=0.5), 0, "tie"),
        (responses(a=0.5, b=0.4), 0.2, "margin too small"),
        (responses(a=0.5) | {"b": {"invalid": "truncated"}}, 0, "fewer than two valid responses"),
        ({"a": {"invalid": "empty"}, "b": {"invalid": "repeating"}}, 0, "fewer than two valid responses"),
    ],
)
def test_what_cannot_be_a_pair_leaves_its_reason(answers, min_margin, reason):
    assert pair_of(answers, min_margin) == {"no_pair": reason}


def test_responses_that_differ_only_beyond_what_training_sees_are_the_same():
    assert same_after_truncation([1, 2, 3, 4], [1, 2, 3, 5], room=3)
    assert not same_after_truncation([1, 2, 3, 4], [1, 2, 3, 5], room=4)
    assert not same_after_truncation([1, 2], [1, 2, 3], room=3)


def test_image_tokens_of_llava_1_5_are_576():
    assert image_tokens({"vision_config": {"image_size": 336, "patch_size": 14}}) == 576
    assert image_tokens({"image_seq_length": 16, "vision_config": {}}) == 16


@pytest.fixture(scope="module")
def tokenizer(demo_models):
    return Tokenizer.from_file(str(demo_models / "llava-1.5/tokenizer.json"))


def written(chosen, rejected, instruction="What is it?"):
    return {"instruction": instruction, "pair": {"chosen": {"text": chosen}, "rejected": {"text": rejected}}}


def test_pairs_that_training_could_not_use_are_left_out(tokenizer):
    same_start = written("a big cat", "a big dog")
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in ("a big cat", "a big dog")]
    shared = next(place for place, (left, right) in enumerate(zip(*tokens, strict=False)) if left != right)
    assert shared > 0
    assert unusable_for_training(same_start, tokenizer, shared) == "same after truncation"
    assert unusable_for_training(same_start, tokenizer, shared + 1) is None
    assert unusable_for_training(same_start, tokenizer, 0) == "no room for a response"
    assert unusable_for_training(written("an <image> of a cat", "a dog"), tokenizer, 50) == "special token in a text"
    assert unusable_for_training(written("a cat", "a dog", "What is in the <image>?"), tokenizer, 50) == "special token in a text"
