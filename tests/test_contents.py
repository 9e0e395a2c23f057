"""What a folder contains is every byte of every file in it, and nothing is read twice for it."""

import os
import shutil
from pathlib import Path

import pytest

from lib import contents
from lib.contents import digest_files, files_under
from lib.errors import UserError
from lib.files import digest_of_file
from lib.weights import folder_identity, problem_with_folder

LARGE = 65 << 20  # once, files of over 64 MiB counted by their ends


def identity(folder: Path) -> str:
    """The identity as another process would find it."""
    folder_identity.cache_clear()
    return folder_identity(str(folder))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settled(monkeypatch):
    """Files that were made just now count as left alone for long."""
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**9))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "transformer").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "transformer" / "weights.safetensors").write_bytes(b"0123456789")
    return folder


def change_a_byte(path: Path, position: int) -> None:
    with open(path, "r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte[0] ^ 1]))


def test_the_identity_of_a_folder_of_small_files_is_what_it_was_before(model):
    """The keys in journals hold it."""
    assert identity(model) == "folder-44150eec743f4f91"


@pytest.mark.parametrize("position", [0, LARGE // 2, LARGE - 1])
def test_any_byte_of_a_large_file_is_part_of_a_models_identity(model, position, settled):
    large = model / "transformer" / "large.safetensors"
    with open(large, "wb") as stream:
        stream.truncate(LARGE)
    before = identity(model)
    change_a_byte(large, position)
    assert identity(model) != before


def test_a_folder_behind_a_link_is_part_of_a_models_identity(model, tmp_path):
    before = identity(model)
    (model / "transformer").rename(tmp_path / "elsewhere")
    (model / "transformer").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert identity(model) == before
    change_a_byte(tmp_path / "elsewhere" / "weights.safetensors", 3)
    changed = identity(model)
    assert changed != before
    (model / "vae").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert identity(model) != changed


def test_a_file_behind_links_is_part_of_a_models_identity(model, tmp_path):
    weights = model / "transformer" / "weights.safetensors"
    before = identity(model)
    weights.rename(tmp_path / "blob")
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    weights.symlink_to(tmp_path / "link")
    assert identity(model) == before
    change_a_byte(tmp_path / "blob", 3)
    assert identity(model) != before


def test_links_in_a_circle_end(model):
    (model / "transformer" / "up").symlink_to(model, target_is_directory=True)
    (model / "here").symlink_to(".", target_is_directory=True)
    (model / "lost").symlink_to("nowhere")
    (model / "itself").symlink_to("itself")
    assert [path.relative_to(model).as_posix() for path in files_under(model)] == [
        "config.json",
        "transformer/weights.safetensors",
    ]


def test_hidden_weights_count_and_other_hidden_files_do_not(model):
    before = identity(model)
    (model / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert identity(model) == before
    (model / "transformer" / ".part.safetensors").write_bytes(b"0")
    assert identity(model) != before


def test_a_file_that_is_known_is_not_read_again(model, settled, monkeypatch):
    before = identity(model)
    monkeypatch.setattr(contents, "digest_of_file", None)
    assert identity(model) == before


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_change_is_seen_whatever_its_time_says(model, how, settled, tmp_path):
    """As `mv`, `rsync -t` and `tar` leave it: the same size, an mtime of before."""
    weights = model / "transformer" / "weights.safetensors"
    status, before = weights.stat(), identity(model)
    if how == "replaced":
        shutil.copy2(weights, tmp_path / "other")
        change_a_byte(tmp_path / "other", 3)
        shutil.move(tmp_path / "other", weights)
    else:
        change_a_byte(weights, 3)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights.stat().st_size == status.st_size
    assert identity(model) != before


def test_a_digest_of_a_file_that_changed_a_moment_ago_is_not_kept(model, monkeypatch):
    """Another change in the same tick of the clock would not be seen."""
    read = []

    def noted(path: Path) -> str:
        read.append(path)
        return digest_of_file(path)

    monkeypatch.setattr(contents, "digest_of_file", noted)
    identity(model)
    identity(model)
    assert len(read) == 4


@pytest.mark.parametrize("damage", ["no folder", "no JSON", "another shape"])
def test_a_cache_that_cannot_be_used_costs_time_and_nothing_else(model, damage, settled, cache):
    before = identity(model)
    [kept] = cache.rglob("*.json")
    if damage == "no folder":
        shutil.rmtree(cache)
        cache.write_text("a file where the folder should be")
    else:
        kept.write_text('{"' if damage == "no JSON" else '[["x"]]')
    assert identity(model) == before


@pytest.mark.slow
def test_a_job_reads_no_model_folder_but_those_of_its_own_rule(project, cache):
    """Where digests cannot be kept, hundreds of jobs would read all of them."""
    project.snakemake("results/random/images/art/00.jsonl", "-n")
    assert len(list(cache.rglob("*.json"))) == 1


def test_a_folder_whose_weights_would_come_from_elsewhere_is_refused(model):
    """transformers takes the base model that an adapter in the folder names."""
    assert problem_with_folder(str(model)) is None
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    assert "holds adapter_config.json" in str(problem_with_folder(str(model)))


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UserError, match=r"gone: cannot be read \(No such file or directory\)"):
        digest_files([tmp_path / "gone"], tmp_path)
