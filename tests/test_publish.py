"""What target `publish` puts on a hub, with the hub's own client against a hub on this machine: all
of it, once, and a message that says the mend of whatever goes wrong.
"""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

import publish
from conftest import Parameters
from hub_server import Fault, hub_server
from lib.config.publish import Publication, Publish, PublishJob
from lib.errors import OutOfReachError, UserError

SCRIPTS = Path(publish.__file__).parent
DATA_SET = "datasets/me/pairs"
PARQUET = "data/train-00000-of-00001.parquet"
FILES = {
    "README.md": b"---\nlicense: other\n---\n# A card\n",
    "dataset.json": b"{}",
    "llava.json": b"[]" + b" " * 20_000,
    PARQUET: b"rows of pictures",
    "images/one.png": b"a picture",
    ".snakemake_timestamp": b"",
}


@pytest.fixture
def hub(monkeypatch):
    """A hub, to which the client in this process talks; what waits, waits no time."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", "hf_write")
    # hf_xet speaks a protocol of its own to a server of its own; without it the client sends LFS.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    with hub_server({}) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(publish, "client", lambda: _client(served.url))
        served.waited = waited  # type: ignore[attr-defined]
        yield served


def _client(url):
    from huggingface_hub import HfApi

    return HfApi(endpoint=url, token=os.environ["HF_TOKEN"])


class Run:
    """A run with a data set and a trained model, and its rule publish."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "logs/publish.log"
        self.log.parent.mkdir(parents=True)
        for name, content in FILES.items():
            self.write(f"dataset/9000/{name}", content)
        self.write("models/dpo/adapter/adapter_model.safetensors", b"weights")
        self.write("models/dpo/adapter/adapter_config.json", b"{}")
        self.write("models/dpo/cards/adapter/README.md", b"---\nlicense: other\n---\n# A model\n")

    def write(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def publish(self, *publications, confirm=True, private=True):
        listed = publications or (
            Publication(folder="dataset/9000", repository="me/pairs", kind="dataset"),
        )
        settings = PublishJob(confirm=confirm, private=private, publications=[*listed])
        publish.main(
            SimpleNamespace(
                params=Parameters(
                    common={"root": str(self.root)}, settings=settings.model_dump(mode="json")
                ),
                log=[str(self.log)],
            )
        )
        return self.log.read_text()

    def kept(self, name="dataset-9000"):
        return json.loads((self.root / f"work/publish/{name}.json").read_text())


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def test_nothing_is_sent_until_it_is_confirmed_and_it_is_said_what_would_go_where(hub, run, capsys):
    run.publish(confirm=False)
    told = capsys.readouterr().out
    assert "dataset/9000 -> datasets/me/pairs (private, if it is new): 5 files" in told
    assert PARQUET in told
    assert "Nothing was sent" in told
    assert hub.asked == []


def test_a_data_set_is_published_whole_and_private_and_its_revision_is_kept(hub, run, capsys):
    told = run.publish()
    there = hub.repositories[DATA_SET]
    assert {name: there[name] for name in FILES if name in there} == {
        name: content for name, content in FILES.items() if not name.startswith(".")
    }
    assert hub.private == {DATA_SET}
    head = hub.head(DATA_SET)
    assert run.kept()["revision"] == head
    assert run.kept()["files"].keys() == FILES.keys() - {".snakemake_timestamp"}
    assert f"{hub.url}/{DATA_SET}/tree/{head}" in told
    assert told.strip() in capsys.readouterr().out


def test_what_is_there_already_is_not_sent_again(hub, run):
    run.publish()
    hub.received.clear()
    hub.asked.clear()
    assert "nothing to be sent" in run.publish()
    assert hub.received == []
    assert not any("/commit/" in each for each in hub.asked)
    assert hub.messages == ["initial commit", "5 files new or changed"]


def test_only_what_changed_is_sent_and_what_is_gone_is_removed(hub, run):
    run.publish()
    hub.received.clear()
    hub.repositories[DATA_SET]["NOTES.md"] = b"somebody's own"
    run.write("dataset/9000/data/train-00000-of-00002.parquet", b"the first half")
    run.write("dataset/9000/data/train-00001-of-00002.parquet", b"the second half")
    (run.root / f"dataset/9000/{PARQUET}").unlink()
    (run.root / "dataset/9000/dataset.json").unlink()
    assert "2 files new or changed, 2 removed" in run.publish()
    there = hub.repositories[DATA_SET]
    assert len(hub.received) == 2
    assert PARQUET not in there
    assert "dataset.json" not in there
    assert {"NOTES.md", ".gitattributes", "data/train-00001-of-00002.parquet"} <= there.keys()


def test_an_adapter_goes_with_the_card_that_lies_beside_it(hub, run):
    run.publish(
        Publication(
            folder="models/dpo/adapter",
            card="models/dpo/cards/adapter/README.md",
            repository="me/adapter",
            kind="model",
        )
    )
    there = hub.repositories["me/adapter"]
    assert there["README.md"].startswith(b"---")
    assert there["adapter_model.safetensors"] == b"weights"
    assert run.kept("models-dpo-adapter")["repository"] == "me/adapter"


def test_a_public_repository_is_refused_where_things_are_to_be_private(hub, run):
    hub.repositories[DATA_SET] = {}
    with pytest.raises(UserError, match=r"is public, and `publish\.private` is true"):
        run.publish()
    assert hub.repositories[DATA_SET] == {}
    run.publish(private=False)
    assert hub.repositories[DATA_SET]["dataset.json"] == b"{}"


@pytest.fixture
def xet(hub, monkeypatch, tmp_path):
    """... and large files go the way that the hub takes today."""
    from huggingface_hub import constants

    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    return hub


def test_large_files_go_by_xet_where_it_is_installed(xet, run):
    run.publish()
    there = xet.repositories[DATA_SET]
    assert there[PARQUET].oid == sha256(FILES[PARQUET]).hexdigest()
    assert any("/xorbs/" in path for path in xet.stored)
    assert xet.received == []
    xet.stored.clear()
    assert "nothing to be sent" in run.publish()
    assert xet.stored == []


def test_a_storage_that_refuses_ends_with_one_message(xet, run):
    xet.faults.append(Fault("/storage/", 403, times=99))
    with pytest.raises(UserError, match=r"datasets/me/pairs: .*Run the same command again"):
        run.publish()


# -- What goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(
    "path", ["repos/create", "preupload", "objects/batch", "/lfs/", "/commit/"]
)
def test_a_hub_that_fails_for_a_moment_is_asked_again(path, status, hub, run):
    hub.faults.append(Fault(path, status, headers={"Retry-After": "7"} if status == 429 else {}))
    run.publish()
    assert hub.repositories[DATA_SET].keys() >= {PARQUET, "llava.json"}
    assert len(hub.messages) == 2
    assert len(hub.waited) == 1
    if status == 429:
        assert hub.waited[0] in (7, 8)


@pytest.mark.parametrize("path", ["preupload", "/lfs/", "/commit/"])
def test_a_connection_that_is_cut_in_the_middle_is_made_again(path, hub, run):
    hub.faults.append(Fault(path, 0))
    run.publish()
    assert hub.repositories[DATA_SET][PARQUET] == FILES[PARQUET]
    assert len(hub.received) == len(set(hub.received)) == 3


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, run, monkeypatch):
    from hub_server import _Handler

    real = _Handler._send_json
    lost: list[str] = []

    def lose(self, value, status=200):
        if "commitOid" in value and not lost:
            lost.append(value["commitOid"])
            status, value = 502, {"error": "Bad gateway"}
        real(self, value, status)

    monkeypatch.setattr(_Handler, "_send_json", lose)
    assert "5 files new or changed" in run.publish()
    assert hub.messages == ["initial commit", "5 files new or changed"]
    assert run.kept()["revision"] == lost[0]


def test_a_commit_of_somebody_else_in_between_is_built_upon(hub, run):
    hub.faults.append(Fault("/commit/", 412))
    run.publish()
    assert PARQUET in hub.repositories[DATA_SET]


STAYING = {
    401: r"does not accept the token \(HTTP 401\)\. Put one that may write into HF_TOKEN",
    403: r"the token may not write here \(HTTP 403\)",
    404: r"no such repository or branch \(HTTP 404\)",
    409: r"somebody else is changing this repository \(HTTP 409\)\. Run the same command again",
    413: r"takes no files as large \(HTTP 413\)",
    418: r"refuses it \(HTTP 418",
    429: r"no more requests for now \(HTTP 429\)",
    503: r"the hub fails \(HTTP 503\)\. Run the same command again",
}


@pytest.mark.parametrize("status", STAYING)
@pytest.mark.parametrize("path", ["preupload", "/commit/"])
def test_what_stays_wrong_ends_with_one_message(path, status, hub, run):
    hub.faults.append(Fault(path, status, times=99))
    with pytest.raises(UserError, match=rf"datasets/me/pairs: .*{STAYING[status]}"):
        run.publish()
    assert not (run.root / "work/publish").exists()


def test_the_same_command_goes_on_where_it_was_stopped(hub, run):
    hub.faults.append(Fault("/commit/", 413))
    with pytest.raises(UserError, match="413"):
        run.publish()
    assert len(hub.received) == 3
    run.publish()
    assert len(hub.received) == 3
    assert PARQUET in hub.repositories[DATA_SET]


def test_a_token_that_is_not_known_or_may_not_write_there_is_said(hub, run, monkeypatch):
    elsewhere = Publication(folder="dataset/9000", repository="other/pairs", kind="dataset")
    with pytest.raises(UserError, match=r"datasets/other/pairs: the token may not write here"):
        run.publish(elsewhere)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"does not accept the token") as error:
        run.publish()
    assert "hf_wrong" not in str(error.value)


def test_nothing_is_sent_anywhere_before_every_repository_is_known_to_take_it(hub, run):
    here = Publication(folder="dataset/9000", repository="me/pairs", kind="dataset")
    elsewhere = Publication(folder="models/dpo/adapter", repository="other/x", kind="model")
    with pytest.raises(UserError, match=r"other/x: the token may not write here"):
        run.publish(here, elsewhere)
    assert hub.received == []
    assert hub.messages == ["initial commit"]


def test_a_token_that_the_hub_says_again_is_shown_nowhere(hub, run):
    hub.faults.append(Fault("preupload", 422, body=b'{"error": "no hf_write here"}'))
    with pytest.raises(UserError, match=r"HTTP 422: .*no \[token\] here") as error:
        run.publish()
    assert "hf_write" not in str(error.value)


def test_a_hub_out_of_reach_is_said_with_its_address(hub, run, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr(publish, "client", lambda: _client("http://hub.invalid"))
    with pytest.raises(OutOfReachError, match=r"the connection to http://hub\.invalid failed"):
        run.publish()


def test_without_a_token_nothing_is_tried(run, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match=r"nothing can be published without a token"):
        run.publish()


# -- The configuration -----------------------------------------------------------------------------


def test_repositories_have_an_owner_and_a_name():
    for name in ("pairs", "a/b/c", "me/ pairs", "https://huggingface.co/me/pairs", "../x"):
        with pytest.raises(ValidationError):
            Publish(data_sets={"all": name})
    assert Publish(data_sets={9000: "me/pairs"}).private


def test_the_rule_publishes_to_the_hub_that_the_environment_names(run, tmp_path):
    """The script in a process of its own, as Snakemake runs it, with nothing replaced."""
    settings = PublishJob(
        confirm=True,
        private=True,
        publications=[Publication(folder="dataset/9000", repository="me/pairs", kind="dataset")],
    )
    code = (
        "import json, sys, types; sys.path.insert(0, sys.argv[1]); import publish;"
        "publish.main(types.SimpleNamespace(log=[sys.argv[2]], params=types.SimpleNamespace("
        "common={'root': sys.argv[3]}, settings=json.loads(sys.argv[4]))))"
    )
    with hub_server({}) as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_write",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "hub"),
        }
        done = subprocess.run(
            [sys.executable, "-c", code, SCRIPTS, run.log, run.root, settings.model_dump_json()],
            env=environment,
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert hub.repositories[DATA_SET][PARQUET] == FILES[PARQUET]
        assert hub.head(DATA_SET) in done.stdout
        assert "hf_write" not in done.stdout + done.stderr


@pytest.mark.slow
def test_one_command_publishes_a_run_s_data_set_and_models(finished_copy):
    project = finished_copy

    def name_repositories(values):
        values["publish"] = {
            "data_sets": {2: "me/pairs"},
            "adapters": {"random-2": "me/adapter"},
            "models": {"random-2": "me/model"},
        }

    project.edit_config(name_repositories)
    told = project.snakemake("publish").stdout
    assert "dataset/2 -> datasets/me/pairs (private, if it is new)" in told
    assert "Nothing was sent" in told
    confirmed = ("--config", "publish={confirm: true}")
    missing = project.snakemake("publish", *confirmed, check=False, HF_TOKEN="")
    assert missing.returncode
    assert "publish.confirm: nothing can be published without a token" in missing.stdout
    with hub_server({}) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_write", "HF_HUB_DISABLE_XET": "1"}
        told = project.snakemake("publish", *confirmed, **environment).stdout
        for repository in (DATA_SET, "me/adapter", "me/model"):
            assert hub.head(repository) in told
        merged = hub.repositories["me/model"]
        assert "model.safetensors" in merged
        assert "hf_write" not in told
        again = project.snakemake("publish", *confirmed, **environment).stdout
        assert again.count("nothing to be sent") == 3
    wrong = project.snakemake(
        "publish", "-n", "--config", "publish={models: {other: me/x}}", check=False
    )
    assert wrong.returncode
    assert "publish.models: this run has no experiment 'other'" in wrong.stdout
    assert "Traceback" not in wrong.stdout
