"""No code that a model's folder holds is ever run, whatever stands on standard input."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lib.benchmarks.lmms_eval.tasks import TaskSettings, local_task
from lib.errors import UserError
from lib.loading import check_whole
from lib.models.image_generators.pipelines import load_networks
from lib.models.response_generators.chat import load_processor
from lib.text_embedding import TextEmbedder

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
#: What loads models, tokenizers, processors and data, of every library.
LOADERS = (
    "from_pretrained",
    "from_config",
    "LLM",
    "AsyncLLM",
    "SentenceTransformer",
    "CrossEncoder",
    "load_dataset",
)
#: Our own `from_pretrained`, which loads through calls that are looked at themselves.
OWN = {("armorm.py", "cls")}


def calls(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def name_of(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def keyword(call, name):
    found = [each.value for each in call.keywords if each.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


def is_own(path, call):
    return (path.name, getattr(getattr(call.func, "value", None), "id", "")) in OWN


FILES = sorted(SCRIPTS.rglob("*.py"))


def test_every_loader_is_told_to_trust_no_code():
    asked = [
        (path, call)
        for path in FILES
        for call in calls(path)
        if name_of(call) in LOADERS and not is_own(path, call)
    ]
    assert len(asked) > 10
    trusting = [
        f"{path.relative_to(SCRIPTS)}:{call.lineno}"
        for path, call in asked
        if keyword(call, "trust_remote_code") is not False
    ]
    assert not trusting


def test_no_pickle_is_read_with_what_it_would_run():
    for path in FILES:
        for call in calls(path):
            place = f"{path.name}:{call.lineno}"
            owner = getattr(getattr(call.func, "value", None), "id", "")
            if (owner, name_of(call)) == ("torch", "load"):
                assert keyword(call, "weights_only") is True, place
            assert not (owner in ("pickle", "joblib", "dill") and name_of(call)), place
            assert name_of(call) not in ("exec", "eval") or owner or call.args == [], place


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model's folder all of whose parts come with code of their own, and a user who says yes."""
    parts = ("Config", "Model", "ModelForCausalLM", "ModelForImageTextToText", "Processor")
    mapped: dict[str, Any] = {
        f"Auto{part}": f"evil.Evil{part}" for part in (*parts, "ImageProcessor")
    }
    mapped["AutoTokenizer"] = ["evil.EvilTokenizer", "evil.EvilTokenizer"]
    marker = tmp_path / "ran"
    folder = tmp_path / "model"
    folder.mkdir()
    values = {"model_type": "evil", "auto_map": mapped}
    for name in ("config", "tokenizer_config", "processor_config", "preprocessor_config"):
        (folder / f"{name}.json").write_text(json.dumps(values))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    asked = []

    def say_yes(*question):
        asked.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", say_yes)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield folder
    assert (asked, marker.exists()) == ([], False)


@pytest.mark.parametrize("with_images", [True, False])
def test_a_model_with_code_of_its_own_is_refused_and_nobody_is_asked(folder, with_images):
    with pytest.raises(UserError, match="cannot be loaded"):
        load_processor(folder, with_images)
    with pytest.raises(UserError, match="cannot be loaded"):
        check_whole(folder, with_images)


def test_an_embedding_model_with_code_of_its_own_is_refused(folder):
    with pytest.raises(UserError, match="no usable text model"):
        TextEmbedder(folder, "float32", 100)


@pytest.mark.parametrize("entry", [["os", "system"], ["evil", "Evil"], "evil", [], [1, 2], None])
def test_an_image_model_has_nothing_imported_but_what_image_models_are_made_of(tmp_path, entry):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text("{}")
    (tmp_path / "model_index.json").write_text(json.dumps({"vae": entry}))
    with pytest.raises(ValueError, match=r"model_index\.json: `vae` is .* no class of diffusers"):
        load_networks(tmp_path, "float32", left_out={})


def test_a_task_of_lmms_eval_s_has_no_code_of_its_data_run(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text("dataset_kwargs: {trust_remote_code: true, token: true, split: x}\n")
    settings = TaskSettings(task="pope", metrics={"m": "m"})
    assert local_task(path, settings)["dataset_kwargs"] == {"split": "x"}


def test_a_job_reads_nothing_from_standard_input(tmp_path):
    code = (
        "import subprocess, sys\n"
        "from types import SimpleNamespace\n"
        "from lib.jobs.script import run_script\n"
        "snakemake = SimpleNamespace(rule='x', log=[])\n"
        "def main(_):\n"
        "    print([sys.stdin.read(), subprocess.check_output(['cat'])])\n"
        "run_script(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="y\n" * 9,
        text=True,
        capture_output=True,
        check=False,
        env={"PYTHONPATH": str(SCRIPTS), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "['', b'']\n", done.stderr
