"""A job: only what is missing is computed, a failure costs one item, and what was done is on
record.
"""

import json
import multiprocessing
import os
import platform
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import Field

from lib.blocks import LATER, NO_EFFECT, Block, Model, deciding
from lib.config.run import Config
from lib.data.rows import PromptRow
from lib.data.shards import read_shard, stage_rows
from lib.errors import ItemError, UserError
from lib.files import write_json, write_text
from lib.head.plan import Plan
from lib.head.summary import print_summary
from lib.jobs import batches
from lib.jobs.batches import Batches, Streamed
from lib.jobs.job import Job, NoSettings, digest_of_params
from lib.jobs.memory import halving
from lib.jobs.record import Record, read_record
from lib.jobs.streams import Item


class Parameters(dict[str, Any]):
    __getattr__ = dict.__getitem__


def rule_parameters(tmp_path, settings, **common):
    values = {"root": str(tmp_path), "device": "cpu", "seed": 0, "max_failed_fraction": 1.0}
    return SimpleNamespace(
        rule="square",
        wildcards=["art", "00"],
        params=Parameters(settings=settings, common=values | common),
    )


def new_job(tmp_path, max_failed_fraction=1.0, version=1):
    snakemake = rule_parameters(tmp_path, {}, max_failed_fraction=max_failed_fraction)
    return Job(snakemake, NoSettings, version)


def items(job, *numbers):
    return [Item(f"art-{number}", job.key(number=number), number) for number in numbers]


class Squares:
    """A model that counts how often it was loaded and what it computed."""

    def __init__(self):
        self.loaded = 0
        self.batches = []

    def load(self):
        self.loaded += 1
        return self

    def compute(self, model, batch):
        assert model is self
        self.batches.append([item.inputs for item in batch])
        return [{"square": item.inputs**2} for item in batch]


def run(tmp_path, numbers, squares=None, max_failed_fraction=1.0, version=1, **options):
    squares = squares or Squares()
    with new_job(tmp_path, max_failed_fraction, version) as job:
        batches = Batches(job, squares.load, squares.compute, **options)
        outcomes = batches.run(items(job, *numbers))
    return squares, job, outcomes


def test_only_missing_items_are_computed_and_each_outcome_is_there(tmp_path):
    run(tmp_path, [1, 2])
    squares, job, outcomes = run(tmp_path, [3, 2, 1])
    assert squares.batches == [[3]]
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        f"art-{n}": {"square": n * n} for n in (1, 2, 3)
    }
    assert (job.record.computed, job.record.reused, job.record.failed, job.record.items) == (
        1,
        2,
        0,
        3,
    )


def test_a_warm_job_loads_no_model(tmp_path):
    run(tmp_path, [1, 2])
    squares, job, _ = run(tmp_path, [2, 1])
    assert squares.loaded == 0
    assert job.record.load_seconds == 0


def test_another_stage_version_computes_again_and_the_old_results_stay(tmp_path):
    run(tmp_path, [1])
    assert run(tmp_path, [1], version=2)[0].batches == [[1]]
    assert run(tmp_path, [1], version=1)[0].batches == []


def test_a_failing_item_costs_itself_only_and_is_tried_again(tmp_path):
    class Fragile(Squares):
        def compute(self, model, batch):
            if 2 in [item.inputs for item in batch]:
                raise ValueError("two is bad")
            return super().compute(model, batch)

    _, job, outcomes = run(tmp_path, [1, 2, 3], Fragile(), batch_size=3)
    assert outcomes["art-2"].reason == "ValueError: two is bad"
    assert outcomes["art-2"].result is None
    assert (outcomes["art-1"].result, outcomes["art-3"].result) == ({"square": 1}, {"square": 9})
    assert (job.record.computed, job.record.failed) == (2, 1)
    squares, _, outcomes = run(tmp_path, [1, 2, 3])
    assert squares.batches == [[2]]
    assert outcomes["art-2"].result == {"square": 4}


def test_too_many_failures_stop_the_job_with_the_reasons_and_keep_what_is_finished(tmp_path):
    class Fragile(Squares):
        def compute(self, model, batch):
            return [ItemError("no answer") if item.inputs > 1 else {"square": 1} for item in batch]

    with pytest.raises(
        UserError,
        match=r"2 of 3 items failed, over `max_failed_fraction` \(0\.5\)[\s\S]*art-2: no answer",
    ):
        run(tmp_path, [1, 2, 3], Fragile(), max_failed_fraction=0.5)
    assert run(tmp_path, [1, 2, 3])[0].batches == [[2], [3]]


def test_out_of_memory_halves_the_batch_and_says_so(tmp_path):
    torch = pytest.importorskip("torch")

    class Small(Squares):
        def compute(self, model, batch):
            if len(batch) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().compute(model, batch)

    squares, job, outcomes = run(tmp_path, range(5), Small(), batch_size=5)
    assert squares.batches == [[0, 1], [2], [3, 4]]
    assert [outcome.result["square"] for outcome in outcomes.values()] == [0, 1, 4, 9, 16]
    assert "out of memory: batch of 5 halved to 3" in job.record.notes


def test_memory_that_does_not_suffice_for_one_fails_that_one():
    def compute(batch):
        raise MemoryError

    with pytest.raises(MemoryError):
        halving([1], compute, print)


def write_inverse(number):
    return {"inverse": 1 / number}


def test_files_written_by_a_thread_are_waited_for_and_their_failures_fail_the_item(tmp_path):
    with ThreadPoolExecutor(1) as writer:

        class Writing(Squares):
            def compute(self, model, batch):
                return [writer.submit(write_inverse, item.inputs) for item in batch]

        _, _, outcomes = run(tmp_path, [1, 0, 2], Writing())
    assert outcomes["art-1"].result == {"inverse": 1}
    assert "ZeroDivisionError" in outcomes["art-0"].reason
    assert outcomes["art-2"].result == {"inverse": 0.5}


def test_a_result_whose_files_are_gone_is_computed_again(tmp_path):
    run(tmp_path, [1, 2])
    squares, _, _ = run(tmp_path, [1, 2], still_valid=lambda item, result: result["square"] != 4)
    assert squares.batches == [[2]]


def test_asked_to_stop_it_finishes_the_batch_and_keeps_it(tmp_path):
    class Interrupted(Squares):
        def compute(self, model, batch):
            if batch[0].inputs == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().compute(model, batch)

    with pytest.raises(SystemExit) as ended:
        run(tmp_path, [1, 2, 3], Interrupted())
    assert ended.value.code == 128 + signal.SIGTERM
    assert run(tmp_path, [1, 2, 3])[0].batches == [[3]]


def test_the_record_says_what_the_job_did(tmp_path):
    run(tmp_path, [1])
    run(tmp_path, [1, 2])
    record = json.loads(Path(tmp_path, "work/square/art/00.json").read_text())
    assert {
        name: record[name] for name in ("rule", "job", "items", "computed", "reused", "failed")
    } == {
        "rule": "square",
        "job": "art/00",
        "items": 2,
        "computed": 1,
        "reused": 1,
        "failed": 0,
    }


def test_a_job_that_ends_in_an_error_leaves_the_earlier_record(tmp_path):
    run(tmp_path, [1, 2])
    with pytest.raises(ZeroDivisionError), new_job(tmp_path) as job:
        job.count(7 // 0)
    record = json.loads(Path(tmp_path, "work/square/art/00.json").read_text())
    assert record["items"] == 2


def test_a_job_without_batches_says_how_many_items_it_looked_at(tmp_path):
    with new_job(tmp_path) as job:
        job.count(3)
    record = json.loads(Path(tmp_path, "work/square/art/00.json").read_text())
    assert (record["items"], record["computed"], record["reused"]) == (3, 3, 0)


def test_items_are_looked_at_before_the_model_is_loaded_and_only_those_to_be_computed(tmp_path):
    run(tmp_path, [1])
    squares, looked_at = Squares(), []

    def check(item):
        assert squares.loaded == 0
        looked_at.append(item.inputs)
        if item.inputs == 3:
            raise UserError("three is damaged")

    with pytest.raises(UserError, match="three is damaged"):
        run(tmp_path, [1, 2, 3], squares, check=check)
    assert (looked_at, squares.loaded) == ([2, 3], 0)


def test_a_mistake_outside_the_code_stops_the_job_and_fails_no_item(tmp_path):
    class Misled(Squares):
        def compute(self, model, batch):
            raise UserError("the disk is not mounted")

    with pytest.raises(UserError, match="not mounted"):
        run(tmp_path, [1], Misled())
    assert run(tmp_path, [1])[1].record.computed == 1


@pytest.mark.parametrize("error", [OSError("no such file"), ValueError("not a header")])
def test_a_model_that_cannot_be_loaded_is_told_by_its_name(tmp_path, error):
    class Unloadable(Squares):
        def load(self):
            raise error

    with new_job(tmp_path) as job:
        job.record.models["models/clip"] = "folder-1"
        with pytest.raises(UserError, match=rf"models/clip: cannot be loaded \(.*{error}"):
            Batches(job, Unloadable().load, Squares().compute).run(items(job, 1))


def versions_in(tmp_path):
    record = read_record(Path(tmp_path, "work/square/art/00.json"))
    assert record is not None
    return record.versions, record.notes


def test_a_job_says_under_which_versions_of_libraries_its_items_were_computed(
    tmp_path, monkeypatch
):
    """Of those that it loaded; not of the process that only found them."""
    monkeypatch.setattr(batches, "loaded_versions", lambda: {"torch": "2.5.1", "numpy": "2.0"})
    run(tmp_path, [1, 2])
    first = versions_in(tmp_path)
    assert first == ({"torch": ["2.5.1"], "numpy": ["2.0"]}, [])
    monkeypatch.setattr(batches, "loaded_versions", lambda: {"torch": "2.6.0", "numpy": "2.0"})
    run(tmp_path, [1, 2])
    assert versions_in(tmp_path) == first


def test_a_shard_of_several_versions_says_so_in_its_record_and_at_the_run_s_end(
    tmp_path, monkeypatch, capsys
):
    for version, numbers in (("2.5.1", [1, 2]), ("2.6.0", [1, 2, 3]), ("2.6.0", [1, 2, 3])):
        monkeypatch.setattr(batches, "loaded_versions", lambda version=version: {"torch": version})
        run(tmp_path, numbers)
    told = "its results are of several versions of libraries: torch 2.5.1 and 2.6.0"
    assert versions_in(tmp_path) == ({"torch": ["2.5.1", "2.6.0"]}, [told])
    print_summary(tmp_path, "")
    assert told in " ".join(capsys.readouterr().err.split())
    # A shard that needs none of the old items mixes nothing.
    run(tmp_path, [3])
    assert versions_in(tmp_path) == ({"torch": ["2.6.0"]}, [])


def test_items_of_journals_without_versions_are_of_none_that_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "loaded_versions", dict)
    run(tmp_path, [1])
    monkeypatch.setattr(batches, "loaded_versions", lambda: {"torch": "2.6.0"})
    run(tmp_path, [1])
    assert versions_in(tmp_path) == ({}, [])
    run(tmp_path, [1, 2])
    assert versions_in(tmp_path) == ({"torch": ["2.6.0"]}, [])


def test_a_job_without_items_says_what_it_loaded(tmp_path):
    job = new_job(tmp_path)
    with job:
        job.count(1)
    versions, _ = versions_in(tmp_path)
    assert versions["python"] == [platform.python_version()]


def test_damaged_lines_of_the_journal_are_on_record_and_their_items_computed_again(tmp_path):
    run(tmp_path, [1, 2])
    journal = Path(tmp_path, "work/square/art/00.journal.jsonl")
    lines = journal.read_bytes().split(b"\n")
    lines[2] = lines[2][:-5]
    journal.write_bytes(b"\n".join(lines))
    squares, job, _ = run(tmp_path, [1, 2])
    assert squares.batches == [[1]]
    assert job.record.notes == [
        f"1 damaged line(s) of {journal} dropped; their items are computed again"
    ]


class Line(Squares):
    """A stream with a few places, of which the longest there ends at each step last: an item's
    number is how many steps it takes.
    """

    def __init__(self, places=3, at_step=lambda step: None):
        super().__init__()
        self.places, self.at_step, self.steps = places, at_step, 0

    def load(self):
        self.loaded += 1
        return self.stream

    def stream(self, take):
        left: dict[Any, int] = {}
        while True:
            left |= {item: item.inputs for item in take(self.places - len(left))}
            if not left:
                return
            self.steps += 1
            self.at_step(self.steps)
            left = {item: steps - 1 for item, steps in left.items()}
            ended = [item for item, steps in left.items() if not steps]
            for item in ended:
                del left[item]
            yield [
                (item, ItemError("no thirteen") if item.inputs == 13 else {"steps": item.inputs})
                for item in ended
            ]


def run_line(tmp_path, numbers, line=None):
    line = line or Line()
    with new_job(tmp_path) as job:
        return line, job, Streamed(job, line.load).run(items(job, *numbers))


def journal_of(tmp_path):
    lines = Path(tmp_path, "work/square/art/00.journal.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_a_stream_s_items_take_the_places_of_those_that_ended_and_are_journalled_as_they_end(
    tmp_path,
):
    seen = []
    line = Line(at_step=lambda _: seen.append([e["id"] for e in journal_of(tmp_path) if "id" in e]))
    _, job, outcomes = run_line(tmp_path, [4, 1, 13, 2, 3, 5, 6], line)
    assert line.steps == 13
    # Before each step all that ended with the steps before it is in the journal.
    assert seen[:5] == [
        [],
        ["art-1"],
        ["art-1"],
        ["art-1", "art-2"],
        ["art-1", "art-2", "art-4"],
    ]
    assert (outcomes["art-4"].result, outcomes["art-13"].reason) == ({"steps": 4}, "no thirteen")
    assert (job.record.computed, job.record.failed) == (6, 1)
    # The items' seconds share the time that passed.
    seconds = sum(entry["seconds"] for entry in journal_of(tmp_path) if "id" in entry)
    assert seconds == pytest.approx(job.record.compute_seconds, abs=0.005)


def test_asked_to_stop_a_stream_hands_nothing_out_any_more_and_ends_what_it_has(tmp_path):
    def stop_at_two(step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        run_line(tmp_path, [5, 2, 6, 1, 3, 4], Line(at_step=stop_at_two))
    assert ended.value.code == 128 + signal.SIGTERM
    kept = [entry["id"] for entry in journal_of(tmp_path) if "id" in entry]
    assert kept == ["art-2", "art-5", "art-6"]
    line, job, _ = run_line(tmp_path, [5, 2, 6, 1, 3, 4])
    assert (job.record.computed, job.record.reused, line.steps) == (3, 3, 4)


def test_a_stream_killed_at_ten_moments_loses_at_most_what_was_in_flight(tmp_path):
    numbers, places = [1 + number * 7 % 10 for number in range(10)], 3
    for moment in range(1, 11):
        root = tmp_path / str(moment)

        def kill(step, moment=moment):
            if step == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        process = multiprocessing.get_context("fork").Process(
            target=run_line, args=(root, numbers, Line(places, kill))
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        lines = journal_of(root)
        begun = {key for line in lines for key in line.get("begin", [])}
        ended = {line["key"] for line in lines if "key" in line}
        assert 0 < len(begun - ended) <= places
        _, job, outcomes = run_line(root, numbers)
        assert (job.record.reused, job.record.computed) == (len(ended), len(numbers) - len(ended))
        assert all(outcome.result for outcome in outcomes.values())


class Doubling(Block):
    """Settings of a rule."""

    factor: int
    model: Model | None = None
    tokenizer: Model | None = None


def typed_job(tmp_path, **settings):
    return Job(rule_parameters(tmp_path, settings), Doubling, 1)


def test_settings_are_the_typed_block_of_the_rule(tmp_path):
    assert typed_job(tmp_path, factor=3).settings == Doubling(factor=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "`factor`: this key is missing"),
        ({"factor": 2, "facter": 3}, "`facter`: unknown key"),
        ({"factor": 2, "model": {"model": "/data/absent"}}, "there is no folder '/data/absent'"),
    ],
)
def test_settings_that_are_wrong_on_this_machine_end_in_one_message(tmp_path, settings, message):
    with pytest.raises(UserError, match=f"square art/00: .*{message}"):
        typed_job(tmp_path, **settings)


@pytest.fixture
def folders(tmp_path):
    names = [str(tmp_path / name) for name in ("one", "two")]
    for name in names:
        Path(name).mkdir()
        Path(name, "config.json").write_text(json.dumps(name))
    return names


def test_the_models_of_a_block_are_identified_by_contents_and_put_on_record(tmp_path, folders):
    model, tokenizer = ({"model": folder} for folder in folders)
    with typed_job(tmp_path, factor=1, model=model, tokenizer=tokenizer) as job:
        identities = job.identify_all(job.settings)
    assert list(identities) == ["model", "tokenizer"]
    assert len(set(identities.values())) == 2
    record = json.loads(Path(tmp_path, "work/square/art/00.json").read_text())
    assert record["models"] == dict(zip(folders, identities.values(), strict=True))


def test_published_rows_carry_an_earlier_stage_s_reason_and_their_own(tmp_path):
    _, job, outcomes = run(tmp_path, [1])
    rows: dict[str, Any] = {
        f"art-{n}": {"id": f"art-{n}", "topic": "art", "prompt": str(n)} for n in (1, 2)
    }
    rows["art-2"]["missing"] = {"rule": "earlier", "reason": "blank"}
    job.publish(str(tmp_path / "out.jsonl"), stage_rows(rows, outcomes, "square"))
    assert read_shard(tmp_path / "out.jsonl", PromptRow) == {
        "art-1": {"id": "art-1", "topic": "art", "prompt": "1", "square": 1},
        "art-2": {
            "id": "art-2",
            "topic": "art",
            "prompt": "2",
            "missing": {"rule": "earlier", "reason": "blank"},
        },
    }


class Inner(Block):
    """A block in a block."""

    weight: int = 1
    save_steps: int = Field(1, json_schema_extra=NO_EFFECT)


class Outer(Block):
    """Settings some of which decide results."""

    steps: int = 1
    concurrency: int = Field(1, json_schema_extra=NO_EFFECT)
    kind: str = Field("first", json_schema_extra=LATER)
    inner: Inner = Inner()


def test_keys_are_made_of_all_settings_but_those_that_declare_to_have_no_effect():
    as_before = {"steps": 1, "inner": {"weight": 1}}
    assert deciding(Outer()) == as_before
    assert deciding(Outer(concurrency=9, inner=Inner(save_steps=9))) == as_before
    assert deciding(Outer(steps=2)) == as_before | {"steps": 2}
    assert deciding(Outer(inner=Inner(weight=2))) == as_before | {"inner": {"weight": 2}}


def test_a_setting_that_came_later_adds_to_a_key_only_where_it_is_not_its_default():
    assert deciding(Outer(kind="first")) == deciding(Outer())
    assert deciding(Outer(kind="second")) == deciding(Outer()) | {"kind": "second"}


class Known:
    """A job of Snakemake's graph and its record, in a run of two images."""

    asked: ClassVar[dict[str, Any]] = {"settings": 1}
    job = SimpleNamespace(
        rule=SimpleNamespace(name="generate_images", script="../scripts/generate_images.py"),
        wildcards=["art", "00"],
        params=asked,
        output=[__file__],
    )

    def __init__(self, folder):
        self.root = folder / "results/paper"
        self.path = self.root / "work/generate_images/art/00.json"
        self.plan = Plan(Config.model_validate({"results": str(folder / "results")}))
        self.files = ("images/art/00/a.png", "models/x/merged/config.json")
        for name in (*self.files, "images/art/00/other.png"):
            write_text(self.root / name, "")

    def record(self, **values):
        record = Record("generate_images", "art/00", asked=digest_of_params(self.asked))
        record.beside, record.files = {self.files[0]: ""}, {self.files[1]: "", "gone": ""}
        record.folders = ["models/x/merged"]
        write_json(self.path, vars(record) | values)

    def why_again(self, is_remembered=True):
        return self.plan.why_again(self.job, is_remembered)


@pytest.fixture
def known(tmp_path):
    made = Known(tmp_path)
    made.record()
    return made


def test_a_job_that_made_all_it_was_asked_for_does_not_run_again(known):
    assert not known.why_again(is_remembered=True)
    assert not known.why_again(is_remembered=False)


@pytest.mark.parametrize("number", [0, 1])
def test_a_job_whose_file_beside_or_in_its_output_is_gone_runs_again(known, number):
    (known.root / known.files[number]).unlink()
    assert known.why_again() == "one of its files is gone"


def test_a_job_with_failed_items_runs_again(known):
    known.record(failed=2)
    assert known.why_again() == "2 of its items failed"


def test_a_job_that_was_asked_for_something_else_runs_again_where_snakemake_forgot_it(known):
    known.record(asked="other")
    assert not known.why_again(is_remembered=True)
    assert "asked for something else" in known.why_again(is_remembered=False)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rule": 3}', '{"rule": "a", "job": null}'])
def test_a_job_whose_record_is_damaged_or_gone_runs_again(known, content):
    write_text(known.path, content)
    assert "no record" in known.why_again()
    known.path.unlink()
    assert "no record" in known.why_again()
