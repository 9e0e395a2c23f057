"""Pairs: best against worst of the valid responses, and a reason wherever there is no pair."""

import pytest

from build_pairs import image_tokens, pair_of, same_after_truncation
from lib.response_checks import invalid_reason


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


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("A red cube.", "stop", None),
        ("是的，有两只猫。", "stop", None),
        ("", "stop", "empty"),
        (" \n\t ...", "stop", "empty"),
        ("A red cube and", "length", "truncated"),
        ("very very very good", "stop", None),
        ("no " * 7, "stop", "repeating"),
        ("It is a cat and " + "a dog sits there, " * 7, "length", "repeating"),
        ("The image shows a cat. " * 4, "stop", None),
    ],
)
def test_empty_truncated_and_endlessly_repeating_answers_are_told_from_valid_ones(text, finish_reason, reason):
    assert invalid_reason(text, finish_reason, max_repeats=5) == reason
