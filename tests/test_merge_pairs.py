"""Data sets: nested, stratified, complete by themselves, and read back by the libraries that users
read them with. What trainers make of them: tests/test_export_forms.py.
"""

import json
import os
import shutil
import tracemalloc
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from data_set_run import ATTRIBUTES, MakeRule, make_data_set, pair_row, write_run
from lib.data.builds import read_builds
from lib.data.data_sets import TRAIN, VALIDATION, ordered_pairs, split_of
from lib.data.export_forms.llava import llava_record
from lib.data.export_forms.registry import FORM_FILES
from lib.data.rows import MissingRow, PairRow
from lib.data.stored_mapping import StoredMapping
from lib.errors import UserError
from lib.jobs.record import read_record

ROWS = (
    [pair_row("art", n) for n in range(60)]
    + [pair_row("school", n) for n in range(30)]
    + [pair_row("nature", n) for n in range(10)]
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_larger_data_set_contains_the_smaller_and_each_is_stratified_by_topic():
    order = ordered_pairs(ROWS)
    assert len(order) == 100
    for size in (10, 20, 50):
        topics = Counter(pair["topic"] for pair in order[:size])
        assert topics == {"art": size * 0.6, "school": size * 0.3, "nature": size * 0.1}


def test_the_order_does_not_depend_on_the_order_of_shards():
    assert ordered_pairs(reversed(ROWS)) == ordered_pairs(ROWS)


def test_rows_without_a_pair_are_left_out():
    without: PairRow = {**pair_row("art", 1000), "no_pair": "tie"}
    del without["pair"]
    missing: MissingRow = {
        "id": "art-0",
        "topic": "art",
        "prompt": "",
        "missing": {"rule": "rank_images", "reason": "all images blank"},
    }
    assert ordered_pairs([*ROWS, without, missing]) == ordered_pairs(ROWS)


def test_the_published_format_has_its_four_fields():
    record = llava_record("art-1", "images/art/1.png", "What is it?", "right", "wrong")
    assert list(record) == ["id", "image", "conversations", "rejected_conversations"]
    assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"]
    question = {"from": "human", "value": "<image> What is it?"}
    assert record["conversations"][0] == record["rejected_conversations"][0] == question
    assert record["conversations"][1]["value"] == "right"


def test_about_the_asked_share_is_held_out_and_look_alikes_are_never_on_both_sides():
    prompts = [f"a picture of {number} cats" for number in range(5000)]
    held_out = {prompt for prompt in prompts if split_of(prompt, 0.02) == VALIDATION}
    assert 60 <= len(held_out) <= 140
    assert all(split_of(f" {prompt.upper()} ", 0.02) == VALIDATION for prompt in held_out)
    more = {prompt for prompt in prompts if split_of(prompt, 0.1) == VALIDATION}
    assert held_out < more
    assert split_of(prompts[0], 0) == TRAIN


def test_a_data_set_is_complete_by_itself_and_has_no_working_files(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    root = tmp_path / "run"
    inputs = write_run(root, [pair_row("art", n, root) for n in range(5)])
    made = make_data_set(rule_object, root, inputs, "4")
    alone = Path(shutil.copytree(made, tmp_path / "elsewhere"))
    shutil.rmtree(root)
    names = set(contents(alone))
    pictures = {name for name in names if name.startswith("images/art/")}
    assert len(pictures) == 4
    parquet = "data/train-00000-of-00001.parquet"
    said = {"prompt_ids.txt", "dataset.json", "CHANGELOG.md"}
    assert names == {*FORM_FILES, *said, parquet, *pictures}
    records = json.loads((alone / "llava.json").read_text(encoding="utf-8"))
    assert {record["image"] for record in records} == pictures
    assert [each["id"] for each in records] == (alone / "prompt_ids.txt").read_text().split()
    assert str(tmp_path).encode() not in b"".join(contents(alone).values())


def test_a_data_set_made_twice_is_the_same_bytes_whatever_lay_in_its_place(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    root = tmp_path / "run"
    inputs = write_run(root, [pair_row("art", n, root) for n in range(5)])
    made = make_data_set(rule_object, root, inputs, "all", validation=0.3)
    first = contents(made)
    (made / ".snakemake_timestamp").touch()
    (made / "data" / "train-00007-of-00009.parquet").write_bytes(b"of another time")
    assert contents(make_data_set(rule_object, root, inputs, "all", validation=0.3)) == first


def test_pictures_take_no_room_twice(tmp_path: Path, rule_object: MakeRule) -> None:
    root = tmp_path / "run"
    rows = [pair_row("art", 1, root)]
    made = make_data_set(rule_object, root, write_run(root, rows), "all")
    (picture,) = (made / "images/art").iterdir()
    assert os.path.samefile(picture, root / rows[0]["image"]["file"])


def test_a_validation_split_is_in_every_form_and_shares_no_prompt_with_the_other(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    import datasets

    root = tmp_path / "run"
    inputs = write_run(root, [pair_row("art", n, root) for n in range(40)])
    made = make_data_set(rule_object, root, inputs, "all", validation=0.25)
    splits = json.loads((made / "dataset.json").read_text())["splits"]
    assert splits["train"] + splits["validation"] == 40
    for suffix, split in (("", "train"), ("_validation", "validation")):
        for name, lines in (("llava", False), ("llama_factory", False), ("ms_swift", True)):
            path = made / f"{name}{suffix}.json{'l' if lines else ''}"
            text = path.read_text(encoding="utf-8")
            assert len(text.splitlines() if lines else json.loads(text)) == splits[split]
    loaded = datasets.load_dataset(str(made / "data"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in loaded.items()} == splits
    assert not set(loaded["train"]["image_prompt"]) & set(loaded["validation"]["image_prompt"])


def test_a_split_that_leaves_nothing_to_train_on_is_refused(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    root = tmp_path / "run"
    held_out = next(
        n for n in range(100) if split_of(pair_row("art", n)["prompt"], 0.5) == VALIDATION
    )
    inputs = write_run(root, [pair_row("art", held_out, root)])
    with pytest.raises(UserError, match=r"pairs\.validation: 0\.5 of 1 pairs leaves none"):
        make_data_set(rule_object, root, inputs, "all", validation=0.5)


def test_all_that_is_known_of_a_pair_stands_beside_its_texts(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    import datasets

    root = tmp_path / "run"
    rows = [pair_row("art", n, root) for n in range(1003)]
    made = make_data_set(rule_object, root, write_run(root, rows), "all")
    assert sorted(path.name for path in (made / "data").iterdir()) == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    loaded = datasets.load_dataset(str(made), split="train", cache_dir=str(tmp_path / "cache"))
    of_row = {row["id"]: number for number, row in enumerate(rows)}
    last = loaded[1002]
    number = of_row[last["id"]]
    assert last["images"][0].getpixel((0, 0)) == (number % 256, 0, 0)
    known = {name: last[name] for name in last if name not in ("images", "prompt", "id")}
    assert known == {
        "topic": "art",
        "image_prompt": f"a picture of art {number}",
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": f"right {number}"}]}],
        "rejected": [
            {"role": "assistant", "content": [{"type": "text", "text": 'wrong 😀 "quoted"'}]}
        ],
        "chosen_policy": "a",
        "rejected_policy": "b",
        "chosen_score": 1.0,
        "rejected_score": 0.0,
        "chosen_attributes": ATTRIBUTES,
        "rejected_attributes": ATTRIBUTES,
        "margin": 1.0,
        "image_reward": 1.0,
        "guidance_scale": 7.0,
        "image_seed": 42,
    }


def test_a_damaged_image_is_named_with_its_mend(tmp_path: Path, rule_object: MakeRule) -> None:
    root = tmp_path / "run"
    row = pair_row("art", 1, root)
    Path(root, row["image"]["file"]).write_bytes(b"not an image")
    with pytest.raises(
        UserError,
        match=(
            r"has other contents than when it was made\. Delete .*images/art/00\.jsonl and run"
            r" again"
        ),
    ):
        make_data_set(rule_object, root, write_run(root, [row]), "all")


def test_what_a_killed_job_left_is_neither_published_nor_in_the_way(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    root = tmp_path / "run"
    rows = [pair_row("art", n, root) for n in range(3)]
    inputs = write_run(root, rows)
    made = make_data_set(rule_object, root, inputs, "all")
    before = contents(made)
    picture = root / rows[1]["image"]["file"]
    kept = picture.read_bytes()
    picture.unlink()
    with pytest.raises(UserError, match="is missing"):
        make_data_set(rule_object, root, inputs, "all")
    assert contents(made) == before
    picture.write_bytes(kept)
    assert contents(make_data_set(rule_object, root, inputs, "all")) == before
    assert [path.name for path in made.parent.iterdir()] == ["all"]


def test_a_record_tells_of_every_file_so_that_one_that_goes_is_missed(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    root = tmp_path / "run"
    inputs = write_run(root, [pair_row("art", n, root) for n in range(20)])
    made = make_data_set(rule_object, root, inputs, "all", validation=0.25)
    record = read_record(root / "work/merge_pairs/all.json")
    assert record is not None
    told = {*record.files, *record.beside}
    assert told == {f"dataset/all/{name}" for name in contents(made)}
    assert not record.lacks_files(root)
    for name in ("llava_validation.json", "data/train-00000-of-00001.parquet"):
        (made / name).rename(tmp_path / "aside")
        assert record.lacks_files(root)
        (tmp_path / "aside").rename(made / name)


def test_the_changelog_tells_what_changed_between_two_builds(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    root = tmp_path / "run"
    rows = [pair_row("art", n, root) for n in range(4)]
    made = make_data_set(rule_object, root, write_run(root, rows[:3]), "all")
    first = (made / "CHANGELOG.md").read_text()
    assert first == "# Changes of this data set\n\n## Build 1: 3 pairs\n\nThe first.\n"
    rows[1]["instruction"] = "And what is this?"
    inputs = write_run(root, rows[1:])
    for _ in range(2):  # made again, nothing has changed
        text = (make_data_set(rule_object, root, inputs, "all") / "CHANGELOG.md").read_text()
        gone, changed, added = rows[0]["id"], rows[1]["id"], rows[3]["id"]
        assert "## Build 2: 3 pairs" in text
        assert f"- Added: 1 ({added})" in text
        assert f"- Gone: 1 ({gone})" in text
        assert f"- With another picture, instruction or answer: 1 ({changed})" in text
        assert text.endswith(first.removeprefix("# Changes of this data set\n"))
        assert "Build 3" not in text


def test_a_long_list_of_changes_is_cut_and_a_damaged_history_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "builds.jsonl"
    path.write_text("{")
    builds = read_builds(path)
    assert (builds.sizes, dict(builds.pairs)) == ([], {})
    builds.add(StoredMapping([("a", "1")]))
    builds.add(StoredMapping((f"art-{n:02}", "1") for n in range(30)))
    assert "- Added: 30 (art-00, " in builds.changelog()
    assert "art-19 and 10 more)" in builds.changelog()
    builds.write(path)
    assert read_builds(path).changelog() == builds.changelog()
    text = path.read_text()
    for left in (text[:-20], text[: text.rindex("\n", 0, -1) + 1], ""):
        path.write_text(left)
        assert read_builds(path).sizes == []


def test_the_history_that_an_older_version_wrote_goes_on(tmp_path: Path) -> None:
    history: dict[str, Any] = {
        "builds": [
            {"added": ["art-1", "art-2"], "changed": [], "gone": [], "pairs": 2},
            {"added": [], "changed": ["art-1"], "gone": ["art-2"], "pairs": 1},
        ],
        "pairs": {"art-1": "12"},
    }
    path, old = tmp_path / "160.builds.jsonl", tmp_path / "160.builds.json"
    old.write_text(json.dumps(history))
    builds = read_builds(path)
    builds.add(StoredMapping([("art-1", "12")]))  # nothing changed
    assert builds.sizes == [2, 1]
    builds.add(StoredMapping([("art-1", "12"), ("art-3", "ab")]))
    assert "- Added: 1 (art-3)" in builds.changelog()
    assert "- Gone: 1 (art-2)" in builds.changelog()
    assert "- With another picture, instruction or answer: 1 (art-1)" in builds.changelog()
    builds.write(path)
    assert read_builds(path).changelog() == builds.changelog()
    path.unlink()
    old.write_text('{"builds": [{"pairs": 2}], "pairs": {}}')
    assert read_builds(path).sizes == []


def test_a_further_pair_takes_no_more_memory_than_its_id(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    """The peak of the whole rule, from the shard files to the job's record, over a data set that is
    there; what SQLite holds beside it has a limit.
    """
    peaks = []
    for name, shards in (("few", 4), ("many", 12)):
        root, inputs = tmp_path / name, defaultdict[str, list[str]](list)
        for shard in range(shards):
            rows = [pair_row("art", shard * 250 + n, root) for n in range(250)]
            for stage, files in write_run(root, rows, shard=f"{shard:02}").items():
                inputs[stage] += files
        make_data_set(rule_object, root, inputs, "all", validation=0.3)
        tracemalloc.start()
        make_data_set(rule_object, root, inputs, "all", validation=0.3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 2000 < 150
