"""Prompts by an LLM: well-formed, unlike any prompt and each other, as many as a topic lacks."""

import json
from itertools import count
from typing import Any

import pytest
from pydantic import ValidationError

import lib.endpoint
from chat_server import ChatServer, completion
from generate_prompts import main, parse
from lib.blocks import Endpoint
from lib.config.prompts import GeneratePrompts, GeneratePromptsJob
from lib.data.prompt_selection import Selection, jaccard, shingles
from lib.errors import UserError

PRESENT = {
    "art": [
        (
            "Eight ceramic teapots shaped like animals stand along a window ledge in the order hen,"
            " frog, cat, whale, owl, pig and bear."
        )
    ],
    "nature": [
        (
            "Two red foxes cross a frozen stream at dawn while a third one waits on the snowy bank"
            " under three bare birch trees."
        )
    ],
}
SUBJECTS = [
    "potter",
    "weaver",
    "baker",
    "welder",
    "farmer",
    "sailor",
    "gardener",
    "glazier",
    "tailor",
    "painter",
    "cooper",
    "mason",
]


def scene(number):
    """A proposal of 20 words that shares no phrase with another number's."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    words = [f"{subject}{chr(97 + letter)}{number}" for letter in range(18)]
    return f"A {subject} {' '.join(words)}"


@pytest.fixture
def server(monkeypatch):
    """`answers` are given in order, then new proposals are, ten at a time."""
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.02)
    numbers = count()

    def reply(body):
        text = (
            chat.answers.pop(0)
            if chat.answers
            else "\n".join(scene(next(numbers)) for _ in range(10))
        )
        return completion(text, chat.finish_reason)

    # One request at a time, so that the answers come in order.
    chat: Any = ChatServer(reply, api_key_variable="TEST_KEY", retries=0, concurrency=1)
    chat.answers, chat.finish_reason = [], "stop"
    yield chat
    chat.close()


def job_settings(block, topics):
    """What the rule is told of topic art."""
    job = GeneratePromptsJob(
        proposals=block.for_topic("art", None), topics=topics, max_prompt_characters=1000
    )
    return job.model_dump(mode="json")


class Stage:
    def __init__(self, folder, rule_object, server):
        self.folder, self.rule_object, self.server = folder, rule_object, server
        self.present = {topic: list(texts) for topic, texts in PRESENT.items()}

    def run(self, count=5, **changes):
        """The proposals for art, which lacks `count`."""
        inputs = []
        for topic, texts in self.present.items():
            path = self.folder / f"{topic}.txt"
            path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
            inputs.append(str(path))
        wanted = count + len(self.present.get("art", []))
        block = GeneratePrompts(endpoint=self.server.settings(), count={"art": wanted}, **changes)
        settings = job_settings(block, list(self.present))
        output = self.folder / "run/proposed_prompts/art.txt"
        main(
            self.rule_object(
                "generate_prompts", {"topic": "art"}, inputs, [str(output)], settings=settings
            )
        )
        return output.read_text(encoding="utf-8").splitlines()

    def record(self):
        return json.loads((self.folder / "run/work/generate_prompts/art.json").read_text())


@pytest.fixture
def stage(tmp_path, rule_object, server):
    return Stage(tmp_path, rule_object, server)


def test_as_many_proposals_as_configured_come_one_a_line(stage):
    proposals = stage.run(count=25)
    assert len(proposals) == len(set(proposals)) == 25
    assert all(15 <= len(text.split()) <= 40 for text in proposals)


def test_the_topic_and_some_of_its_prompts_are_shown_to_the_model(stage, server):
    stage.present = {
        "art": [*PRESENT["art"], "a {count} in braces"],
        "urban_environments": PRESENT["nature"],
    }
    stage.run()
    text = server.texts()[0]
    assert 'on the topic "art"' in text
    assert PRESENT["art"][0] in text
    assert "a {count} in braces" in text
    assert PRESENT["nature"][0] not in text


def test_proposals_like_a_prompt_of_any_topic_or_each_other_are_dropped(stage, server):
    art, nature = PRESENT["art"][0], PRESENT["nature"][0]
    server.answers = [
        "\n".join(
            [
                art.upper(),
                nature.replace("dawn", "dusk"),
                scene(0),
                scene(0).replace("A potter", "The potter"),
                scene(1),
            ]
        )
    ]
    assert stage.run(count=2) == [scene(0), scene(1)]
    assert any(
        note == "1 proposal(s) dropped: the same as a prompt" for note in stage.record()["notes"]
    )
    assert any(
        note == "2 proposal(s) dropped: too similar to a prompt" for note in stage.record()["notes"]
    )


def test_proposals_of_the_wrong_length_or_with_special_tokens_are_dropped(stage, server):
    server.answers = [
        "\n".join(
            [
                "Too short.",
                " ".join(["long"] * 41),
                f"{scene(5)} <image>",
                f"{scene(6)} </s>",
                scene(7),
            ]
        )
    ]
    assert stage.run(count=1) == [scene(7)]


def test_nothing_is_added_to_the_prompt_files(stage):
    stage.run()
    assert (stage.folder / "art.txt").read_text() == PRESENT["art"][0] + "\n"


def test_a_second_run_asks_nothing(stage, server):
    first = stage.run(count=12)
    asked = len(server.asked())
    assert stage.run(count=12) == first
    assert len(server.asked()) == asked
    assert stage.record()["computed"] == 0


def test_after_an_interruption_only_what_is_missing_is_asked_for(stage, server, monkeypatch):
    calls = []
    ask = lib.endpoint.Client.ask

    def interrupted(self, *arguments, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise UserError("the plug was pulled")
        return ask(self, *arguments, **settings)

    monkeypatch.setattr(lib.endpoint.Client, "ask", interrupted)
    with pytest.raises(UserError, match="plug"):
        stage.run(count=40)
    stage.run(count=40)
    assert stage.record()["reused"] >= 1
    assert len(server.asked()) == 4


def test_a_model_that_repeats_itself_is_given_up_with_a_note(stage, server):
    server.answers = [scene(0)] * 50
    assert stage.run(count=5) == [scene(0)]
    assert len(server.asked()) == 4
    assert any("only 1 of 5 proposals after 4 requests" in note for note in stage.record()["notes"])


@pytest.mark.parametrize(
    "answer",
    [
        "[" * 200_000,
        f"{scene(99)} \ud800",
        json.dumps([f"{scene(99)} \ud800"]),
        f"{scene(99)}\x1b[31m",
        "a b\n" * 200_000,
    ],
    ids=["brackets", "surrogate", "surrogate in JSON", "escape", "lines"],
)
def test_an_answer_that_no_file_likes_costs_its_request_and_never_the_job(stage, server, answer):
    server.answers = [answer]
    proposals = stage.run(count=5)
    assert len(proposals) == 5
    assert not [text for text in proposals if scene(99) in text]


def test_the_last_line_of_an_answer_that_was_cut_off_is_not_used(stage, server):
    server.finish_reason = "length"
    server.answers = [f"{scene(0)}\n{scene(1)}"]
    assert stage.run(count=1) == [scene(0)]


@pytest.mark.parametrize("change", [{"count": {"nature": 5}}, {"endpoint": None}])
def test_a_topic_or_endpoint_that_is_not_configured_is_told(stage, tmp_path, change):
    block = {"endpoint": stage.server.settings(), "count": {"art": 5}, **change}
    settings = job_settings(GeneratePrompts(**block), [])
    with pytest.raises(UserError, match=f"generate_prompts.{next(iter(change))}"):
        main(
            stage.rule_object(
                "generate_prompts", {"topic": "art"}, [], [str(tmp_path / "x")], settings=settings
            )
        )


def test_an_endpoint_of_one_s_own_comes_before_that_of_the_instructions():
    mine, theirs = (Endpoint(base_url="http://x/v1", model=name) for name in ("mine", "theirs"))
    count = {"art": 5, "nature": 6}
    assert GeneratePrompts(count=count, endpoint=mine).for_topic("art", theirs).endpoint == mine
    block = GeneratePrompts(count=count).for_topic("art", theirs)
    assert (block.endpoint, block.count) == (theirs, {"art": 5})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_words": 30, "max_words": 20}, "more than `max_words`"),
        ({"template": "Write!"}, "needs both"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        GeneratePrompts(**settings)


@pytest.mark.parametrize(
    "answer",
    [
        "A red cat.\nA blue dog.",
        "1. A red cat.\n2) A blue dog.",
        "- A red cat.\n\n* A blue dog.",
        '"A red cat."\n“A blue dog.”',
        "(1) **A red cat.**\n  10.   A   blue dog.",
        '["A red cat.", "A blue dog."]',
        '```json\n["A red cat.", "A blue dog."]\n```',
    ],
)
def test_proposals_are_found_however_they_are_listed(answer):
    assert parse(answer) == ["A red cat.", "A blue dog."]


def test_quotation_marks_and_numbers_of_a_proposal_stay():
    assert parse('1. A shop sign that reads "OPEN"\n3 cats on a sofa') == [
        'A shop sign that reads "OPEN"',
        "3 cats on a sofa",
    ]


def test_similarity_is_the_jaccard_measure_of_word_3_shingles():
    assert jaccard(shingles("a b c d"), shingles("A, b c! d")) == 1
    assert jaccard(shingles("a b c d"), shingles("b c d e")) == pytest.approx(1 / 3)
    assert jaccard(shingles("a b c"), shingles("c b a")) == 0


def test_the_limit_of_similarity_is_the_configured_one():
    text = "one two three four five six seven eight nine ten"
    near = "one two three four five six seven eight nine other"  # 7 of 9 shingles
    for limit, accepted in ((0.7, []), (0.8, [near])):
        selection = Selection([text], 1, 40, 1000, limit)
        selection.offer(near)
        assert selection.accepted == accepted


def test_a_topic_that_has_enough_is_asked_nothing_for(stage, server):
    assert stage.run(count=0) == []
    assert stage.run(count=-1 + len(PRESENT["art"])) == []
    assert server.asked() == []


def test_a_topic_without_a_prompt_is_written_from_nothing(stage):
    del stage.present["art"]
    assert len(stage.run(count=3)) == 3


def test_one_number_is_for_all_topics():
    block = GeneratePrompts(count=7)
    assert block.wanted("art") == block.wanted("nature") == 7
    assert block.for_topic("art", None).count == {"art": 7}
    for wrong in (0, {"art": 0}, "many"):
        with pytest.raises(ValidationError, match="give a whole number above 0 for all topics"):
            GeneratePrompts(count=wrong)


def test_proposals_that_show_the_same_are_the_same():
    """They would be refused as prompts."""
    text = "one two three four five"
    selection = Selection([text], 1, 40, 1000, 0.9)
    assert selection.problem_with("one two three four fi\ufe0fve") == "the same as a prompt"
    selection = Selection(["\u2605 \u2606 \u2605"], 1, 40, 1000, 0.9)
    assert selection.problem_with("\u2605  \u2606 \u2605") == "the same as a prompt"


@pytest.mark.slow
def test_snakemake_prompts_adds_what_the_topics_lack_and_a_second_time_does_nothing(
    project, server
):
    project.edit_config(
        lambda values: values.update(
            generate_prompts={
                "count": {"nature": 12, "school": 4, "art": 6},
                "endpoint": server.settings(),
            }
        )
    )
    folder, root = project.folder / "demo/random_prompts", project.folder / "results/random"
    before = {path.stem: path.read_bytes() for path in folder.iterdir()}
    told = project.snakemake("prompts").stdout
    assert "10 prompts are to be written and added (art 2, nature 8)" in told
    after = {path.stem: path.read_bytes() for path in folder.iterdir()}
    assert {topic: len(text.splitlines()) for topic, text in after.items()} == {
        "art": 6,
        "nature": 12,
        "school": 4,
    }
    assert all(after[topic].startswith(text) for topic, text in before.items())
    asked = len(server.asked())
    assert "Nothing to be done" in project.snakemake("prompts").stdout
    assert len(server.asked()) == asked
    # A line that is taken out is missing again.
    (folder / "nature.txt").write_bytes(before["nature"])
    project.snakemake("prompts")
    assert (folder / "nature.txt").read_bytes() == after["nature"]
    assert len(server.asked()) == asked
    assert "sk-secret" not in "".join(
        path.read_text(errors="ignore") for path in root.rglob("*") if path.is_file()
    )
