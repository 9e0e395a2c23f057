"""Data sets: nested, stratified, and read back by the libraries that users read them with."""

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from lib.data.data_sets import llava_record, ordered_pairs
from lib.data.rows import MissingRow, Pair, PairRow, PickedImage
from lib.errors import UserError
from lib.files import digest_of_file
from merge_pairs import write_parquet


def row(topic: str, number: int, root: Path | None = None) -> PairRow:
    name = f"{topic}-{sha256(f'{topic}{number}'.encode()).hexdigest()[:10]}"
    image: PickedImage = {
        "file": f"images/{topic}/00/{name}.png",
        "sha256": "",
        "guidance_scale": 7.0,
        "score": 1.0,
    }
    if root:
        path = Path(root, image["file"])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, 0, 0)).save(path)
        image["sha256"] = digest_of_file(path)
    pair: Pair = {
        "chosen": {"policy": "a", "text": f"right {number}", "score": 1.0},
        "rejected": {"policy": "b", "text": 'wrong 😀 "quoted"', "score": 0.0},
        "margin": 1.0,
    }
    return {
        "id": name,
        "topic": topic,
        "prompt": f"{topic} {number}",
        "instruction": "What is it?",
        "image": image,
        "invalid_responses": {},
        "pair": pair,
    }


ROWS = (
    [row("art", n) for n in range(60)]
    + [row("school", n) for n in range(30)]
    + [row("nature", n) for n in range(10)]
)


def test_a_larger_data_set_contains_the_smaller_and_each_is_stratified_by_topic():
    order = ordered_pairs(ROWS)
    assert len(order) == 100
    for size in (10, 20, 50):
        topics = Counter(pair["topic"] for pair in order[:size])
        assert topics == {"art": size * 0.6, "school": size * 0.3, "nature": size * 0.1}


def test_the_order_does_not_depend_on_the_order_of_shards():
    assert ordered_pairs(reversed(ROWS)) == ordered_pairs(ROWS)


def test_rows_without_a_pair_are_left_out():
    without: PairRow = {**row("art", 1000), "no_pair": "tie"}
    del without["pair"]
    missing: MissingRow = {
        "id": "art-0",
        "topic": "art",
        "prompt": "",
        "missing": {"rule": "rank_images", "reason": "all images blank"},
    }
    assert ordered_pairs([*ROWS, without, missing]) == ordered_pairs(ROWS)


def test_the_published_format_has_its_four_fields():
    record = llava_record(row("art", 1))
    assert list(record) == ["id", "image", "conversations", "rejected_conversations"]
    assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"]
    assert (
        record["conversations"][0]
        == record["rejected_conversations"][0]
        == {
            "from": "human",
            "value": "<image> What is it?",
        }
    )
    assert record["conversations"][1]["value"] == "right 1"


def test_datasets_reads_the_parquet_files_with_their_images(tmp_path):
    import datasets

    rows = [row("art", n, tmp_path) for n in range(1003)]
    folder = tmp_path / "dataset" / "data"
    folder.mkdir(parents=True)
    write_parquet(rows, tmp_path, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    loaded = datasets.load_dataset(
        str(tmp_path / "dataset"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["id"][:] == [pair["id"] for pair in rows]
    assert loaded[1002]["images"][0].getpixel((0, 0)) == (1002 % 256, 0, 0)
    assert loaded[0]["rejected"] == 'wrong 😀 "quoted"'


def test_a_damaged_image_is_named_with_its_mend(tmp_path):
    pair = row("art", 1, tmp_path)
    Path(tmp_path, pair["image"]["file"]).write_bytes(b"not an image")
    with pytest.raises(
        UserError,
        match=(
            r"has other contents than when it was made\. Delete .*images/art/00\.jsonl and run"
            r" again"
        ),
    ):
        write_parquet([pair], tmp_path, tmp_path)


def test_equal_pairs_give_equal_bytes(tmp_path):
    rows = [row("art", n, tmp_path) for n in range(5)]
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_parquet(rows, tmp_path, tmp_path / name)
        contents.append((tmp_path / name / "train-00000-of-00001.parquet").read_bytes())
    assert contents[0] == contents[1]


def test_the_record_is_json_that_keeps_every_character():
    assert (
        json.loads(json.dumps(llava_record(row("art", 1)), ensure_ascii=False))[
            "rejected_conversations"
        ][1]["value"]
        == 'wrong 😀 "quoted"'
    )
