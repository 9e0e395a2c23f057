"""A job: only what is missing is computed, a failure costs one item, and what was done is on
record.
"""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.data.shards import read_shard, stage_rows
from lib.errors import ItemError, UserError
from lib.jobs.batches import Item
from lib.jobs.device import halving
from lib.jobs.legacy import ShardJob


class Parameters(dict):
    __getattr__ = dict.__getitem__


def new_job(tmp_path, max_failed_fraction=1.0, version=1):
    common = {
        "root": str(tmp_path),
        "device": "cpu",
        "seed": 0,
        "max_failed_fraction": max_failed_fraction,
    }
    return ShardJob(
        SimpleNamespace(
            rule="square", wildcards=["art", "00"], params=Parameters(settings={}, common=common)
        ),
        version,
    )


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


def run(tmp_path, numbers, squares=None, **options):
    squares = squares or Squares()
    job = new_job(
        tmp_path,
        **{
            name: options.pop(name)
            for name in ("max_failed_fraction", "version")
            if name in options
        },
    )
    outcomes = job.run(items(job, *numbers), squares.load, squares.compute, **options)
    job.write_record()
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


def test_files_written_by_a_thread_are_waited_for_and_their_failures_fail_the_item(tmp_path):
    with ThreadPoolExecutor(1) as writer:

        class Writing(Squares):
            def compute(self, model, batch):
                return [writer.submit(lambda n=item.inputs: {"inverse": 1 / n}) for item in batch]

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


def test_published_rows_carry_an_earlier_stage_s_reason_and_their_own(tmp_path):
    _, job, outcomes = run(tmp_path, [1])
    rows = {f"art-{n}": {"id": f"art-{n}", "topic": "art", "prompt": str(n)} for n in (1, 2)}
    rows["art-2"]["missing"] = {"rule": "earlier", "reason": "blank"}
    job.publish(str(tmp_path / "out.jsonl"), stage_rows(rows, outcomes, "square"))
    assert read_shard(tmp_path / "out.jsonl") == {
        "art-1": {"id": "art-1", "topic": "art", "prompt": "1", "square": 1},
        "art-2": {
            "id": "art-2",
            "topic": "art",
            "prompt": "2",
            "missing": {"rule": "earlier", "reason": "blank"},
        },
    }
