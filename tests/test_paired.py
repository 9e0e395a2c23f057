"""Base against trained on the same questions: what changed, and whether by more than chance."""

from pathlib import Path

import pytest

from lib.files import write_jsonl
from lib.paired import (
    ScoredAnswer,
    bootstrap_difference,
    changes,
    compare,
    is_clear,
    mcnemar,
    read_answers,
    say_comparison,
)


def answers(*scores: float, pictures: int = 1000) -> dict[str, ScoredAnswer]:
    return {
        str(number): ScoredAnswer("a question", f"says {score}", score, f"p{number % pictures}")
        for number, score in enumerate(scores)
    }


def test_mcnemar_is_exact_and_looks_at_the_questions_that_changed_only() -> None:
    # Both sides of a binomial of one half: 2 * (1 + 10) / 2 ** 10 for 9 against 1.
    assert mcnemar(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar(1, 9) == mcnemar(9, 1)
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 0) == 1


def test_yes_or_no_scores_are_tested_exactly_and_others_by_bootstrap() -> None:
    found = compare(answers(0, 0, 1, 1), answers(1, 1, 1, 0), seed=0)
    assert found is not None
    assert (found["questions"], found["better"], found["worse"]) == (4, 2, 1)
    assert found["difference"] == 0.25
    assert "p" in found
    assert "low" not in found
    graded = compare(answers(0, -2, -1), answers(-1, 0, -1), seed=0)
    assert graded is not None
    assert "p" not in graded
    assert graded["low"] <= graded["difference"] <= graded["high"]


def test_only_questions_that_both_answered_are_compared() -> None:
    found = compare(answers(0, 1, 0), answers(1), seed=0)
    assert found is not None
    assert found["questions"] == 1
    assert compare(answers(), answers(1), seed=0) is None


def test_questions_of_one_picture_are_drawn_together() -> None:
    before = answers(*([0.0] * 60))
    after = answers(*([2.0, 0.0] * 30))
    alone = bootstrap_difference(before, after, seed=0)
    # Sixty questions of two pictures, of which one got better: a share of 0, a half or all.
    grouped = bootstrap_difference(
        answers(*([0.0] * 60)), answers(*([2.0, 0.0] * 30), pictures=2), 0
    )
    assert grouped == (0.0, 2.0)
    assert alone[1] - alone[0] < 1.1
    assert bootstrap_difference(before, after, seed=0) == alone


def test_changes_list_what_changed_most_first() -> None:
    found = changes(answers(0, 0, 1), answers(1, -3, 1))
    assert [(each["id"], each["difference"]) for each in found] == [("1", -3.0), ("0", 1.0)]


def test_a_difference_is_clear_where_chance_would_not_make_it() -> None:
    right = answers(*([1.0] * 10))
    found = compare(answers(*([0.0] * 10)), right, seed=0)
    assert found is not None
    assert is_clear(found)  # 2 / 2 ** 10
    assert say_comparison(found) == (
        "10 of 10 questions better, 0 worse; mean difference +1, p = 0.002 (McNemar, exact)"
    )
    some = compare(right, answers(*([0.0] * 5), *([1.0] * 5)), seed=0)
    assert some is not None
    assert not is_clear(some)  # 2 / 2 ** 5
    graded = compare(answers(1, 2, 3, 4), answers(3, 4, 5, 7), seed=0)
    assert graded is not None
    assert is_clear(graded)
    assert "95 % interval +2 to +2.75 (bootstrap)" in say_comparison(graded)


def test_scores_by_question_are_joined_with_the_answers_that_they_are_of(tmp_path: Path) -> None:
    said = [{"question": f"{name}?", "response": name, "id": name} for name in ("a", "b")]
    write_jsonl(tmp_path / "answers.jsonl", said)
    assert read_answers(tmp_path) == {}
    row = {"id": "x/1", "line": 2, "score": 1.0, "picture": "p", "target": "yes"}
    write_jsonl(tmp_path / "by_question.jsonl", [row])
    assert read_answers(tmp_path) == {"x/1": ScoredAnswer("b?", "b", 1.0, "p")}
