"""Judges, claims and image scorers at an endpoint: what of an answer counts, and what becomes of an
answer that says nothing.
"""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lib.endpoint
from chat_server import ChatServer, Reply, choosing, completion, error, in_order
from lib.errors import ItemError, UserError
from lib.jobs.batches import Item, each_at_once
from lib.models.at_endpoint import written_number, written_yes_or_no
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.models.response_rewards.registry import RESPONSE_REWARDS

RATINGS = ("1", "2", "3", "4", "5")
REFUSES = error(400, "Unrecognized request argument supplied: logprobs")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    server = ChatServer(choosing(*RATINGS), api_key_variable=None)
    yield server
    server.close()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "x.png"
    Image.new("RGB", (48, 40), "red").save(path)
    return str(path)


def conversation(answer: str, picture: str) -> list[dict[str, str]]:
    asked = {"role": "user", "content": "What is on the table?", "image": picture}
    return [asked, {"role": "assistant", "content": answer}]


def rate(server: ChatServer, picture: str, *answers: str, **settings: Any) -> list[Any]:
    told = RESPONSE_REWARDS.validate(
        {"kind": "vlm-judge-endpoint", "endpoint": server.settings(), **settings}
    )
    with RESPONSE_REWARDS.load_model(told, "cuda") as judge:  # type: ignore[attr-defined]
        return judge.rate([conversation(answer, picture) for answer in answers])  # type: ignore[no-any-return]


def test_a_judge_s_score_is_the_expected_value_of_the_ratings_that_the_endpoint_tells(
    server, picture
):
    first, said = {"4": 0.5, "5": 0.2, " 5": 0.1, "1": 0.05, "great": 0.1}, {"Rating": 0.9}
    server.reply = lambda body: completion("Rating: 4", said=[said, {":": 1.0}, first])
    (reward,) = rate(server, picture, "A cup.")
    assert reward.score == pytest.approx((4 * 0.5 + 5 * 0.3 + 0.05) / 0.85)
    assert reward.details["rated_by"] == "probabilities"
    assert reward.details["rating_probability"] == pytest.approx(0.85)
    assert reward.details["ratings"]["5"] == pytest.approx(0.3 / 0.85)
    body = server.asked()[0].body
    assert (body["logprobs"], body["top_logprobs"], body["temperature"]) == (True, 20, 0)
    assert "What is on the table?" in server.texts()[0]
    assert "A cup." in server.texts()[0]


@pytest.mark.parametrize(
    "reply",
    [
        completion("4"),
        completion("4", said=[]),
        completion("**4**", said=[{"**4": 0.9, "5": 0.1}]),
        Reply(
            200,
            {"choices": [{"message": {"content": "4"}, "logprobs": {"content": [{"token": "4"}]}}]},
        ),
    ],
    ids=["none", "empty", "of other tokens", "nonsense"],
)
def test_the_rating_that_is_written_counts_where_no_probabilities_of_it_are_told(
    server, picture, reply
):
    server.reply = lambda body: reply
    (reward,) = rate(server, picture, "A cup.")
    assert (reward.score, reward.details) == (4.0, {"rated_by": "text"})


def test_an_endpoint_that_refuses_to_tell_probabilities_is_asked_without_from_then_on(
    server, picture
):
    server.reply = lambda body: REFUSES if body.get("logprobs") else "3"
    rewards = rate(server, picture, *"ab", endpoint=server.settings(concurrency=1))
    assert [reward.details["rated_by"] for reward in rewards] == ["text"] * 2
    assert ["logprobs" in body for body in server.bodies()] == [True, False, False]
    server.requests.clear()
    off = server.settings(parameters={"logprobs": None, "top_logprobs": None})
    rate(server, picture, "a", endpoint=off)
    assert ["logprobs" in body for body in server.bodies()] == [False]


def test_what_is_refused_for_another_reason_is_the_item_s_fault(server, picture):
    server.reply = lambda body: error(400, "the image is too large")
    with pytest.raises(ItemError, match="too large"):
        rate(server, picture, "A cup.")
    assert len(server.asked()) == 1


def test_a_busy_server_is_asked_again(server, picture):
    server.reply = in_order(error(429), error(500), completion("2"))
    assert rate(server, picture, "A cup.")[0].score == 2


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("It is fine.", r"the answer of m is no rating from 1 to 5: 'It is fine\.'"),
        ("7", "no rating from 1 to 5: '7'"),
        ("", "no rating from 1 to 5: ''"),
        (completion("I think that", "length"), "cut off at `max_new_tokens`, is no rating .*think"),
        (completion("4", "content_filter"), "content filter"),
    ],
)
def test_an_answer_without_a_rating_is_quoted_as_the_item_s_fault(server, picture, reply, told):
    server.reply = lambda body: reply
    with pytest.raises(ItemError, match=told):
        rate(server, picture, "A cup.")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4", "4"),
        (" **4**.", "4"),
        ("Rating: 4/5", "4"),
        ("The rating is 4 out of 5.", "4"),
        ("4. Two cups are there, not 3.", "4"),
        ("I would give it a 4/5", "4"),
        ("On a scale from 1 to 5: 4", "4"),
        ("1-5: 4", "4"),
        ("10", "10"),
        ("-4", "-4"),
        ("4.5", "4.5"),
        ("2 or 3", None),
        ("There are 2 cups and 3 plates", None),
        ("four", None),
        ("", None),
    ],
)
def test_the_number_of_an_answer_is_the_one_it_begins_with_or_its_only_one(text, number):
    assert written_number(text) == number


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Yes", "Yes"),
        ("**no**, it is not", "No"),
        ("The answer is yes.", "Yes"),
        ("Answer: No", "No"),
        ("There is no dog", None),
        ("Nothing", None),
        ("", None),
    ],
)
def test_yes_or_no_is_read_where_an_answer_begins(text, word):
    assert written_yes_or_no(text) == word


def test_claims_are_asked_one_by_one_and_say_what_they_were_read_by(server, picture):
    def reply(body):
        text = body["messages"][0]["content"][-1]["text"]
        if "dog" in text:
            return completion("No", said=[{"No": 0.6, " no": 0.2, "Yes": 0.2}])
        return "Yes"

    server.reply = reply
    said = "A cup. A dog is near."
    (reward, alone) = rate(server, picture, said, "A cup.", kind="claims-endpoint")
    assert reward.details["claims"] == [
        {"text": "A cup.", "yes": 1.0, "rated_by": "text"},
        {"text": "A dog is near.", "yes": pytest.approx(0.2), "rated_by": "probabilities"},
    ]
    assert reward.details["failed_claims"] == ["A dog is near."]
    assert (reward.score, alone.score) == (pytest.approx(0.6), 1.0)
    server.reply = lambda body: "Perhaps."
    with pytest.raises(ItemError, match=r"is no Yes or No: 'Perhaps\.'"):
        rate(server, picture, "A cup.", kind="claims-endpoint")


def test_a_scorer_rates_the_picture_that_it_is_given(server):
    def reply(body):
        url = body["messages"][0]["content"][0]["image_url"]["url"]
        image = Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))
        return "5" if image.getpixel((0, 0)) == (255, 0, 0) else "1"

    server.reply = reply
    told = {"kind": "vlm-rating", "endpoint": server.settings(), "rubric": "{prompt} {highest}?"}
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    with IMAGE_SCORERS.load_model(IMAGE_SCORERS.validate(told), "cuda") as scorer:  # type: ignore[attr-defined]
        assert scorer.score("a {lowest} cat", images) == [5.0, 1.0]
    assert set(server.texts()) == {"a {lowest} cat 5?"}


def test_as_many_requests_are_under_way_as_configured(server, picture):
    server.delay = 0.1
    rate(server, picture, *"abcdef", endpoint=server.settings(concurrency=3))
    assert server.most_under_way == 3


def test_one_item_s_fault_is_not_the_others():
    def compute(item: Item[int]) -> float:
        if item.inputs == 0:
            raise ItemError("no rating")
        return 1 / item.inputs

    ok, broken = each_at_once(compute, [Item("a", "a", 2), Item("b", "b", 0)])
    assert ok.result() == 0.5
    assert isinstance(broken.exception(), ItemError)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rubric": "How good?"}, "has no `{response}`"),
        ({"lowest": 5}, r"`highest` \(5\) has to be above `lowest` \(5\)"),
        ({"model": "acme/vlm"}, "Extra inputs are not permitted"),
        ({"kind": "vlm-judge"}, "`kind: vlm-judge-endpoint`, with `endpoint` and without `model`"),
        ({"kind": "claims", "backend": "openai"}, "is `kind: claims-endpoint`"),
        ({"max_new_tokens": 0}, "greater than 0"),
    ],
)
def test_a_judge_at_an_endpoint_that_cannot_judge_is_refused_with_the_configuration(
    server, changes, told
):
    values = {"kind": "vlm-judge-endpoint", "endpoint": server.settings(), **changes}
    with pytest.raises(ValueError, match=told):
        RESPONSE_REWARDS.validate(values)


def test_without_its_key_a_judge_is_not_asked(server, picture, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(UserError, match="JUDGE_KEY is not set"):
        rate(server, picture, "a", endpoint=server.settings(api_key_variable="JUDGE_KEY"))
    assert not server.requests


def test_probabilities_that_are_none_are_not_taken_for_some(server, picture):
    """A server is not trusted: NaN, infinities and texts are no logarithms of probabilities."""
    for logprob in ("NaN", "Infinity", "-Infinity", '"-0.1"', "true", "3", "null"):
        entry = f'{{"token": "4", "logprob": {logprob}, "top_logprobs": []}}'
        choice = f'{{"message": {{"content": "4"}}, "logprobs": {{"content": [{entry}]}}}}'
        text = f'{{"choices": [{choice}]}}'
        server.reply = lambda body, text=text: Reply(200, text)
        (reward,) = rate(server, picture, "A cup.")
        assert (reward.score, reward.details) == (4.0, {"rated_by": "text"}), logprob
