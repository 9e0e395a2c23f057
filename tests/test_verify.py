"""A run is held against its own records; what differs is said, and what to type."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from lib.data.prompts import Prompt, make_shards
from lib.data.rows import ResponseRow
from lib.data.shards import read_whole_shard
from lib.errors import UserError
from lib.head.verification import verify_run
from lib.jobs.batches import Batches
from lib.jobs.job import Job, NoSettings
from lib.jobs.streams import Item

PROMPTS = [Prompt("art", text) for text in ("a red cube", "two blue cats", "a boat")]
SHARD = make_shards(PROMPTS, 1)[0]
WILDCARDS = {"policy": "small", "topic": "art", "shard": "00"}


@pytest.fixture
def answer(rule_object, tmp_path):
    """A job of rule generate_responses whose model says the same to all; gives how many items it
    computed.
    """

    def go():
        output = tmp_path / "run/responses/small/art/00.jsonl"
        rule = rule_object("generate_responses", WILDCARDS, [], [str(output)])
        with Job(rule, NoSettings, 1) as job:
            items = [Item(prompt.id, job.key(prompt=prompt.text), prompt) for prompt in PROMPTS]
            outcomes = Batches[Prompt, None, dict[str, str]](
                job,
                load=lambda: None,
                compute=lambda model, batch: [{"response": "yes"} for _ in batch],
            ).run(items)
            rows = [
                {**prompt.row(), **(outcomes[prompt.id].result or {})} for prompt in SHARD.prompts
            ]
            job.publish(output, rows)
        return job.record.computed

    return go


@pytest.fixture
def reader(rule_object, tmp_path):
    """A job of the next stage."""
    inputs, prompts = [str(shard_file(tmp_path))], {"art/00": SHARD.digest}
    return Job(rule_object("rank_responses", WILDCARDS, inputs, [], prompts=prompts), NoSettings, 1)


def shard_file(tmp_path):
    return tmp_path / "run/responses/small/art/00.jsonl"


def differences(tmp_path):
    return {each.file: each.what for each in verify_run(tmp_path / "run").differences}


def test_a_run_that_is_as_it_was_made_has_no_differences(answer, tmp_path):
    answer()
    found = verify_run(tmp_path / "run")
    assert (found.files, found.jobs, found.differences, found.unrecorded) == (1, 1, [], [])


@pytest.mark.parametrize("kept", [2, 1, 0])
def test_a_shard_that_lost_lines_is_refused_by_the_next_stage_and_deleting_it_is_the_mend(
    answer, reader, tmp_path, kept
):
    answer()
    path = shard_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:kept]))
    with pytest.raises(UserError, match=rf"00\.jsonl: its {kept} lines are not .*Delete it"):
        read_whole_shard(reader, path, ResponseRow)
    assert differences(tmp_path) == {
        "responses/small/art/00.jsonl": "has other contents than when it was made"
    }
    path.unlink()
    assert differences(tmp_path) == {"responses/small/art/00.jsonl": "is missing"}
    assert answer() == 0
    assert path.read_bytes() == whole
    with reader:
        pass
    assert len(read_whole_shard(reader, path, ResponseRow)) == 3
    assert differences(tmp_path) == {}


def test_an_edited_response_is_refused_by_the_next_stage(answer, reader, tmp_path):
    answer()
    path = shard_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"yes"', b'"no"', 1))
    with pytest.raises(UserError, match=r"was edited, damaged or deleted\. Delete "), reader:
        pass
    assert list(differences(tmp_path)) == ["responses/small/art/00.jsonl"]


def test_doubled_and_moved_lines_are_refused(answer, reader, tmp_path):
    answer()
    path = shard_file(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    (tmp_path / "run/work/generate_responses/small/art/00.json").unlink()  # no digest to go by
    for changed in ([*lines, lines[0]], lines[::-1], [lines[0], lines[0], lines[2]]):
        path.write_bytes(b"".join(changed))
        with pytest.raises(UserError, match="not those of the shard's prompts"):
            read_whole_shard(reader, path, ResponseRow)


def test_a_damaged_line_of_a_journal_is_told_and_what_to_delete_computes_that_item_again(
    answer, tmp_path
):
    answer()
    journal = tmp_path / "run/work/generate_responses/small/art/00.journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    number = next(place for place, line in enumerate(lines) if b'"yes"' in line)
    lines[number] = lines[number].replace(b'"yes"', b'"no"')
    journal.write_bytes(b"".join(lines))
    (found,) = verify_run(tmp_path / "run").differences
    assert found.file.endswith(f"00.journal.jsonl, line {number + 1}")
    assert "computed again" in found.what
    for name in found.delete:
        (tmp_path / "run" / name).unlink()
    assert answer() == 1
    assert differences(tmp_path) == {}


def test_the_command_says_what_to_type_in_a_shell(answer, tmp_path):
    answer()
    path = shard_file(tmp_path)
    path.write_bytes(b"")
    done = verify(tmp_path / "run")
    assert done.returncode == 1
    (mend,) = [line for line in done.stdout.split("\n") if line.startswith("To mend it: rm ")]
    subprocess.run(mend.removeprefix("To mend it: "), shell=True, check=True)
    assert not path.exists()
    answer()
    assert verify(tmp_path / "run").returncode == 0


def test_a_folder_that_is_no_run_is_one_message(tmp_path):
    done = verify(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"verify.py: {tmp_path}: no job's record")


def test_verifying_imports_no_torch(answer, tmp_path):
    answer()
    code = (
        "import sys; from verify import main; main([sys.argv[1]]);"
        "sys.exit(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)) or 0)"
    )
    run_python("-c", code, str(tmp_path / "run"), check=True)


def verify(root: Path) -> "subprocess.CompletedProcess[str]":
    return run_python(str(REPOSITORY / "scripts/verify.py"), str(root))


def run_python(*arguments: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")},
        capture_output=True,
        text=True,
        check=check,
    )
