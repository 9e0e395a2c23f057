"""Responses that can be part of a pair, told from those that cannot; also on the published data's
own.
"""

import json

import pytest

from conftest import GOLDEN, needs_golden
from lib.response_checks import invalid_reason


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("A red cube.", "stop", None),
        ("Two.", "stop", None),
        ("是的，有两只猫。", "stop", None),
        ("", "stop", "empty"),
        (" \n\t ...", "stop", "empty"),
        ("A red cube and", "length", "truncated"),
        ("very very very good", "stop", None),
        ("no " * 7, "stop", "repeating"),
        ("It is a cat and " + "a dog sits there, " * 7, "length", "repeating"),
        ("The image shows a cat. " * 4, "stop", None),
        ("The image shows a cat. " * 6, "stop", "repeating"),
        (
            " ".join(
                f"{n}. {'A dog runs home' if n % 2 else 'A cat sits there'}: quite so."
                for n in range(14)
            ),
            "stop",
            "repeating",
        ),
        (
            (
                "There is a cat. There is a dog. There is a cow. There is a pig. There is a hen."
                " There is a fox. There is a bee."
            ),
            "stop",
            None,
        ),
    ],
)
def test_empty_truncated_and_endlessly_repeating_answers_are_told_from_valid_ones(
    text, finish_reason, reason
):
    assert invalid_reason(text, finish_reason, max_repeats=5) == reason


@needs_golden
def test_the_published_sample_s_empty_and_run_on_answers_would_not_have_become_pairs():
    pairs = {
        pair["id"]: pair
        for pair in json.loads((GOLDEN / "upstream/pairs.json").read_text(encoding="utf-8"))
    }
    rejected = {name: pair["rejected_conversations"][1]["value"] for name, pair in pairs.items()}
    found = {name: invalid_reason(text, "stop", max_repeats=5) for name, text in rejected.items()}
    assert {name: reason for name, reason in found.items() if reason} == {
        "art-2": "empty",
        "art-3": "empty",
        "art-5": "repeating",
    }
    chosen = [pair["conversations"][1]["value"] for pair in pairs.values()]
    assert [invalid_reason(text, "stop", max_repeats=5) for text in chosen] == [None] * 10
