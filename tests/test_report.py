"""Rule report: what the page is told, and what is made anew when something changes."""

from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lib.benchmarks.question_pictures import question_pictures
from lib.config.report import PlannedTime, ShownQuestions, ShownTask
from lib.config.run import Config
from lib.data.parquet_images import digest_of_pictures
from lib.errors import UserError
from lib.files import read_jsonl, write_json
from lib.head.plan import Plan
from lib.head.report_job import brought_by, shown_besides
from lib.head.verification import verify_run
from lib.planning.rates import read_rates
from lib.planning.reported import RATES, all_rules, planned_seconds, planned_time
from lib.report.page_duplicates import most_alike
from lib.report.page_files import LARGEST, chunks
from lib.report.page_overview import FlowCounter
from lib.report.page_own_pairs import OWN, own_pairs_shown
from lib.report.page_rows import drawn
from lib.report.thumbnails import name_of
from own_pairs import write_own_pairs
from report_run import JOB, ReportRun, data_of, write_lines


@pytest.fixture
def run(tmp_path: Path) -> ReportRun:
    made = ReportRun(tmp_path / "run")
    for number in range(4):
        made.add(f"a picture of {number} circles")
    return made


def thumbnails(run: ReportRun) -> dict[str, int]:
    return {
        path.name: path.stat().st_mtime_ns for path in (run.root / "report/thumbs").rglob("*.webp")
    }


def thumbnail_names(run: ReportRun) -> set[str]:
    return {Path(name).stem for name in thumbnails(run)}


def test_every_prompt_is_told_with_its_candidates_scores_responses_and_pair(run: ReportRun) -> None:
    index = run.report()
    entries = data_of(index, "prompts-000")
    details = {each["id"]: each for each in data_of(index, "details-000")}
    assert len(entries) == len(details) == 4
    entry = entries[0]
    assert (entry["outcome"], entry["margin"], entry["chosen"]) == ("pair", 2.0, "mistral")
    told = details[entry["id"]]
    assert [each["of"] for each in told["candidates"]] == ["guidance 5", "guidance 9"]
    assert told["candidates"][0]["scores"] == [["image-reward", 0.5, True], ["clip", 0.25, False]]
    assert told["candidates"][0]["isPicked"]
    assert [each["name"] for each in told["responses"]] == list(JOB.policies)
    assert told["responses"][0]["parts"] == [["attributes", [["helpfulness", 3.5]]]]
    assert told["pair"]["rejected"]["text"] == "No."


def test_the_prompts_that_are_most_alike_are_told_with_each_other_once(run: ReportRun) -> None:
    texts = {f"art-{number}": f"a thing called word{number}" for number in range(40)}
    texts |= {"near": "a small thing called word7", "far": "nothing of it"}
    [first, *others] = most_alike(texts)
    assert first[1:] == ("art-7", "near")
    assert 0.5 < first[0] < 1
    assert others == []
    assert most_alike({}) == most_alike({"a": "one"}) == []
    name = run.add("a picture of 3 circles, once more")
    told = data_of(run.report(), "quality")["alike"]
    assert any(name in each for each in told)


def test_it_tells_how_often_scorers_and_rewards_of_an_ensemble_agree(run: ReportRun) -> None:
    for number, row in enumerate(run.rows["response_ranking"]):
        for place, response in enumerate(row["responses"].values()):
            other = place if number == 0 else -place
            said = {"a": -place, "b": other}
            response["parts"] = {name: {"standardised": value} for name, value in said.items()}
    told = data_of(run.report(), "quality")["agreement"]
    assert told == {
        "candidate": [["image-reward", "clip", 4, 0.5]],
        "response": [["a", "b", 4, 0.75]],
    }


def test_candidates_that_are_pictures_of_one_s_own_are_told_by_their_names(run: ReportRun) -> None:
    _, other = run.rows["images"][0]["candidates"]
    source = {"name": "cats/a cat.JPG", "sha256": "ab", "bytes": 1, "changed": []}
    other |= {"guidance_scale": None, "seed": None, "source": source}
    told = data_of(run.report(), "details-000")[0]["candidates"]
    assert [(each["of"], each["seed"]) for each in told] == [
        ("guidance 5", 42),
        ("cats/a cat.JPG", None),
    ]


def test_it_tells_how_far_the_rewards_of_an_ensemble_disagree(run: ReportRun) -> None:
    name = run.add("a disputed picture")
    run.disagree(0.25, spread=1.5)
    index = run.report()
    entries = {each["id"]: each for each in data_of(index, "prompts-000")}
    told = {key: entries[name][key] for key in ("against", "spread")}
    assert told == {"against": 0.25, "spread": 1.5}
    others = [each for each in entries.values() if each["id"] != name]
    assert {(each["against"], each["spread"]) for each in others} == {(None, None)}
    details = next(each for each in data_of(index, "details-000") if each["id"] == name)
    assert [each["spread"] for each in details["responses"]] == [1.5, 0.75, 0.5]


def test_pairs_that_an_experiment_brings_stand_after_the_run_s(run: ReportRun) -> None:
    run.add_own_pairs("theirs-1234", 3)
    job = JOB.model_copy(update={"own_pairs": {"theirs-1234": ["dpo-theirs"], "not-there": ["b"]}})
    index = run.report(job)
    entries = data_of(index, "prompts-000")
    own = [each for each in entries if each["outcome"] == OWN]
    assert [each["id"] for each in own] == [
        "theirs-1234/own 0",
        "theirs-1234/own 0#2",
        "theirs-1234/own 1",
    ]
    assert [each["place"] for each in entries] == list(range(7))
    assert {each["topic"] for each in own} == {"own pairs: theirs.json"}
    assert all(each["pair"] == "" and each["draw"] is None for each in own)
    assert {each["picture"] for each in own} <= thumbnail_names(run)
    details = {each["id"]: each for each in data_of(index, "details-000")}
    told = details["theirs-1234/own 1"]
    assert [each["text"] for each in told["responses"]] == [
        "a circle, and red",
        "a circle, and green",
    ]
    assert "dpo-theirs" in told["own"]
    flow = data_of(index, "overview")["flow"]
    step = {"step": "Own pairs of dpo-theirs: theirs.json", "count": 3}
    assert flow[-1] == {**step, "left_out": [["no picture", 3]]}
    run.report(job)
    assert run.record()["computed"] == 0


def test_the_report_is_told_which_experiments_bring_which_pairs(tmp_path: Path) -> None:
    path = write_own_pairs(tmp_path)
    experiments = {
        "ours": {"size": "all"},
        "theirs": {"pairs": str(path)},
        "theirs-again": {"pairs": str(path), "settings": {"seed": 7}},
    }
    plan = plan_of(tmp_path, training={"experiments": experiments})
    assert list(brought_by(plan).values()) == [["theirs", "theirs-again"]]
    assert list(brought_by(plan)) == list(plan.own_pairs)


def test_of_many_own_pairs_some_are_drawn_in_whole_groups(
    run: ReportRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.add_own_pairs("theirs-1234", 350)
    monkeypatch.setattr("lib.report.page_own_pairs.SHOWN", 120)
    [shown] = own_pairs_shown(run.root, {"theirs-1234": ["dpo"]}, seed=3)
    assert len(shown.groups) == 2
    assert 120 <= len(shown.pairs) <= 200
    told = f"Own pairs of dpo: theirs.json, of which {len(shown.pairs)} are shown"
    assert shown.step()["step"] == told
    [again] = own_pairs_shown(run.root, {"theirs-1234": ["dpo"]}, seed=3)
    assert again.pairs == shown.pairs


def test_a_damaged_file_of_own_pairs_is_named_with_what_to_do(run: ReportRun) -> None:
    run.add_own_pairs("theirs-1234", 3)
    [file] = run.root.glob("own_pairs/*/data/*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"a file is damaged.*import_pairs makes it anew"):
        own_pairs_shown(run.root, {"theirs-1234": ["dpo"]}, seed=3)


def test_a_prompt_without_a_pair_says_why_and_one_that_failed_says_where(run: ReportRun) -> None:
    run.add("a tie", pair=None, no_pair="tie")
    name = run.add("a failure")
    run.rows["pairs"][-1] = {
        **{key: run.rows["images"][-1][key] for key in ("id", "topic", "prompt")},
        "missing": {"rule": "generate_responses", "reason": "out of <memory>"},
    }
    run.rows["response_ranking"][-1] = dict(run.rows["pairs"][-1])
    index = run.report()
    outcomes = {each["id"]: each["outcome"] for each in data_of(index, "prompts-000")}
    assert outcomes[name] == "generate_responses failed"
    assert "tie" in outcomes.values()
    details = {each["id"]: each for each in data_of(index, "details-000")}
    assert details[name]["why"] == "generate_responses: out of <memory>"
    flow = {step["step"]: step for step in data_of(index, "overview")["flow"]}
    assert flow["Pairs"]["count"] == 4
    assert flow["Pairs"]["left_out"] == [["tie", 1]]
    assert flow["Prompts with responses"]["left_out"] == [["generate_responses failed", 1]]


def test_one_changed_prompt_makes_its_own_thumbnails_only(run: ReportRun) -> None:
    run.report()
    before = thumbnails(run)
    assert len(before) == 8
    assert run.record()["computed"] == 4
    for rows in run.rows.values():
        rows.pop()
    run.add("another prompt")
    run.report()
    after = thumbnails(run)
    assert run.record()["computed"] == 1
    assert len(after) == 8
    kept = before.keys() & after.keys()
    assert len(kept) == 6
    assert all(before[name] == after[name] for name in kept)


def test_candidates_that_are_the_same_picture_share_a_thumbnail(run: ReportRun) -> None:
    first, second = run.rows["images"][0]["candidates"]
    (run.root / second["file"]).write_bytes((run.root / first["file"]).read_bytes())
    second["sha256"] = first["sha256"]
    run.report()
    assert len(thumbnails(run)) == 7
    assert run.record()["failed"] == 0


def test_a_thumbnail_that_was_deleted_is_made_again(run: ReportRun) -> None:
    run.report()
    next((run.root / "report/thumbs").rglob("*.webp")).unlink()
    run.report()
    assert len(thumbnails(run)) == 8
    assert run.record()["computed"] == 1


def test_another_size_makes_all_thumbnails_anew(run: ReportRun) -> None:
    run.report()
    run.report(JOB.model_copy(update={"thumbnail_pixels": 32}))
    assert run.record()["computed"] == 4


def test_the_same_run_gives_the_same_bytes_but_for_the_time_it_took(run: ReportRun) -> None:
    def files() -> dict[str, bytes]:
        folder = run.root / "report"
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "used.js"
        }

    run.report()
    before = files()
    run.report()
    assert files() == before


def test_all_files_of_the_report_are_on_record(run: ReportRun) -> None:
    run.report()
    known = run.record()["files"]
    there = {
        path.relative_to(run.root).as_posix()
        for path in (run.root / "report").rglob("*")
        if path.is_file()
    }
    assert there == known.keys()


def test_the_report_of_a_run_is_verified_and_a_file_that_is_not_its_own_is_told(
    run: ReportRun,
) -> None:
    run.report()
    assert verify_run(run.root).differences == []
    (run.root / "report/data/prompts-000.js").write_text("alert(1)")
    (run.root / "report/page/more.js").write_text("alert(1)")
    found = {each.file: each.what for each in verify_run(run.root).differences}
    assert found == {
        "report/data/prompts-000.js": "has other contents than when it was made",
        "report/page/more.js": "was not put there by the run",
    }


def test_no_file_of_data_is_large_however_long_the_answers_are(run: ReportRun) -> None:
    for number in range(60):
        run.add(f"a long story {number}", answers=["é" * 50_000, "b", "c"])
    index = run.report()
    sizes = [path.stat().st_size for path in index.parent.rglob("*") if path.is_file()]
    assert max(sizes) < LARGEST
    assert data_of(index, "overview")["chunks"]["details"] > 5


def test_rows_stay_in_their_order_whatever_the_size_of_a_file_of_data() -> None:
    rows = [{"number": number, "text": "x" * number} for number in range(50)]
    assert [row for chunk in chunks(rows, size=100) for row in chunk] == rows
    assert list(chunks([], size=100)) == []


def test_a_sample_is_part_of_every_larger_one_and_another_seed_draws_another() -> None:
    names = [f"art-{number}" for number in range(100)]
    places = drawn(names, 0)
    assert sorted(places.values()) == list(range(100))
    without_one = drawn(names[1:], 0)
    order = sorted(without_one, key=without_one.__getitem__)
    assert order == [name for name in sorted(places, key=places.__getitem__) if name != names[0]]
    assert drawn(names, 1) != places


def test_a_run_without_prompts_has_a_flow_of_nothing() -> None:
    assert {step["count"] for step in FlowCounter().steps([])} == {0}


def plan_of(folder: Path, **values: Any) -> Plan:
    """The plan of a run of six prompts."""
    (folder / "prompts").mkdir()
    texts = "".join(f"a cat of the colour {number}\n" for number in range(6))
    (folder / "prompts/art.txt").write_text(texts)
    places = {"results": str(folder / "results"), "prompts": str(folder / "prompts")}
    return Plan(Config.model_validate({**places, "topics": ["art"], **values}))


def test_what_was_planned_is_told_by_rule_on_a_gpu_and_nothing_on_a_cpu(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    planned = planned_time(plan)
    rates = read_rates(RATES, all_rules())
    rate = rates.stages["generate_images"]
    jobs = len(plan.shards)
    seconds = jobs * (rates.every_job.seconds + rate.load_seconds) + 6 * 4 * rate.seconds
    images = planned["generate_images"]
    assert (images.hours, images.gpu_hours) == pytest.approx((seconds / 3600,) * 2, abs=1e-3)
    assert images.gpus == 1
    assert {"rank_images", "generate_responses", "rank_responses"} <= planned.keys()
    (tmp_path / "cpu").mkdir()
    on_a_cpu = plan_of(tmp_path / "cpu", device="cpu")
    assert planned_time(on_a_cpu) == {}
    # What a job takes beside those of other rules is known there, too.
    scripts = {"draw": "generate_images", "size_table": "size_table"}
    other = rates.every_job.seconds + rates.other_jobs.seconds
    of_a_job = {"draw": seconds / jobs, "size_table": other}
    assert planned_seconds(on_a_cpu, scripts) == pytest.approx(of_a_job)


def test_hours_and_gpu_hours_are_told_beside_those_planned(run: ReportRun) -> None:
    run.report()
    record = {**run.record(), "rule": "train_dpo", "job": "dpo", "wall_seconds": 1800.0}
    write_json(run.root / "work/train_dpo/dpo.json", record)
    assert "planned" not in str(data_of(run.report(), "used"))
    planned = {"train_dpo": PlannedTime(hours=0.75, gpu_hours=3, gpus=4)}
    index = run.report(JOB.model_copy(update={"planned": planned}))
    told = {each["rule"]: each for each in data_of(index, "used")["rules"]}
    names = ("hours", "planned", "gpu_hours", "planned_gpu_hours")
    assert [told["train_dpo"][name] for name in names] == [0.5, 0.75, 2, 3]
    assert told["report"]["gpu_hours"] is None


def stored_picture(number: int) -> bytes:
    """A picture of a benchmark's data."""
    content = BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("is_local", [True, False])
def test_questions_of_a_task_are_shown_with_the_pictures_of_its_data(
    run: ReportRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_local: bool
) -> None:
    stored = [stored_picture(number) for number in range(5)]
    cached = tmp_path / "datasets--someone--pope/snapshots" / ("c" * 40)
    cached.mkdir(parents=True)
    # In two files of two groups of rows, as the hub has them, beside another split.
    for name, pictures in {
        "test-00000-of-00002": stored[:3],
        "test-00001-of-00002": stored[3:],
    }.items():
        rows = [{"image": {"bytes": each, "path": "a.png"}} for each in pictures]
        pq.write_table(pa.Table.from_pylist(rows), cached / f"{name}.parquet", row_group_size=2)
    pq.write_table(pa.table({"question": ["a"] * 9}), cached / "dev-00000-of-00001.parquet")
    whole = tmp_path / "pope.parquet"
    parts = sorted(cached.glob("test*"))
    pq.write_table(pa.concat_tables(map(pq.read_table, parts)), whole)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    run.add_models({"No": 4, "Yes": 1}, "a cat")
    for folder in (run.root / "evaluation").glob("*/pope"):
        write_json(folder / "results.json", {"data": {"someone/pope": "c" * 40}})
        rows = read_jsonl(folder / "by_question.jsonl")
        saw = [each if number != 1 else b"another" for number, each in enumerate(stored)]
        write_lines(
            folder / "by_question.jsonl",
            [
                {**row, "picture": digest_of_pictures([content])}
                for row, content in zip(rows, saw, strict=True)
            ],
        )
    shown = ShownTask(files=[str(whole)] if is_local else [])
    index = run.report(JOB.model_copy(update={"benchmarks": {"pope": shown}}))
    told = {each["id"]: each["picture"] for each in data_of(index, "questions-000")}
    names = {str(number): name_of(sha256(stored[number]).hexdigest()) for number in (0, 2, 3)}
    assert told == {**names, "1": ""}
    assert set(names.values()) <= thumbnail_names(run)


@pytest.mark.parametrize(("scorer", "images"), [("chair", "images"), ("object_halbench", None)])
def test_questions_of_files_are_shown_with_their_pictures(
    run: ReportRun, demo_benchmarks: Path, scorer: str, images: str | None
) -> None:
    """Of CHAIR they are files, Object HalBench's questions hold them."""
    folder = demo_benchmarks / scorer
    shown = ShownQuestions(
        scorer=scorer,
        questions=[str(folder / "questions.jsonl")],
        images=str(folder / images) if images else None,
    )
    name, source = next(iter(question_pictures(**dict(shown)).items()))
    digest = sha256(source if isinstance(source, bytes) else source.read_bytes()).hexdigest()
    for model, score in {"base": 0.0, "dpo": 1.0}.items():
        place = run.root / "evaluation" / model / scorer
        write_lines(place / "answers.jsonl", [{"id": name, "question": "?", "response": "a"}] * 2)
        row = {"line": 1, "score": score, "target": ""}
        rows = [{**row, "id": name, "picture": digest}, {**row, "id": "other", "picture": "ab"}]
        write_lines(place / "by_question.jsonl", rows)
    index = run.report(JOB.model_copy(update={"benchmarks": {scorer: shown}}))
    told = {each["id"]: each["picture"] for each in data_of(index, "questions-000")}
    assert told == {name: name_of(digest), "other": ""}
    assert name_of(digest) in thumbnail_names(run)


def test_the_report_of_a_run_that_is_not_finished_says_which_files_it_will_show(
    tmp_path: Path,
) -> None:
    plan = plan_of(tmp_path)
    assert shown_besides(plan) == {}
    table = Path(plan.root) / "tables/reasons_table.csv"
    table.parent.mkdir(parents=True)
    table.write_text("a")
    assert list(shown_besides(plan)) == ["tables/reasons_table.csv"]
