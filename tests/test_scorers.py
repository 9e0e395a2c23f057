"""Scorers: each equals its reference on released answers whose scores are known, to the last digit."""

import os
from pathlib import Path

import pytest

from lib.scorers import SCORERS

GOLDEN = Path(os.environ.get("GOLDEN_DIR") or Path(__file__).resolve().parent.parent.parent / "shared/golden")
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no released answers at {GOLDEN} (GOLDEN_DIR names another place)")


def scored(benchmark, answers, *reference, **options):
    scorer = SCORERS[benchmark]
    return scorer.score(scorer.read_answers(answers), scorer.read_reference(*reference), **options)


# -------------------------------------------------------------------------------------------------------------------------- golden


@needs_golden
def test_pope_equals_the_reference_on_llava_s_released_answers():
    score = scored("pope", GOLDEN / "pope/llava-v1.5-13b.jsonl", GOLDEN / "pope")
    found = {
        split: [values[name] for name in ("tp", "fp", "tn", "fn")]
        + [
            round(values[name] / 100, digits)
            for name, digits in (("accuracy", 4), ("precision", 4), ("recall", 3), ("f1", 4), ("yes_ratio", 3))
        ]
        for split, values in score.per_type.items()
    }
    assert found == {
        "adversarial": [1182, 117, 1383, 318, 0.8550, 0.9099, 0.788, 0.8446, 0.433],
        "popular": [1182, 59, 1441, 318, 0.8743, 0.9525, 0.788, 0.8625, 0.414],
        "random": [1182, 31, 1379, 318, 0.8801, 0.9744, 0.788, 0.8714, 0.417],
    }
    assert round(score.scores["f1"], 1) == 85.9
    assert not score.problems
