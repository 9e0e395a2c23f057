"""Scores from kept answers: names, units, doubts, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.benchmarks.answers import yes_or_no
from lib.errors import UserError
from lib.files import digest_of_file
from score_benchmark import score, scores_of_task, yes_no_doubts


def answers(*pairs):
    return [
        {"id": number, "question": "?", "target": target, "response": response, "tokens": 1}
        for number, (target, response) in enumerate(pairs)
    ]


def results(questions, limit=None, **metrics):
    return {
        "model": "base",
        "benchmark": "pope",
        "model_identity": "folder-1",
        "task": "pope",
        "limit": limit,
        "lmms_eval": "0.7.3",
        "questions": questions,
        "questions_in_data": 10,
        "metrics": metrics,
        "environment": {"python": "3.11.7", "lmms_eval": "0.7.3"},
        "judge": None,
    }


def test_scores_have_our_names_and_the_papers_unit():
    found = score(
        answers(("yes", "Yes")),
        results(1, pope_accuracy=0.8765, pope_f1_score=1),
        {"accuracy": "pope_accuracy", "f1": "pope_f1_score"},
        True,
    )
    assert found["scores"] == {"accuracy": 87.65, "f1": 100}
    assert {
        key: found[key]
        for key in ("model", "benchmark", "model_identity", "task", "lmms_eval", "questions")
    } == {
        "model": "base",
        "benchmark": "pope",
        "model_identity": "folder-1",
        "task": "pope",
        "lmms_eval": "0.7.3",
        "questions": 1,
    }


def test_points_stay_points():
    found = score(
        answers(("Yes", "Yes")),
        results(1, mme_perception_score=1513.5),
        {"perception": "mme_perception_score"},
        False,
    )
    assert found["scores"] == {"perception": 1513.5}


def test_a_limit_is_marked():
    found = score(answers(("Yes", "Yes")), results(1, limit=1, x=1), {"x": "x"}, False)
    assert (found["limit"], found["questions"], found["questions_in_data"]) == (1, 1, 10)


def test_a_metric_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(
        UserError,
        match=(
            r"evaluation\.benchmarks\.pope\.metrics: .*gives no pope_f1\. It gives pope_accuracy,"
            r" pope_f1_score\."
        ),
    ):
        score(
            answers(("yes", "Yes")),
            results(1, pope_accuracy=1, pope_f1_score=1),
            {"f1": "pope_f1"},
            True,
        )


def test_answers_and_results_of_two_runs_are_refused():
    with pytest.raises(UserError, match="1 answers, but results of 2"):
        score(answers(("yes", "Yes")), results(2, x=1), {"x": "x"}, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", "yes"),
        (" no.\n", "no"),
        ("YES!", "yes"),
        ("Yes, it is", None),
        ("", None),
        ("None", None),
        ("maybe", None),
        ("¿No?", "no"),
    ],
)
def test_what_counts_as_yes_or_no(text, said):
    assert yes_or_no(text) == said


def test_doubts_of_yes_no_questions():
    given = answers(("yes", "Yes"), ("no", "yes."), ("no", "There is none"), ("no", " NO\n"))
    ratios = {"yes_ratio": 50, "yes_ratio_of_targets": 25}
    # lmms-eval compares the whole answer, and counts "yes." as wrong whatever is right; MME's
    # parser reads it.
    assert yes_no_doubts(given, "pope") == {**ratios, "unparsed": 2}
    assert yes_no_doubts(given, "mme") == {**ratios, "unparsed": 1}


def test_other_questions_have_no_such_doubts_but_empty_answers_are_counted():
    assert yes_no_doubts(answers(("B", "B")), "mme") == {}
    assert score(answers(("B", "B"), ("A", " ")), results(2, x=0.5), {"x": "x"}, True)[
        "doubts"
    ] == {"empty": 1}


def test_the_rule_writes_the_scores_and_its_record(tmp_path, monkeypatch):
    from score_benchmark import main
    from test_answer_benchmark import Job

    monkeypatch.chdir(tmp_path)
    job = Job(
        "score_benchmark",
        settings={
            "metrics": {"accuracy": "pope_accuracy"},
            "percent": True,
            "scorer": None,
            "judge": None,
        },
    )
    folder = Path("results/run/evaluation/base/pope")
    folder.mkdir(parents=True)
    (folder / "answers.jsonl").write_text(
        "".join(json.dumps(answer) + "\n" for answer in answers(("yes", "Yes")))
    )
    (folder / "results.json").write_text(json.dumps(results(1, pope_accuracy=0.5)))
    job.input.answers, job.input.results = (
        str(folder / "answers.jsonl"),
        str(folder / "results.json"),
    )
    job.output = SimpleNamespace(
        scores=str(folder / "scores.json"), by_question=str(folder / "by_question.jsonl")
    )
    main(job)
    written = json.loads((folder / "scores.json").read_text())
    assert written["scores"] == {"accuracy": 50}
    assert written["computed_by"] == {
        "scorer": "lmms-eval 0.7.3, task pope",
        "parser": None,
        "judge": None,
        "language_tools": None,
    }
    assert written["answers"] == {
        "file": "evaluation/base/pope/answers.jsonl",
        "sha256": digest_of_file(folder / "answers.jsonl"),
    }
    assert written["environment"]["answers"] == {"python": "3.11.7", "lmms_eval": "0.7.3"}
    assert job.record()["computed"] == 1


def test_scores_by_question_are_the_task_s_own_where_it_says_a_number():
    first, second, third = answers(("yes", "Yes"), ("no", "Yes"), ("no", "No"))
    found = scores_of_task([first | {"score": 1.0}, second | {"score": {"a": 1}}, third])
    assert found == [{"id": "0", "line": 1, "score": 1.0, "picture": "0", "target": "yes"}]
