"""The limit of an image's pixels: told from the header, in one message, wherever a file is opened
that somebody else made.
"""

import io
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from answer_benchmark import check_data
from answer_questions import check_readable
from index_benchmarks import hash_of_bytes, index
from lib.config.contamination import IndexedTask
from lib.config.run import load_config
from lib.data.parquet_images import images_in_parquet
from lib.data.rows import Candidate, ImagesRow
from lib.errors import UserError
from rank_images import check_files

#: Sides in pixels: one that PIL refuses by itself, one that it would take 507 MB for.
SIDES = (14_000, 13_000)


@pytest.fixture(scope="module", params=SIDES)
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of few bytes and many pixels."""
    path = tmp_path_factory.mktemp("large") / f"{request.param}.png"
    Image.new("1", (request.param, request.param)).save(path)
    assert path.stat().st_size < 100_000
    return path


def data_file(path: Path, *images: bytes) -> Path:
    rows = [{"bytes": image, "path": None} for image in images]
    table = pa.table({"question": ["What?"] * len(images), "image": rows})
    pq.write_table(table, path)
    return path


def small() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (100, 80)).save(stream, "PNG")
    return stream.getvalue()


MESSAGE = (
    r"an image of .*megapixels.*, over `max_image_megapixels` \(50\)\. Make it smaller, or raise"
)


def test_a_benchmark_s_picture_over_the_limit_is_told_before_it_is_decoded(large):
    with pytest.raises(UserError, match=rf"\.png: benchmark pope asks about it: {MESSAGE}"):
        check_readable(large, "pope", 50)


def test_a_picture_inside_a_file_of_questions_is_held_against_the_limit_as_well(large):
    with pytest.raises(UserError, match=rf"^question 7: {MESSAGE}"):
        hash_of_bytes(large.read_bytes(), "question 7", 50)


def test_a_picture_in_a_data_file_is_told_with_its_row(large, tmp_path):
    path = data_file(tmp_path / "x.parquet", small(), large.read_bytes())
    with pytest.raises(UserError, match=rf"x\.parquet, row 1: {MESSAGE}"):
        check_data(path, 50)
    with pytest.raises(UserError, match=rf"x\.parquet, question 1: {MESSAGE}"):
        index("mine", IndexedTask(task="t", data={"test": str(path)}), 50)


def deep() -> bytes:
    stream = io.BytesIO()
    Image.new("I;16", (8, 8), 40_000).save(stream, "PNG")
    return stream.getvalue()


def cut_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(stream, "JPEG")
    return stream.getvalue()[:-400]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no image", "no whole image"),
        (small()[:-30], "no whole image"),
        (cut_jpeg(), r"no whole image \(image file is truncated"),
        (deep(), "an image of PIL's mode I;16, with over 8 bits a pixel"),
    ],
    ids=["no image", "a cut PNG", "a cut JPEG", "16 bits"],
)
def test_a_picture_that_no_model_can_see_is_told_with_its_file_and_row(tmp_path, content, told):
    path = data_file(tmp_path / "x.parquet", small(), content)
    with pytest.raises(UserError, match=rf"x\.parquet, row 1: {told}"):
        check_data(path, 50)
    with pytest.raises(UserError, match=rf"x\.parquet, question 1: {told}"):
        index("mine", IndexedTask(task="t", data={"test": str(path)}), 50)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.png: .* asks about this file, and it is {told}"):
        check_readable(tmp_path / "a.png", "pope", 50)


def test_whole_pictures_of_eight_bits_are_seen_whatever_their_mode(tmp_path):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode}.png")
        check_readable(tmp_path / f"{mode}.png", "pope", 50)
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    check_readable(tmp_path / "a.jpg", "pope", 50)


def test_a_candidate_over_the_limit_is_told_though_it_is_the_one_that_was_published(large):
    candidate: Candidate = {
        "guidance_scale": 5.0,
        "seed": 0,
        "file": large.name,
        "sha256": sha256(large.read_bytes()).hexdigest(),
        "blank": False,
    }
    row: ImagesRow = {"id": "art-0", "topic": "art", "prompt": "x", "candidates": [candidate]}
    with pytest.raises(UserError, match=rf"{large.name}: {MESSAGE}"):
        check_files(row, large.parent, 50)


def test_the_limit_is_the_configuration_s(tmp_path):
    path = data_file(tmp_path / "x.parquet", small(), small())
    check_data(path, 0.008)
    size = r"100 x 80 pixels \(0\.0 megapixels\), over `max_image_megapixels` \(0\.0079\)"
    with pytest.raises(UserError, match=rf"x\.parquet, row 0: an image of {size}"):
        check_data(path, 0.0079)
    assert [len(images) for _, images in images_in_parquet(path)] == [1, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"images": {"height": 8192, "width": 8192}},
            r"images\.height` x `images\.width` \(8192 x 8192\) have more than `max_image",
        ),
        ({"max_image_megapixels": 200}, r"max_image_megapixels: .*less than or equal to 178"),
        ({"max_image_megapixels": 0}, r"max_image_megapixels: .*greater than 0"),
    ],
)
def test_images_are_not_made_larger_than_they_may_be_read(values, message):
    with pytest.raises(UserError, match=message):
        load_config(values, [])
    load_config({"images": {"height": 8192, "width": 8192}, "max_image_megapixels": 70}, [])
