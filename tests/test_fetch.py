"""What `make fetch` downloads, from a hub on this machine: all that the configuration's jobs will
ask the hub for, and nothing else.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hub_server import COMMIT, hub_server
from lib.benchmarks.lmms_eval.tasks import (
    HUB_DATA,
    TaskSettings,
    find_task,
    local_task,
    read_task,
)
from lib.config.evaluation import TaskBenchmark
from lib.config.run import Config, load_config
from lib.config.yaml_files import read_yaml
from lib.head.downloads import downloads

REPOSITORY = Path(__file__).resolve().parent.parent
NOT_WANTED = {
    "pytorch_model.bin": b"a pickle",
    "tf_model.h5": b"another framework",
    "test_images.zip": b"pictures",
    "text_encoders/t5xxl.safetensors": b"in one file",
    "sd_xl_base_1.0.safetensors": b"all parts in one file",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"in half precision",
}
WEIGHTS = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 4000}


def model(name, **more):
    return {"model": name, "revision": COMMIT, **more}


#: Every kind of thing that comes from the hub, once.
CONFIG = {
    "run": "fetched",
    "images": model("a/pictures"),
    "image_ranking": {
        "scorers": {
            "reward": model("a/reward", kind="image-reward", tokenizer=model("a/tokenizer")),
            "clip": model("a/clip", kind="clip"),
            "blip": model("a/blip", kind="blip"),
        },
        "select_by": "reward",
    },
    "responses": {"policy_models": {"one": model("a/policy"), "two": model("a/base")}},
    "response_ranking": model("a/armorm"),
    "training": {
        "base_model": model("a/base"),
        "experiments": {
            "small": {"size": 2000},
            "theirs": {"pairs": {"source": "a/pairs", "revision": COMMIT}},
        },
    },
    "figures": {"embedding": model("a/embedding")},
    "evaluation": {
        "benchmarks": {
            "pope": {
                "task": "pope",
                "data_revision": COMMIT,
                "metrics": {"accuracy": "pope_accuracy"},
            },
            "vqav2": {
                "task": "vqav2_val",
                "data_revision": COMMIT,
                "metrics": {"score": "exact_match"},
            },
        },
        "models": {"theirs-7b": model("a/released", layout="llava")},
    },
}
POPE = "datasets/lmms-lab-encoder/POPE"
VQAV2 = "datasets/lmms-lab-encoder/VQAv2"
REPOSITORIES = {
    f"a/{name}": WEIGHTS | NOT_WANTED | {"config.json": name.encode()}
    for name in ("pictures", "clip", "policy", "armorm", "base")
} | {
    "a/reward": {"ImageReward.pt": b"weights", "med_config.json": b"{}"} | NOT_WANTED,
    "a/tokenizer": {"tokenizer.json": b"{}", "vocab.txt": b"a"} | WEIGHTS,
    "a/blip": {"config.json": b"{}"} | NOT_WANTED,
    "a/embedding": {"1_Pooling/config.json": b"[]", "onnx/model.onnx": b"x"} | WEIGHTS,
    "a/released": WEIGHTS | NOT_WANTED,
    "datasets/a/pairs": {"9k.json": b"[]", "images.tar": b"a tar", "pictures.bin": b"pictures"},
    POPE: {"README.md": b"a card", "data/test.parquet": b"rows", "pictures.zip": b"a zip"},
    VQAV2: {
        "README.md": b"a card",
        **{f"data/{split}-0.parquet": b"rows" for split in ("test", "train", "validation")},
    },
}
FETCHED = {
    *(
        f"a/{name}/{file}"
        for name in ("pictures", "clip", "policy", "armorm", "base", "embedding")
        for file in WEIGHTS
    ),
    *("a/embedding/1_Pooling/config.json", "a/reward/ImageReward.pt", "a/reward/med_config.json"),
    *("a/tokenizer/tokenizer.json", "a/tokenizer/vocab.txt"),
    *("a/blip/config.json", "a/blip/pytorch_model.bin"),
    *(f"a/released/{file}" for file in (*WEIGHTS, "pytorch_model.bin")),
    *(f"datasets/a/pairs/{file}" for file in ("9k.json", "images.tar", "pictures.bin")),
    *(f"{POPE}/{name}" for name in ("README.md", "data/test.parquet", "pictures.zip")),
    # Of VQAv2 the one split that is read.
    *(f"{VQAV2}/{name}" for name in ("README.md", "data/validation-0.parquet")),
}


@pytest.fixture
def hub():
    with hub_server(REPOSITORIES) as served:
        yield served


class Fetch:
    """The script, run in a folder with a configuration, into a hub cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "hub/hub"
        (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))

    def start(self, url: str, *words: str) -> subprocess.Popen[str]:
        """Begins to fetch from the hub at an address."""
        return subprocess.Popen(
            [sys.executable, REPOSITORY / "scripts/fetch.py", *words],
            cwd=self.folder,
            env={
                **os.environ,
                "HF_HOME": str(self.folder / "hub"),
                "HF_ENDPOINT": url,
                "HF_HUB_DISABLE_XET": "1",
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, url: str, *words: str) -> SimpleNamespace:
        """Fetches to the end."""
        process = self.start(url, *words)
        out, err = process.communicate(timeout=120)
        return SimpleNamespace(returncode=process.returncode, stdout=out, stderr=err)


@pytest.fixture
def fetch(tmp_path):
    """The script, for a configuration with every kind of thing that comes from the hub."""
    return Fetch(tmp_path)


def test_all_that_the_configuration_needs_is_fetched_and_nothing_else(fetch, hub):
    done = fetch(hub.url)
    assert done.returncode == 0, done.stderr
    assert set(hub.sent) == FETCHED
    assert len(hub.sent) == len(FETCHED)
    assert "export HF_HUB_OFFLINE=1" in done.stdout
    # The list came first, with the sizes that the hub tells.
    assert done.stdout.index("image_ranking.scorers.reward") < done.stdout.index("1 of ")
    hub.sent.clear()
    again = fetch(hub.url)
    assert again.returncode == 0, again.stderr
    assert hub.sent == []


def test_a_dry_run_lists_all_and_fetches_nothing(fetch, hub):
    done = fetch(hub.url, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert hub.sent == []
    for name in REPOSITORIES:
        assert name in done.stdout


def test_after_ctrl_c_the_same_command_fetches_what_is_missing(fetch, hub):
    hub.held.add("a/policy/model.safetensors")
    process = fetch.start(hub.url)
    assert hub.waiting.wait(60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command fetches what is missing" in said
    assert not list(fetch.cache.rglob("*.incomplete"))
    before = set(hub.sent)
    assert "a/pictures/model.safetensors" in before
    hub.let_go.set()
    hub.held.clear()
    hub.sent.clear()
    done = fetch(hub.url)
    assert done.returncode == 0, done.stderr
    assert "a/policy/model.safetensors" in hub.sent
    assert before & set(hub.sent) <= {"a/policy/config.json"}
    (weights,) = (fetch.cache / "models--a--policy").glob("snapshots/*/model.safetensors")
    assert weights.read_bytes() == REPOSITORIES["a/policy"]["model.safetensors"]


def test_what_is_in_the_cache_needs_no_network(fetch, hub):
    assert fetch(hub.url).returncode == 0
    done = fetch("http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    (one,) = (fetch.cache / "models--a--policy").glob("snapshots/*/config.json")
    one.unlink()
    done = fetch("http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.endswith("not whole: responses.policy_models.one.\n")


def test_everything_that_cannot_be_had_is_told_at_once_and_nothing_is_fetched(fetch, hub):
    hub.refused.add("a/pictures")
    hub.repositories = {name: files for name, files in REPOSITORIES.items() if name != "a/blip"}
    done = fetch(hub.url)
    assert done.returncode == 1
    assert "images: a/pictures: the hub refuses access (HTTP 403)" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert "image_ranking.scorers.blip: a/blip: the hub has no such repository" in done.stderr
    assert hub.sent == []


def test_where_no_hub_is_reachable_the_message_says_so_and_the_list_is_shown(fetch):
    done = fetch("http://127.0.0.1:9", "--dry-run")
    assert done.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached (ConnectError)" in done.stderr
    assert "HF_HOME" in done.stderr
    assert "a/pictures" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_paper_s_models_and_data_are_pinned_and_each_is_fetched_once():
    wanted, unknown = downloads(Config())
    assert not unknown
    path = REPOSITORY / "config.yaml"
    assert (wanted, unknown) == downloads(load_config(read_yaml(path), [path]))
    repositories = [download.repository for download in wanted]
    assert len(set(repositories)) == len(repositories) == 12 + 7
    assert [
        download.repository for download in wanted if len(download.revision) != len(COMMIT)
    ] == ["lmms-lab-encoder/MMVet"]


def test_the_data_sets_that_a_head_environment_knows_are_those_that_lmms_eval_reads():
    told = {task: read_task(find_task(task))["dataset_path"] for task in HUB_DATA}
    assert told == HUB_DATA
    tasks = {
        block.task
        for block in Config().evaluation.benchmarks.values()
        if isinstance(block, TaskBenchmark)
    }
    assert tasks == set(HUB_DATA)


def test_without_network_a_benchmark_reads_its_data_from_the_hub_cache(
    tmp_path, monkeypatch, demo_benchmarks
):
    from datasets import load_dataset
    from huggingface_hub import constants

    folder = tmp_path / "datasets--lmms-lab-encoder--POPE/snapshots" / COMMIT
    (folder / "data").mkdir(parents=True)
    shutil.copy(demo_benchmarks / "pope.parquet", folder / "data/test-00000-of-00001.parquet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    settings = TaskSettings(task="pope", data_revision=COMMIT, metrics={"f1": "pope_f1_score"})
    online = local_task(find_task("pope"), settings)
    assert online["dataset_kwargs"] == {"revision": COMMIT}
    assert "dataset_path" not in online
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    task = local_task(find_task("pope"), settings)
    loaded = load_dataset(
        task["dataset_path"], cache_dir=str(tmp_path / "cache"), **task["dataset_kwargs"]
    )
    assert loaded["test"].num_rows > 0


def test_a_task_that_nobody_knows_is_told_and_the_rest_is_listed():
    task = {"task": "no_such_task", "metrics": {"score": "score"}}
    config = Config.model_validate({"evaluation": {"benchmarks": {"mine": task}}})
    wanted, (problem,) = downloads(config)
    assert len(wanted) == 12
    assert problem.startswith("evaluation.benchmarks.mine: which data set it reads is not known")
