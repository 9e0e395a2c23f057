"""The journal: what is finished is never lost, and what is damaged is never believed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.errors import UserError
from lib.jobs.journal import Journal

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def write(path, count=3):
    with Journal(path, "rank_images") as journal:
        for number in range(count):
            journal.begin([f"key{number}"])
            journal.add(f"key{number}", f"art-{number}", seconds=0.1, result={"score": number})


def test_what_was_added_is_there_after_reopening(tmp_path):
    write(tmp_path / "j.jsonl")
    with Journal(tmp_path / "j.jsonl", "rank_images") as journal:
        assert [journal.finished(f"key{number}") for number in range(4)] == [
            {"score": 0},
            {"score": 1},
            {"score": 2},
            None,
        ]


@pytest.mark.parametrize("cut", [1, 2, 10, 60])
def test_a_torn_last_line_costs_that_line_only_and_later_lines_are_not_glued_to_it(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    write(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, "rank_images") as journal:
        assert journal.dropped_lines == 1
        assert journal.finished("key1") == {"score": 1}
        assert journal.finished("key2") is None
        journal.add("key2", "art-2", seconds=0, result={"score": 22})
    with Journal(path, "rank_images") as journal:
        assert journal.dropped_lines == 0
        assert journal.finished("key2") == {"score": 22}


def test_a_damaged_line_in_the_middle_costs_that_line_only(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path)
    lines = path.read_bytes().split(b"\n")
    lines[4] = lines[4][:20] + b"\x00\xff" * 8
    path.write_bytes(b"\n".join(lines))
    with Journal(path, "rank_images") as journal:
        assert (journal.dropped_lines, journal.finished("key1"), journal.finished("key2")) == (
            1,
            None,
            {"score": 2},
        )


def test_a_failed_item_is_not_finished_and_a_later_success_counts(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, "rank_images") as journal:
        journal.add("key", "art-0", seconds=0, reason="NaN score")
        assert journal.finished("key") is None
    with Journal(path, "rank_images") as journal:
        assert journal.finished("key") is None
        journal.add("key", "art-0", seconds=0, result={"score": 1})
    with Journal(path, "rank_images") as journal:
        assert journal.finished("key") == {"score": 1}


@pytest.mark.parametrize(
    "first",
    [
        b'{"journal": 2, "rule": "rank_images"}',
        b'{"journal": 1, "rule": "other"}',
        b"something else",
    ],
)
def test_a_journal_of_another_version_or_rule_is_refused_with_its_name_and_kept(tmp_path, first):
    path = tmp_path / "j.jsonl"
    write(path)
    content = b"\n".join([first, *path.read_bytes().split(b"\n")[1:]])
    path.write_bytes(content)
    with (
        pytest.raises(UserError, match=r"j\.jsonl, line 1: .*move it away"),
        Journal(path, "rank_images"),
    ):
        pass
    assert path.read_bytes() == content


def test_two_jobs_cannot_write_the_same_journal(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, "rank_images"):
        code = (
            "from pathlib import Path; from lib.jobs.journal import Journal;"
            f" Journal(Path({str(path)!r}), 'rank_images').__enter__()"
        )
        other = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert other.returncode != 0
        assert "another job is writing this journal" in other.stderr


def test_every_line_is_json_of_its_own(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, "rank_images") as journal:
        journal.add("key", "art-0", seconds=0, result={"text": "two\nlines \u2028 and é 😀"})
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[-1] == ""
    assert json.loads(lines[1])["result"]["text"] == "two\nlines \u2028 and é 😀"
    assert len(lines) == 3


def test_an_edited_line_costs_its_item_and_is_told_once(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path)
    path.write_bytes(path.read_bytes().replace(b'{"score":1}', b'{"score":7}'))
    with Journal(path, "rank_images") as journal:
        assert journal.dropped_lines == 1
        assert journal.finished("key1") is None
        assert [journal.finished(f"key{number}") for number in (0, 2)] == [
            {"score": 0},
            {"score": 2},
        ]
        journal.add("key1", "art-1", seconds=0, result={"score": 1})
    with Journal(path, "rank_images") as journal:
        assert journal.dropped_lines == 0
        assert journal.finished("key1") == {"score": 1}


def test_a_line_whose_checksum_was_taken_off_is_not_believed(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path)
    lines = path.read_bytes().split(b"\n")
    entry = json.loads(lines[4])
    del entry["sum"]
    lines[4] = json.dumps(entry).encode()
    path.write_bytes(b"\n".join(lines))
    with Journal(path, "rank_images") as journal:
        assert (journal.dropped_lines, journal.finished("key1")) == (1, None)


def test_lines_of_an_older_version_which_have_no_checksum_are_valid(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path)
    old = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    for line in old:
        del line["sum"]
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in old))
    with Journal(path, "rank_images") as journal:
        assert (journal.dropped_lines, journal.finished("key1")) == (0, {"score": 1})
        journal.add("key9", "art-9", seconds=0, result={"score": 9})
    with Journal(path, "rank_images") as journal:
        assert (journal.dropped_lines, len(journal.entries)) == (0, 4)


@pytest.mark.parametrize("number", range(2, 8))
@pytest.mark.parametrize("bit", [0, 3, 6])
def test_no_bit_of_a_line_can_be_changed_without_notice(tmp_path, number, bit):
    path = tmp_path / "j.jsonl"
    write(path)
    lines = path.read_bytes().split(b"\n")
    for position in range(0, len(lines[number - 1]), 7):
        line = bytearray(lines[number - 1])
        line[position] ^= 1 << bit
        changed = [*lines[: number - 1], bytes(line), *lines[number:]]
        path.write_bytes(b"\n".join(changed))
        with Journal(path, "rank_images") as journal:
            assert journal.dropped_lines >= 1, bytes(line)
