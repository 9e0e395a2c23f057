"""Judges, claims and image scorers at an endpoint: what of an answer counts, and what becomes of an
answer that says nothing.
"""

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lib.endpoint
import rank_images
import rank_responses
from chat_server import ChatServer, Reply, choosing, completion, error, in_order
from lib.config.image_ranking import RankImagesJob
from lib.config.response_ranking import RankResponsesJob
from lib.data.prompts import Prompt
from lib.data.rows import ImageRankingRow, ResponseRankingRow
from lib.data.shards import read_shard
from lib.errors import ItemError, UserError
from lib.files import digest_of_file, write_jsonl
from lib.jobs.batches import each_at_once
from lib.jobs.streams import Item
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
        (" " * 1_000_000 + "4", None),
        ("/ " * 1_000_000, None),
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


# --- as stages

TEXTS = ("a red cup", "a blue plate")


class Stages:
    """Image ranking and response ranking of two prompts, each with two pictures and two answers."""

    def __init__(self, folder: Path, rule_object: Any) -> None:
        self.root, self.rule_object = folder / "run", rule_object

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for text in TEXTS:
            prompt = Prompt("art", text)
            candidates = []
            for number in range(2):
                file = f"images/{prompt.id}-{number}.png"
                (self.root / file).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (number, len(text), 9)).save(self.root / file)
                sha256 = digest_of_file(self.root / file)
                image = {"guidance_scale": 5.0, "seed": number, "file": file, "sha256": sha256}
                candidates.append({**image, "blank": False})
            rows.append({"id": prompt.id, "topic": "art", "prompt": text, "candidates": candidates})
        return sorted(rows, key=lambda row: row["id"])

    def run(self, rule: str, inputs: list[Path], told: Any, common: dict[str, Any]) -> Path:
        output = self.root / rule / "art/00.jsonl"
        main = {"rank_images": rank_images.main, "rank_responses": rank_responses.main}[rule]
        settings = told.model_dump(mode="json")
        wildcards = {"topic": "art", "shard": "00"}
        main(
            self.rule_object(
                rule,
                wildcards,
                [*map(str, inputs)],
                [str(output)],
                settings=settings,
                common=common,
            )
        )
        return output

    def rank_images(self, endpoint: dict[str, Any], **common: Any) -> dict[str, Any]:
        source = self.root / "images/art/00.jsonl"
        write_jsonl(source, self.rows())
        told = RankImagesJob.model_validate(
            {"scorer": {"kind": "vlm-rating", "endpoint": endpoint}}
        )
        output = self.run("rank_images", [source], told, common)
        return {row["prompt"]: row for row in read_shard(output, ImageRankingRow).values()}

    def rank_responses(self, kind: str, endpoint: dict[str, Any], **common: Any) -> dict[str, Any]:
        sources = []
        for policy in ("mu", "nu"):
            rows = []
            for row in self.rows():
                image = row.pop("candidates")[0]
                picked = {name: image[name] for name in ("file", "sha256", "guidance_scale")}
                answer = f"{policy} sees {row['prompt']}."
                said = {"instruction": "What is it?", "response": answer, "finish_reason": "stop"}
                rows.append({**row, "image": {**picked, "score": 1.0}, **said})
            sources.append(self.root / f"responses/{policy}/art/00.jsonl")
            write_jsonl(sources[-1], rows)
        told = RankResponsesJob.model_validate(
            {"reward": {"kind": kind, "endpoint": endpoint}, "policies": ["mu", "nu"]}
        )
        output = self.run("rank_responses", sources, told, common)
        return {row["prompt"]: row for row in read_shard(output, ResponseRankingRow).values()}

    def counts(self, rule: str) -> tuple[int, int, int]:
        record = json.loads((self.root / f"work/{rule}/art/00.json").read_text())
        assert record["models"]["endpoint"]
        return record["computed"], record["reused"], record["failed"]


@pytest.fixture
def stages(tmp_path: Path, rule_object: Any) -> Stages:
    return Stages(tmp_path, rule_object)


def test_ratings_of_pictures_are_journalled_wherever_the_server_is(stages, server):
    rows = stages.rank_images(server.settings())
    assert len(server.asked()) == 4
    for row in rows.values():
        assert row["winner"] == row["scores"].index(max(row["scores"]))
        assert 1 <= min(row["scores"]) < max(row["scores"]) <= 5
    assert stages.rank_images(server.settings(base_url="http://127.0.0.1:9/v1")) == rows
    assert (len(server.asked()), stages.counts("rank_images")) == (4, (0, 2, 0))
    stages.rank_images(server.settings(model="another"))
    assert stages.counts("rank_images") == (2, 0, 0)


@pytest.mark.parametrize("kind", ["vlm-judge-endpoint", "claims-endpoint"])
def test_rewards_of_answers_are_journalled_wherever_the_server_is(stages, server, kind):
    server.reply = choosing("Yes", "No") if kind == "claims-endpoint" else server.reply
    rows = stages.rank_responses(kind, server.settings())
    asked = len(server.asked())
    assert asked == 4
    responses = [each for row in rows.values() for each in row["responses"].values()]
    assert len({response["score"] for response in responses}) == 4
    for response in responses:
        (said,) = response.get("claims", [response])
        assert said["rated_by"] == "probabilities"
    moved = server.settings(base_url="http://127.0.0.1:9/v1")
    assert stages.rank_responses(kind, moved) == rows
    assert (len(server.asked()), stages.counts("rank_responses")) == (asked, (0, 2, 0))
    stages.rank_responses(kind, server.settings(parameters={"top_p": 0.5}))
    assert stages.counts("rank_responses") == (2, 0, 0)


@pytest.mark.parametrize("rule", ["rank_images", "rank_responses"])
def test_a_prompt_without_a_rating_fails_alone_with_the_answer_and_is_asked_again(
    stages, server, rule
):
    def rank(**common: Any) -> Any:
        settings = server.settings()
        if rule == "rank_images":
            return stages.rank_images(settings, **common)
        return stages.rank_responses("vlm-judge-endpoint", settings, **common)

    judge = server.reply
    server.reply = lambda body: (
        "Hm." if "plate" in body["messages"][0]["content"][-1]["text"] else judge(body)
    )
    rows = rank(max_failed_fraction=0.5)
    assert rows[TEXTS[1]]["missing"]["reason"].endswith("is no rating from 1 to 5: 'Hm.'")
    assert "missing" not in rows[TEXTS[0]]
    server.reply = judge
    assert "missing" not in rank()[TEXTS[1]]
    assert stages.counts(rule) == (1, 1, 0)
