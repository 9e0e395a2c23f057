"""The table that ends every run."""

import json
from pathlib import Path

import pytest

from lib.head.summary import Loading, notes_of, print_summary
from lib.jobs.record import Record


def record(rule: str, job: str, *notes: str) -> Record:
    return Record(rule, job, notes=list(notes))


def test_what_many_jobs_say_in_the_same_words_is_one_line_and_nothing_is_lost() -> None:
    batches = "batches of up to 16 prompts"
    records = [
        record("generate_responses", "mistral/art/00", batches),
        record("generate_responses", "mistral/art/01", batches, "out of memory: half the batch"),
        record("answer_questions", "base/chair", batches),
    ]
    assert notes_of(records) == [
        "generate_responses (2 jobs, mistral/art/00 first): batches of up to 16 prompts",
        "generate_responses mistral/art/01: out of memory: half the batch",
        "answer_questions base/chair: batches of up to 16 prompts",
    ]


def test_paths_and_notes_are_printed_as_they_are_and_failures_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "[/b] :smile:"
    (root / "work").mkdir(parents=True)
    noted = record("rank_images", "clip/art/00", "no [/b] of [red]this :smile:")
    noted.failed = 3
    (root / "work" / "x.json").write_text(json.dumps(vars(noted)))
    print_summary(root, "")
    told = capsys.readouterr().err
    assert "[/b]:smile:)" in "".join(told.split())  # wherever its lines end
    assert "note: rank_images clip/art/00: no [/b] of [red]this :smile:" in told
    assert " 3 │" in told


def test_how_much_of_the_jobs_time_was_loading_is_told_from_their_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all jobs: a table is made without a model, and takes its time, too."""
    root = tmp_path / "run"
    (root / "work").mkdir(parents=True)
    for number, (load, wall) in enumerate([(1.5, 4.0), (0.5, 2.0), (0.0, 2.0)]):
        each = record("rank_images", str(number))
        each.load_seconds, each.wall_seconds = load, wall
        (root / "work" / f"{number}.json").write_text(json.dumps(vars(each)))
    print_summary(root, "")
    assert "loading was 25% of the jobs' time (2.0 of 8.0 s)" in capsys.readouterr().err
    assert Loading.of([]).share == 0
