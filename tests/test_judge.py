"""Judges: nothing is asked twice, nothing is lost by a kill, a reply that makes no sense never
becomes a number.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import lib.endpoint
from chat_server import ChatServer, Reply, closed_port, completion, error, text_of
from lib.benchmarks.answers import Answer, Answers, to_rows
from lib.benchmarks.base import LanguageChoice
from lib.benchmarks.judged import JudgedBenchmark
from lib.benchmarks.registry import load_benchmark
from lib.errors import UserError
from lib.image_preference import ImagePair, compare, count_verdicts
from lib.judge import Judge, JudgeQuestion, fill

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.02)
    server = ChatServer(
        lambda body: "5",
        model="judge",
        version="judge-2026-01-01",
        retries=0,
        api_key_variable=None,
    )
    yield server
    server.close()


def questions(count=4):
    return [JudgeQuestion(str(number), f"How good is {number}?") for number in range(count)]


def ask(server, cache, asked=None, read=int, **settings):
    judge = Judge(server.endpoint(**settings), cache)
    return judge, judge.ask(asked or questions(), read, max_tokens=9)


# --------------------------------------------------------------------------------------------------


def test_a_rerun_asks_nothing_twice_and_gives_the_same(server, tmp_path):
    judge, first = ask(server, tmp_path / "cache.jsonl")
    again, second = ask(server, tmp_path / "cache.jsonl")
    assert first == second
    assert [one.value for one in first.values()] == [5, 5, 5, 5]
    assert (len(server.bodies()), judge.asked, again.asked, again.reused) == (4, 4, 0, 4)


def test_replies_that_another_job_has_had_are_not_asked_for_again(server, tmp_path):
    there, here = tmp_path / "before" / "a.judge.jsonl", tmp_path / "now.jsonl"
    _, before = ask(server, there)
    judge = Judge(server.endpoint(), here, elsewhere=[(tmp_path / "before", there)])
    assert judge.ask(questions(), int, max_tokens=9) == before
    assert (len(server.bodies()), judge.asked, judge.reused) == (4, 0, 4)
    assert judge.taken_over == {tmp_path / "before": 4}
    there.unlink()
    again, replies = ask(server, here)
    assert (replies, again.asked, again.taken_over) == (before, 0, {})


def test_only_what_is_new_is_asked(server, tmp_path):
    ask(server, tmp_path / "cache.jsonl", questions(3))
    ask(server, tmp_path / "cache.jsonl", questions(5))
    assert sorted(server.texts()) == [f"How good is {number}?" for number in range(5)]


@pytest.mark.parametrize(
    "change",
    [{"model": "another"}, {"parameters": {"reasoning_effort": "low"}}],
    ids=["another judge", "another parameter"],
)
def test_another_judge_is_asked_anew(server, tmp_path, change):
    ask(server, tmp_path / "cache.jsonl")
    ask(server, tmp_path / "cache.jsonl", **change)
    assert len(server.bodies()) == 8


def test_a_judge_that_moves_to_another_address_keeps_its_judgements(server, tmp_path):
    ask(server, tmp_path / "cache.jsonl")
    judge, _ = ask(server, tmp_path / "cache.jsonl", base_url="http://127.0.0.1:9/v1")
    assert judge.asked == 0


def test_equal_questions_are_asked_once(server, tmp_path):
    _, judged = ask(
        server,
        tmp_path / "cache.jsonl",
        [
            JudgeQuestion("a", "same"),
            JudgeQuestion("b", "same"),
            JudgeQuestion("c", "same", seed=1),
        ],
    )
    assert (len(judged), len(server.bodies())) == (3, 2)


def test_as_many_questions_are_under_way_as_configured(server, tmp_path):
    server.delay = 0.1
    ask(server, tmp_path / "cache.jsonl", questions(9), concurrency=3)
    assert server.most_under_way == 3


def test_the_raw_replies_are_kept_with_the_model_that_the_endpoint_names(server, tmp_path):
    server.reply = lambda body: " 5 \n"
    judge, judged = ask(server, tmp_path / "cache.jsonl", questions(1))
    lines = [json.loads(line) for line in (tmp_path / "cache.jsonl").read_text().splitlines()]
    assert lines[1]["result"] == {
        "text": " 5 \n",
        "model": "judge-2026-01-01",
        "finish_reason": "stop",
    }
    assert judge.name == "judge (answered as judge-2026-01-01)"
    assert judged["0"].value == 5


def test_a_judge_that_names_itself_as_asked_for_has_that_name(server, tmp_path):
    server.version = "judge"
    assert ask(server, tmp_path / "cache.jsonl")[0].name == "judge"


def test_nonsense_is_asked_for_again_and_then_told_with_its_reason_and_never_a_number(
    server, tmp_path
):
    server.reply = lambda body: "splendid" if "is 1?" in text_of(body) else "5"
    _, judged = ask(server, tmp_path / "cache.jsonl")
    assert [one.value for one in judged.values()] == [5, None, 5, 5]
    assert judged["1"].text == "splendid"
    assert "unusable" in judged["1"].reason
    tries = [
        (body["temperature"], body["seed"]) for body in server.bodies() if "is 1?" in text_of(body)
    ]
    assert tries == [(0.0, 0), (0.5, 1), (1.0, 2)]
    again, same = ask(server, tmp_path / "cache.jsonl")
    assert (again.asked, same) == (0, judged)


def test_nonsense_that_turns_to_sense_at_the_second_attempt_counts(server, tmp_path):
    server.reply = lambda body: "5" if body["seed"] else "?"
    _, judged = ask(server, tmp_path / "cache.jsonl")
    assert [one.value for one in judged.values()] == [5, 5, 5, 5]


def test_an_empty_reply_is_nonsense(server, tmp_path):
    server.reply = lambda body: ""
    _, judged = ask(server, tmp_path / "cache.jsonl", questions(1))
    assert (judged["0"].value, judged["0"].text) == (None, "")


def test_characters_that_no_file_can_hold_do_no_harm(server, tmp_path):
    server.reply = lambda body: "5 \ud800"
    for _ in range(2):
        _, judged = ask(
            server,
            tmp_path / "cache.jsonl",
            [JudgeQuestion("a", "How good is \udfff?")],
            read=lambda text: text,
        )
        assert judged["a"].value == "5 ?"
    assert len(server.bodies()) == 1


@pytest.mark.parametrize("reply", ["[" * 200_000, Reply(200, "[" * 200_000)], ids=["text", "JSON"])
def test_brackets_that_no_parser_likes_cost_their_judgement_and_never_the_job(
    server, tmp_path, reply
):
    server.reply = lambda body: reply if "is 1?" in text_of(body) else "[5]"
    _, judged = ask(server, tmp_path / "cache.jsonl", read=json.loads)
    assert [one.value for one in judged.values()] == [[5], None, [5], [5]]
    assert judged["1"].reason


def test_the_judge_s_name_shows_no_control_character_and_no_key(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-a-long-and-secret-key")
    model = "judge\x1b[2J sk-a-long-and-secret-key \ud800"
    server.reply = lambda body: completion("5", model=model)
    judge, _ = ask(server, tmp_path / "cache.jsonl", api_key_variable="TEST_KEY")
    assert "secret" not in judge.name
    assert judge.name.isprintable()


def test_a_refused_question_has_the_endpoint_s_reason_and_is_asked_again_by_the_next_run(
    server, tmp_path
):
    server.reply = lambda body: error(400, "content policy") if "is 1?" in text_of(body) else "5"
    _, judged = ask(server, tmp_path / "cache.jsonl")
    assert (judged["1"].value, judged["1"].text) == (None, None)
    assert "content policy" in judged["1"].reason
    server.reply = lambda body: "6"
    judge, judged = ask(server, tmp_path / "cache.jsonl")
    assert ([one.value for one in judged.values()], judge.asked) == ([5, 6, 5, 5], 1)


def test_a_judge_that_breaks_down_ends_with_one_message_and_keeps_what_is_judged(server, tmp_path):
    server.reply = lambda body: "5" if "is 0?" in text_of(body) else error(500, "out of order")
    with pytest.raises(
        UserError, match=r"3 requests in a row.*out of order.*what is finished is kept"
    ):
        ask(server, tmp_path / "cache.jsonl", questions(8), concurrency=1)
    server.reply = lambda body: "5"
    judge, _ = ask(server, tmp_path / "cache.jsonl", questions(8))
    assert (judge.asked, judge.reused) == (7, 1)


def test_a_judge_that_is_not_there_is_told_with_its_address(server, tmp_path):
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(UserError, match=f"{url} cannot be reached"):
        ask(server, tmp_path / "cache.jsonl", base_url=url)


def test_a_file_that_is_no_cache_is_not_touched(server, tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"id": 1, "response": "yes"}\n')
    with pytest.raises(UserError, match=r"answers\.jsonl, line 1: not a journal of judge"):
        ask(server, tmp_path / "answers.jsonl")
    assert (tmp_path / "answers.jsonl").read_text() == '{"id": 1, "response": "yes"}\n'


def test_two_runs_with_one_cache_do_not_mix(server, tmp_path):
    from lib.jobs.journal import Journal

    with (
        Journal(tmp_path / "cache.jsonl", "judge"),
        pytest.raises(UserError, match="another job is writing"),
    ):
        ask(server, tmp_path / "cache.jsonl")


def test_killed_while_judging_it_goes_on_where_it_was(server, tmp_path):
    (tmp_path / "answers.json").write_text(
        json.dumps({f"v1_{number}": f"answer {number}" for number in range(40)})
    )
    items = {
        f"v1_{number}": {"question": "Q", "answer": "A", "capability": ["ocr"]}
        for number in range(40)
    }
    (tmp_path / "mm-vet.json").write_text(json.dumps(items))
    killed = threading.Event()

    def reply(body):
        if len(server.bodies()) > 10:
            killed.wait(300)  # the judge takes its time from the eleventh question on
        return "0.5"

    server.reply = reply
    command = [
        sys.executable,
        SCRIPTS / "score.py",
        "mm_vet",
        "--answers",
        tmp_path / "answers.json",
        "--reference",
        tmp_path / "mm-vet.json",
        "--judge-url",
        server.url,
        "--judge-model",
        "judge",
        "--judge-runs",
        "1",
        "--judge-concurrency",
        "2",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(server.bodies()) < 11 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed.set()
    assert len(server.bodies()) < 20
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["scores"]["total"] == 50.0
    assert 40 <= len(server.bodies()) <= 40 + 2  # only what was under way is asked twice


def test_what_is_filled_into_a_template_is_data():
    assert fill("{a} and {b} and {c}", a="{b}", b=r"\1") == r"{b} and \1 and {c}"


# --------------------------------------------------------------------------------------------------


def pair(tmp_path, name="p", caption="a {red} dog"):
    for side in ("first", "second"):
        (tmp_path / f"{name}-{side}.png").write_bytes(f"{name} {side}".encode())
    return ImagePair(name, caption, tmp_path / f"{name}-first.png", tmp_path / f"{name}-second.png")


def shown(body):
    """The images of a request, as the data URLs carry them."""
    import base64

    parts = body["messages"][0]["content"]
    return [
        base64.b64decode(part["image_url"]["url"].partition(",")[2]).decode()
        for part in parts
        if part["type"] == "image_url"
    ]


@pytest.mark.parametrize(
    ("judge_says", "verdict"),
    [
        (lambda body: "first" if shown(body)[0] == "p first" else "second", "first"),
        (lambda body: "Second." if shown(body)[0] == "p first" else '"first"', "second"),
        (lambda body: "first", "tie"),
        (lambda body: "tie", "tie"),
        (lambda body: "tie" if shown(body)[0] == "p first" else "first", "tie"),
    ],
    ids=[
        "the first wins",
        "the second wins",
        "always the same place",
        "always a tie",
        "a tie one way",
    ],
)
def test_an_image_wins_only_if_it_is_preferred_in_both_places(
    server, tmp_path, judge_says, verdict
):
    server.reply = judge_says
    comparison = compare([pair(tmp_path)], Judge(server.endpoint(), tmp_path / "cache.jsonl"))["p"]
    assert comparison.verdict == verdict
    assert sorted(map(shown, server.bodies())) == [["p first", "p second"], ["p second", "p first"]]
    assert all("a {red} dog" in text for text in server.texts())


def test_a_comparison_without_a_usable_reply_has_a_reason_and_no_verdict(server, tmp_path):
    server.reply = lambda body: "the one with the dog"
    comparison = compare([pair(tmp_path)], Judge(server.endpoint(), tmp_path / "cache.jsonl"))["p"]
    assert comparison.verdict is None
    assert "the one with the dog" in str(comparison.reason)


def test_the_same_image_twice_is_a_tie_that_nobody_is_asked_about(server, tmp_path):
    one = pair(tmp_path)
    same = ImagePair("p", one.caption, one.first, one.first)
    assert compare([same], Judge(server.endpoint(), tmp_path / "cache.jsonl"))["p"].verdict == "tie"
    assert not server.bodies()


def test_another_image_under_the_same_name_is_judged_anew(server, tmp_path):
    server.reply = lambda body: "tie"
    compare([pair(tmp_path)], Judge(server.endpoint(), tmp_path / "cache.jsonl"))
    (tmp_path / "p-first.png").write_bytes(b"another")
    compare(
        [ImagePair("p", "a {red} dog", tmp_path / "p-first.png", tmp_path / "p-second.png")],
        Judge(server.endpoint(), tmp_path / "cache.jsonl"),
    )
    assert len(server.bodies()) == 4


def test_the_rates_are_the_paper_s_for_the_paper_s_counts():
    from lib.image_preference import Comparison

    def of(verdict, count):
        return [Comparison(verdict, None, (None, None))] * count

    found = count_verdicts(of("first", 53) + of("second", 37) + of("tie", 10) + of(None, 2))
    printed = {
        "wins": 53,
        "losses": 37,
        "ties": 10,
        "without_verdict": 2,
        "win_rate": 58.9,
        "loss_rate": 41.1,
        "tie_rate": 10.0,
    }
    assert found == pytest.approx(printed, abs=0.05)


# --------------------------------------------------------------------------------------------------


def load_judged(name: str, language: LanguageChoice = "auto") -> JudgedBenchmark[Any]:
    """A benchmark that asks a judge."""
    benchmark = load_benchmark(name, language)
    assert isinstance(benchmark, JudgedBenchmark)
    return benchmark


def answers(**texts):
    return Answers(
        "answers.jsonl", [Answer(name.removeprefix("n"), text) for name, text in texts.items()]
    )


@pytest.fixture
def mmhal(tmp_path):
    rows = [
        {
            "question_type": kind,
            "image_content": ["Cat", "Dog"],
            "question": f"What {kind}?",
            "gt_answer": f"True {kind}.",
            "model_answer": "",
        }
        for kind in ("attribute", "adversarial", "comparison")
    ]
    (tmp_path / "response_template.json").write_text(json.dumps(rows))
    return load_judged("mmhal_bench").read_reference(tmp_path / "response_template.json")


def test_mmhal_bench_is_rated_by_the_judge_from_question_contents_and_human_answer(
    server, tmp_path, mmhal
):
    ratings = {"attribute": "5", "adversarial": "0", "comparison": "2"}
    server.reply = lambda body: (
        "Fine.\n\n- Rating:"
        f" {next(r for kind, r in ratings.items() if f'What {kind}?' in text_of(body))}, so"
        " it is"
    )
    scorer = load_judged("mmhal_bench")
    judged = scorer.add_judgements(
        answers(n0="one {question}", n1="two", n2="three"),
        mmhal,
        Judge(server.endpoint(), tmp_path / "c.jsonl"),
    )
    score = scorer.score(judged, mmhal, samples=0)
    assert score.scores == {"score": pytest.approx(7 / 3), "hallucination": pytest.approx(200 / 3)}
    assert score.judge == "judge (answered as judge-2026-01-01)"
    text = next(text for text in server.texts() if "What attribute?" in text)
    assert "### Image Contents\nCat, Dog\n\n### Question\nWhat attribute?\n" in text
    assert (
        "### Standard Human-Generated Answer\nTrue attribute.\n\n### LMM Response to Evaluate\none"
        " {question}\n" in text
    )


def test_mmhal_bench_leaves_out_and_tells_what_the_judge_never_rates(server, tmp_path, mmhal):
    server.reply = lambda body: (
        "Rating: 1 or Rating: 2" if "What adversarial?" in text_of(body) else "Rating: 4"
    )
    scorer = load_judged("mmhal_bench")
    judged = scorer.add_judgements(
        answers(n0="one", n1="two", n2="three"),
        mmhal,
        Judge(server.endpoint(), tmp_path / "c.jsonl"),
    )
    score = scorer.score(judged, mmhal, samples=0)
    assert (score.scores["score"], score.extra["judged"], score.extra["unparsed"]) == (4.0, 2, 0)
    assert (
        "id '1' has no judgement (the judge's reply is unusable: 2 ratings instead of one"
        in str(score.problems[0])
    )


def test_judged_answers_can_be_written_and_scored_again_without_the_judge(server, tmp_path, mmhal):
    from lib.files import write_jsonl

    server.reply = lambda body: "nonsense" if "What adversarial?" in text_of(body) else "Rating: 4"
    scorer = load_judged("mmhal_bench")
    judged = scorer.add_judgements(
        answers(n0="one", n1="two", n2="three"),
        mmhal,
        Judge(server.endpoint(), tmp_path / "c.jsonl"),
    )
    write_jsonl(tmp_path / "judged.jsonl", to_rows(judged))
    again = scorer.score(scorer.read_answers(tmp_path / "judged.jsonl"), mmhal, samples=0)
    score = scorer.score(judged, mmhal, samples=0)
    assert (again.scores, again.judge, again.extra) == (score.scores, score.judge, score.extra)
    assert [problem.what for problem in again.problems] == [
        problem.what for problem in score.problems
    ]


@pytest.fixture
def mm_vet(tmp_path):
    items = {
        "v1_0": {"question": "What is x?", "answer": "-1<AND>-5", "capability": ["ocr", "math"]},
        "v1_1": {"question": "Where?", "answer": "here<OR>there", "capability": ["ocr"]},
    }
    (tmp_path / "mm-vet.json").write_text(json.dumps(items))
    return load_judged("mm_vet").read_reference(tmp_path)


def test_mm_vet_is_graded_as_often_as_asked_with_the_reference_s_words(server, tmp_path, mm_vet):
    server.reply = lambda body: (
        ["0.5", "0.7"][body["seed"]] if "| x = 1 |" in text_of(body) else "1.0"
    )
    scorer = load_judged("mm_vet")
    judge = Judge(server.endpoint(), tmp_path / "c.jsonl")
    score = scorer.score(
        scorer.add_judgements(answers(v1_0="x = 1", v1_1="there"), mm_vet, judge, gradings=2),
        mm_vet,
        samples=0,
    )
    assert score.scores == {"total": 80.0, "std": 5.0}
    assert score.extra["totals_of_runs"] == [75.0, 85.0]
    assert {name: values["total"] for name, values in score.per_type.items()} == {
        "math": 60.0,
        "ocr": 80.0,
    }
    assert any(text.endswith("\nWhat is x? | -1 <AND> -5 | x = 1 | ") for text in server.texts())
    assert {body["max_tokens"] for body in server.bodies()} == {3}


def test_mm_vet_asks_again_with_the_reference_s_addition(server, tmp_path, mm_vet):
    server.reply = lambda body: (
        "0.4"
        if text_of(body).endswith("Predict the correctness of the answer (digit): ")
        else "Well"
    )
    scorer = load_judged("mm_vet")
    judged = scorer.add_judgements(
        answers(v1_0="x = 1", v1_1="there"),
        mm_vet,
        Judge(server.endpoint(), tmp_path / "c.jsonl"),
        gradings=1,
    )
    assert scorer.score(judged, mm_vet, samples=0).scores["total"] == 40.0


@pytest.mark.parametrize("reply", ["good", "1.5", "-0.1", "nan", "", "0.5/1"])
def test_mm_vet_never_makes_a_grade_of_nonsense(server, tmp_path, mm_vet, reply):
    server.reply = lambda body: reply if "| x = 1 |" in text_of(body) else "1.0"
    scorer = load_judged("mm_vet")
    judged = scorer.add_judgements(
        answers(v1_0="x = 1", v1_1="there"),
        mm_vet,
        Judge(server.endpoint(), tmp_path / "c.jsonl"),
        gradings=1,
    )
    score = scorer.score(judged, mm_vet, samples=0)
    assert (score.scores["total"], score.extra["graded"]) == (100.0, 1)
    assert "id 'v1_0' has no grades (the judge's reply is unusable" in str(score.problems[0])


@pytest.fixture
def halbench(tmp_path):
    (tmp_path / "synonyms.txt").write_text("person, man\nwine glass\ndining table, table\ndog\n")
    (tmp_path / "objects.json").write_text(
        json.dumps({"1": ["person", "dining table"], "2": ["dog"]})
    )
    return load_judged("object_halbench").read_reference(tmp_path)


def test_object_halbench_asks_the_judge_for_the_objects_of_each_answer(server, tmp_path, halbench):
    listed = {
        "table": '["men", "wine glasses", "table", "table", "sky"]',
        "cat": '```json\n["dog"]\n```',
    }
    server.reply = lambda body: next(
        reply for word, reply in listed.items() if f"{word} stands" in text_of(body)
    )
    scorer = load_judged("object_halbench", "stand-in")
    judged = scorer.add_judgements(
        answers(n1="A table stands before men.", n2="A cat stands there, {x}"),
        halbench,
        Judge(server.endpoint(), tmp_path / "c"),
    )
    score = scorer.score(judged, halbench, samples=0)
    # men, wine glass (wrong), table once; dog
    assert score.scores == {"response": 50.0, "mention": 25.0}
    assert (score.extra["mentions"], score.judge) == (4, "judge (answered as judge-2026-01-01)")
    assert sum("A cat stands there, {x}" in text for text in server.texts()) == 1


def test_object_halbench_does_not_ask_about_answers_of_three_words(server, tmp_path, halbench):
    judged = load_judged("object_halbench").add_judgements(
        answers(n1="A man sits."), halbench, Judge(server.endpoint(), tmp_path / "c")
    )
    assert (server.bodies(), judged.rows[0].details["objects"]) == ([], [])


@pytest.mark.parametrize(
    "reply", ['{"objects": ["dog"]}', "a dog and a man", '["dog", 3]', '["dog"']
)
def test_object_halbench_leaves_out_and_tells_an_answer_without_a_usable_list(
    server, tmp_path, halbench, reply
):
    server.reply = lambda body: reply if "first" in text_of(body) else '["dog"]'
    scorer = load_judged("object_halbench")
    judged = scorer.add_judgements(
        answers(n1="This is the first answer.", n2="There is a dog here."),
        halbench,
        Judge(server.endpoint(), tmp_path / "c"),
    )
    score = scorer.score(judged, halbench, samples=0)
    assert (score.scores, score.extra["scored"]) == ({"response": 0.0, "mention": 0.0}, 1)
    assert "id '1' has no objects from the judge" in str(score.problems[0])
