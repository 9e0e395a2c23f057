"""What an LLM wrote becomes prompts: below the user's own lines, which stay as they are."""

import json
import os
import stat
from pathlib import Path

import pytest

import add_prompts
from add_prompts import add_lines, main
from lib.config.prompts import AddPromptsJob
from lib.data.prompts import read_topics
from lib.errors import UserError

OWN = "A red fox sleeps under a bare birch tree beside a frozen stream"


def scene(number: int) -> str:
    """A prompt of ten words that shares no phrase with another number's."""
    return " ".join(f"word{number}x{place}" for place in range(10))


class Stage:
    def __init__(self, folder, rule_object):
        self.folder, self.rule_object = folder, rule_object
        self.wanted = {"art": 3, "nature": 2}
        self.write("art", f"{OWN}\n".encode())
        self.write("nature", f"{scene(100)}\n".encode())
        self.propose("art", scene(0), scene(1), scene(2))
        self.propose("nature", scene(3), scene(4))

    def path(self, topic):
        return self.folder / f"{topic}.txt"

    def write(self, topic, content):
        self.path(topic).write_bytes(content)

    def propose(self, topic, *texts):
        path = self.folder / f"run/proposed_prompts/{topic}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")

    def run(self):
        job = AddPromptsJob(
            wanted=self.wanted,
            files={topic: str(self.path(topic)) for topic in ("art", "nature")},
            min_words=5,
            max_words=40,
            max_similarity=0.5,
            max_prompt_characters=1000,
        )
        folder = self.folder / "run/proposed_prompts"
        main(
            self.rule_object(
                "add_prompts",
                {},
                [str(folder / f"{topic}.txt") for topic in self.wanted],
                [str(folder / "added.json")],
                settings=job.model_dump(mode="json"),
            )
        )
        return json.loads((folder / "added.json").read_text())

    def lines(self, topic):
        return self.path(topic).read_text(encoding="utf-8").splitlines()

    def notes(self):
        record = self.folder / "run/work/add_prompts/add_prompts.json"
        return json.loads(record.read_text())["notes"]


@pytest.fixture
def stage(tmp_path, rule_object):
    return Stage(tmp_path, rule_object)


def test_a_topic_gets_as_many_prompts_as_it_lacks_below_its_own(stage):
    assert stage.run() == {"art": 2, "nature": 1}
    assert stage.lines("art") == [OWN, scene(0), scene(1)]
    assert stage.lines("nature") == [scene(100), scene(3)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"one cat\n", b"one cat\nx\n"),
        (b"one cat", b"one cat\nx\n"),
        (b"b cat\r\na cat\r\n", b"b cat\r\na cat\r\nx\r\n"),
        (b"\xef\xbb\xbf  one  cat \n", b"\xef\xbb\xbf  one  cat \nx\n"),
        (b"", b"x\n"),
    ],
)
def test_the_lines_that_are_there_stay_byte_by_byte(tmp_path, before, after):
    path = tmp_path / "art.txt"
    path.write_bytes(before)
    add_lines(path, ["x"], before)
    assert path.read_bytes() == after


def test_a_topic_whose_file_is_missing_or_empty_gets_one(stage):
    stage.path("art").unlink()
    stage.write("nature", b"\n")
    stage.run()
    assert stage.lines("art") == [scene(0), scene(1), scene(2)]
    assert stage.lines("nature") == [scene(3), scene(4)]


def test_what_looks_like_a_prompt_of_any_topic_is_not_added(stage):
    invisible = scene(100).replace(" ", " \u034f", 1)
    stage.propose("art", OWN.upper(), invisible, scene(0), f"{scene(0)}!", scene(1))
    stage.propose("nature", scene(0), scene(5))
    stage.run()
    assert stage.lines("art") == [OWN, scene(0), scene(1)]
    assert stage.lines("nature") == [scene(100), scene(5)]
    assert "4 proposal(s) dropped: the same as a prompt" in stage.notes()
    assert len(read_topics(stage.folder, ["art", "nature"], 1, 1000)) == 2


def test_proposals_that_were_edited_are_taken_as_they_are_now(stage):
    stage.propose("art", "", f"  {scene(8)} ", scene(9))
    stage.run()
    assert stage.lines("art") == [OWN, scene(8), scene(9)]


def test_too_few_proposals_are_told_and_what_there_is_is_added(stage):
    stage.propose("art", scene(0))
    assert stage.run()["art"] == 1
    assert any(note.startswith(f"{stage.path('art')} has 2 of 3 prompts") for note in stage.notes())


def test_proposals_of_which_none_can_be_added_are_an_error_with_its_mend(stage):
    stage.propose("art", OWN)
    stage.propose("nature")
    with pytest.raises(UserError, match=r"no prompt could be added: art, nature .*template"):
        stage.run()
    assert stage.lines("art") == [OWN]


def test_a_file_that_is_edited_meanwhile_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "art.txt"
    path.write_text("one cat\n")
    edited = b"one cat\nmy second cat\n"
    monkeypatch.setattr(add_prompts, "content_of", lambda path: edited)
    path.write_bytes(edited)
    with pytest.raises(UserError, match="was edited while prompts were to be added"):
        add_lines(path, ["x"], b"one cat\n")
    assert path.read_bytes() == edited
    assert [file.name for file in tmp_path.iterdir()] == ["art.txt"]


def test_a_link_stays_a_link_and_permissions_what_they_were(tmp_path):
    (tmp_path / "shared").mkdir()
    target, path = tmp_path / "shared/art.txt", tmp_path / "art.txt"
    target.write_text("one cat\n")
    target.chmod(0o640)
    path.symlink_to(target)
    add_lines(path, ["x"], b"one cat\n")
    assert path.is_symlink()
    assert target.read_text() == "one cat\nx\n"
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o640


def test_a_rerun_after_a_crash_between_two_files_adds_the_rest_only(stage, monkeypatch):
    add = add_prompts.add_lines

    def crash_at_the_second(path: Path, *arguments: object) -> None:
        if path.name == "nature.txt":
            raise UserError("the plug was pulled")
        add(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(add_prompts, "add_lines", crash_at_the_second)
    with pytest.raises(UserError, match="plug"):
        stage.run()
    monkeypatch.undo()
    # The next run asks for what is missing by then.
    stage.wanted = {"nature": 2}
    stage.run()
    assert stage.lines("art") == [OWN, scene(0), scene(1)]
    assert stage.lines("nature") == [scene(100), scene(3)]
