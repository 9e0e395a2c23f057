"""Patches into other libraries: each does what it is for, and finds in the library what it replaces
or reads.
"""

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.exceptions import LockException

from lib.errors import UserError
from lib.patches import lmms_eval as lmms_eval_patches
from lib.patches import slurm_plugin, snakemake_command
from lib.patches.deepspeed import without_compiled_operators
from lib.patches.snakemake_graph import build_graph
from lib.patches.snakemake_locks import hold_own_locks

SCRIPTS = Path(slurm_plugin.__file__).resolve().parents[2]


# --- DeepSpeed ------------------------------------------------------------------------------------


def test_deepspeed_finds_no_operator_that_it_would_compile_and_asks_no_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own table is still made on first access, by the function that is not called here, and
    what it takes for usable is what stands in the table.
    """
    import deepspeed.ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    monkeypatch.setitem(vars(deepspeed.ops), "__compatible_ops__", None)
    assert callable(deepspeed.ops._probe_compatible_ops)
    without_compiled_operators()
    probe = "_probe_compatible_ops"
    monkeypatch.setattr(deepspeed.ops, probe, lambda: pytest.fail("operators were looked for"))
    table = deepspeed.ops.__compatible_ops__
    assert set(table) == {*ALL_OPS, "deepspeed_not_implemented"}
    assert not any(table.values())


def test_deepspeeds_own_table_has_the_entries_of_ours() -> None:
    """Made in a process of its own, whose builders take every operator for usable."""
    code = (
        "import deepspeed.ops\n"
        "from deepspeed.ops.op_builder import builder\n"
        "builder.probe_is_compatible = lambda builder: True\n"
        "own = set(deepspeed.ops.__compatible_ops__)\n"
        "assert any(deepspeed.ops.__compatible_ops__.values())\n"
        "from lib.patches.deepspeed import without_compiled_operators\n"
        "without_compiled_operators()\n"
        "assert set(deepspeed.ops.__compatible_ops__) == own\n"
        "assert not any(deepspeed.ops.__compatible_ops__.values())\n"
        "from deepspeed.ops import __compatible_ops__ as seen_by_deepspeed\n"
        "assert not any(seen_by_deepspeed.values())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SCRIPTS), "DS_ACCELERATOR": "cpu", "PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


# --- Snakemake's executor plugin for Slurm --------------------------------------------------------


class Slurm:
    """Commands of Slurm on PATH that write down how they are called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in ("squeue", "sacct"):
            self.answer(name, "echo '1|RUNNING'")
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def answer(self, command: str, script: str) -> None:
        file = self.folder / command
        file.write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/{command}.calls\n{script}\n')
        file.chmod(0o755)

    def calls(self, command: str) -> list[str]:
        file = self.folder / f"{command}.calls"
        return file.read_text().splitlines() if file.exists() else []


class NoLimit:
    """What limits the plugin's questions, here not at all."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        pass


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Slurm, and the plugin as it is installed, after the test too."""
    import snakemake_executor_plugin_slurm as plugin

    monkeypatch.setattr(plugin, "get_min_job_age", plugin.get_min_job_age)
    return Slurm(tmp_path, monkeypatch)


@pytest.fixture
def executor(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's own executor, without a workflow to run."""
    import snakemake_executor_plugin_slurm as plugin

    monkeypatch.setattr(plugin.Executor, "status_rate_limiter", NoLimit(), raising=False)
    executor = plugin.Executor.__new__(plugin.Executor)
    executor.workflow = SimpleNamespace(
        executor_settings=plugin.ExecutorSettings(status_command="squeue", status_attempts=1)
    )
    executor.logger = logging.getLogger("test")
    executor._next_seconds_between_status_checks = 40  # which RemoteExecutor sets
    executor.__post_init__(test_mode=True)
    return executor


def look_at_jobs(executor: Any) -> None:
    """Has the plugin ask once how its jobs are."""
    job = SimpleNamespace(
        external_jobid="1", aux={"slurm_logfile": Path("log")}, job=SimpleNamespace(is_group=bool)
    )

    async def look() -> None:
        async for _ in executor.check_active_jobs([job]):
            pass

    asyncio.run(look())


def test_the_plugin_goes_by_what_the_controller_said_at_the_start(
    slurm: Slurm, executor: Any
) -> None:
    slurm.answer("scontrol", "echo 'MinJobAge = 300 sec'")
    assert slurm_plugin.keep_min_job_age() == 300
    slurm.answer("scontrol", "exit 1")
    look_at_jobs(executor)
    assert (len(slurm.calls("squeue")), slurm.calls("sacct")) == (1, [])


def test_the_plugin_by_itself_turns_to_accounting_while_the_controller_is_silent(
    slurm: Slurm, executor: Any
) -> None:
    """What the patch is for; where this fails, the patch can go."""
    slurm.answer("scontrol", "exit 1")
    look_at_jobs(executor)
    assert slurm.calls("squeue") == []
    assert slurm.calls("sacct")


def test_a_controller_that_does_not_answer_at_the_start_is_none(slurm: Slurm) -> None:
    slurm.answer("scontrol", "exit 1")
    assert slurm_plugin.keep_min_job_age() is None


def test_the_job_name_is_the_one_that_the_plugin_asks_for(slurm: Slurm, executor: Any) -> None:
    slurm.answer("scontrol", "echo 'MinJobAge = 300 sec'")
    name = slurm_plugin.job_name(executor)
    assert len(name) == 36
    look_at_jobs(executor)
    assert slurm.calls("squeue")[0].endswith(f"--name {name}")


# --- Snakemake ------------------------------------------------------------------------------------

SNAKEFILE = """
import sys
sys.path.insert(0, {scripts!r})
from lib.patches.snakemake_graph import executor_of

rule all:
    input: "b.txt"

rule a:
    output: "a.txt"
    shell: "echo a > {{output}}"

rule b:
    input: "a.txt"
    output: "b.txt"
    shell: "cat {{input}} > {{output}}"

onstart:
    executor = executor_of(workflow)
    print("EXECUTOR", type(executor).__module__, callable(executor.run_jobs), file=sys.stderr)
"""


@pytest.fixture
def snakefile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "Snakefile"
    file.write_text(SNAKEFILE.format(scripts=str(SCRIPTS)))
    return file


def test_the_graph_of_snakemakes_interface_is_handed_out(
    snakefile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import OutputSettings, ResourceSettings

    # A Snakefile is read in the names of this module. What it leaves there, vLLM does not bear,
    # which looks at all modules of a process when it is loaded.
    monkeypatch.setattr("snakemake.workflow.storage", None, raising=False)
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=True)) as api:
        workflow = build_graph(
            api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=snakefile)
        )
        assert sorted(job.rule.name for job in workflow.dag.jobs) == ["a", "all", "b"]
        assert sorted(rule.name for rule in workflow.rules) == ["a", "all", "b"]


def test_the_executor_is_there_when_a_run_starts(snakefile: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"],
        cwd=snakefile.parent,
        text=True,
        capture_output=True,
        check=False,
    )
    assert "EXECUTOR snakemake.executors.local True" in done.stderr, done.stderr[-2000:]


class Locks:
    """Snakemake's lock files, of one run in a clone."""

    def __init__(self, clone: Path) -> None:
        from snakemake.persistence.file import FilePersistence

        self.own = object.__new__(FilePersistence)
        self.own._lockdir, self.own._lockfile = str(clone / "locks"), {}
        (clone / "locks").mkdir(exist_ok=True)

    def hold(self, *files: str) -> None:
        self.own._write_locks("output", files)

    def held_in_clone(self) -> set[str]:
        return {file for _, file in self.own._read_locks()}


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Whether "results/ours" is being made: while its name is in the set."""
    from snakemake.persistence.file import FilePersistence

    for name in ("_write_locks", "_delete_locks", "cleanup_locks", "lock"):
        monkeypatch.setattr(FilePersistence, name, getattr(FilePersistence, name))
    names: set[str] = set()

    def refuse() -> None:
        if names:
            raise UserError("it is at work")

    hold_own_locks("results/ours", refuse)
    return names


@pytest.mark.usefixtures("living")
def test_a_run_that_ends_leaves_the_locks_of_another_in_the_clone(tmp_path: Path) -> None:
    first, second, third = Locks(tmp_path), Locks(tmp_path), Locks(tmp_path)
    first.hold("a")
    second.hold("b")
    first.own.unlock()
    assert third.held_in_clone() == {"b"}
    third.own.unlock()
    assert third.held_in_clone() == {"b"}
    third.own.cleanup_locks()
    assert not (tmp_path / "locks").exists()


@pytest.mark.usefixtures("living")
def test_a_run_begins_though_another_in_the_clone_ends_just_then(tmp_path: Path) -> None:
    first, second = Locks(tmp_path), Locks(tmp_path)
    first.hold("a")
    first.own.unlock()
    second.hold("b")
    assert second.held_in_clone() == {"b"}


def test_locks_of_a_dead_run_are_lifted_and_those_of_others_and_of_the_living_hold(
    tmp_path: Path, living: set[str]
) -> None:
    dead, other, next_one = Locks(tmp_path), Locks(tmp_path), Locks(tmp_path)
    dead.hold("results/ours/a", "results/ours/b")
    other.hold("results/ours-2/a")
    next_one.own.all_inputfiles = lambda: ["results/ours/a"]
    next_one.own.all_outputfiles = lambda: ["results/ours/b"]
    living.add("ours")
    with pytest.raises(UserError, match="it is at work"):
        next_one.own.lock()
    assert next_one.held_in_clone() == {"results/ours/a", "results/ours/b", "results/ours-2/a"}
    living.clear()
    with next_one.own.lock():
        assert next_one.held_in_clone() == {"results/ours/a", "results/ours/b", "results/ours-2/a"}
    assert next_one.held_in_clone() == {"results/ours-2/a"}
    next_one.own.all_outputfiles = lambda: ["results/ours-2/a"]
    with pytest.raises(LockException), next_one.own.lock():
        pass


def test_by_itself_a_run_that_ends_removes_the_locks_of_another(tmp_path: Path) -> None:
    first, second = Locks(tmp_path), Locks(tmp_path)
    first.hold("a")
    second.hold("b")
    first.own.unlock()
    assert second.held_in_clone() == set()


# --- lmms-eval ------------------------------------------------------------------------------------


@pytest.fixture
def llava(monkeypatch: pytest.MonkeyPatch) -> Any:
    """lmms-eval's module of the model that answers, as it is installed, after the test too."""
    from lmms_eval.models.chat import llava_hf

    for name in ("tqdm", "log_metrics"):
        monkeypatch.setattr(llava_hf, name, getattr(llava_hf, name))
    for name in ("generate_until", "__init__"):
        monkeypatch.setattr(llava_hf.LlavaHf, name, getattr(llava_hf.LlavaHf, name))
    return llava_hf


def test_only_the_included_tasks_are_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval import tasks

    (tmp_path / "ours.yaml").write_text("task: ours\ndataset_path: parquet\n")
    monkeypatch.setattr(tasks, "TaskManager", tasks.TaskManager)
    lmms_eval_patches.index_included_tasks_only()
    # As lmms_eval/__main__.py makes it.
    manager = tasks.TaskManager("INFO", include_path=str(tmp_path), model_name="llava_hf")
    assert manager.all_tasks == ["ours"]


def test_lmms_evals_program_makes_its_task_manager_by_the_name_that_is_replaced() -> None:
    import lmms_eval

    program = Path(str(lmms_eval.__file__)).with_name("__main__.py").read_text(encoding="utf-8")
    assert "from lmms_eval.tasks import TaskManager" in program
    assert "TaskManager(args.verbosity, include_path=args.include_path" in program


class Inputs(dict[str, Any]):
    """What a processor makes of a prompt: two tokens."""

    input_ids = ((1, 2),)

    def to(self, *where: Any) -> "Inputs":
        return self


class Processor:
    """A processor that remembers the prompts it is given."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.apply_chat_template = lambda messages, **_: f"USER: {len(messages)} ASSISTANT:"

    def __call__(self, text: str, **_: Any) -> Inputs:
        self.prompts.append(text)
        return Inputs()


class Answering:
    """As much of lmms-eval's LLaVA as `generate_until` touches; its model writes three tokens."""

    def __init__(self) -> None:
        self.rank, self.batch_size, self.batch_size_per_gpu = 0, 1, 1
        self.use_cache, self.eot_token_id, self._device = True, 0, "cpu"
        self.task_dict = {"task": {"test": [{"question": "What?"}]}}
        self.accelerator = SimpleNamespace(is_main_process=False)
        self.cache_hook = SimpleNamespace(add_partial=lambda *_: None)
        self.model = SimpleNamespace(dtype=None, generate=lambda **_: [[1, 2, 3, 4, 5]])
        self.tokenizer = SimpleNamespace(batch_decode=lambda ids, **_: [f"{len(ids[0])} tokens"])
        self._image_processor = Processor()

    def flatten(self, parts: list[list[Any]]) -> list[Any]:
        return [each for part in parts for each in part]


def question() -> Any:
    """A request as lmms-eval gives it to a model that chats."""
    from lmms_eval.api.instance import Instance

    def messages(doc: dict[str, str]) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "text", "text": doc["question"]}]}]

    return Instance(
        request_type="generate_until",
        arguments=("What?", messages, {}, 0, "task", "test"),
        idx=0,
        metadata={"task": "task", "doc_id": 0, "repeats": 1},
    )


def test_a_call_draws_no_bar_and_prints_no_figures(
    llava: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    bar = lmms_eval_patches.silence_calls()
    (answer,) = llava.LlavaHf.generate_until(Answering(), [question()])
    assert answer.text == "3 tokens"
    shown = capfd.readouterr()
    assert "Model Responding" not in shown.err + shown.out
    assert "avg_speed" not in shown.err + shown.out
    assert list(bar([1, 2], disable=True)) == [1, 2]


def test_a_call_by_itself_draws_a_bar(llava: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """What the patch is for; where this fails, the patch can go."""
    llava.LlavaHf.generate_until(Answering(), [question()])
    assert "Model Responding" in capfd.readouterr().err


def test_answers_go_through_the_change(llava: Any) -> None:
    """And each has what the journal keeps of it: its text and its tokens, or none of these where
    the model failed.
    """

    def remembering(ask: Any) -> Any:
        def generate_until(model: Any, requests: Any) -> Any:
            answers.extend(ask(model, requests))
            return answers

        return generate_until

    answers: list[Any] = []
    lmms_eval_patches.change_answering(remembering)
    request = question()
    assert (request.task_name, request.doc_id) == ("task", 0)
    assert llava.LlavaHf.generate_until(Answering(), [request]) == answers
    assert (answers[0].text, answers[0].token_counts.output_tokens) == ("3 tokens", 3)
    failing = Answering()
    failing.model.generate = lambda **_: 1 / 0
    llava.LlavaHf.generate_until(failing, [question()])
    assert answers[1].token_counts is None


def test_the_model_is_asked_with_the_changed_prompt(
    llava: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: Any) -> None:
        vars(model).update(vars(Answering()))

    monkeypatch.setattr(llava.LlavaHf, "__init__", load)
    lmms_eval_patches.change_prompts(lambda _, prompt: f"SYSTEM {prompt}")
    model = Answering()
    llava.LlavaHf.__init__(model)
    llava.LlavaHf.generate_until(model, [question()])
    assert model._image_processor.prompts == ["SYSTEM USER: 1 ASSISTANT:"]


def test_lmms_evals_model_keeps_its_processor_where_prompts_are_changed() -> None:
    """Its own `__init__` loads a model; read, not run."""
    import inspect

    from lmms_eval.models.simple.llava_hf import LlavaHf

    assert "self._image_processor = AutoProcessor" in inspect.getsource(LlavaHf.__init__)


# --- Snakemake's command line ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--profile", "slurm", "-n"],
        ["--profile=slurm", "-n"],
        ["--prof", "slurm"],
        ["--profile", "profiles/local", "--profile", "slurm", "--cores", "2", "--", "all"],
        ["--executor=slurm", "--slurm-partition-config", "profiles/slurm/partitions.yaml"],
        ["-e", "slurm", "--slurm-partition-config=profiles/slurm/partitions.yaml"],
        ["--profile", "profiles/local", "-n"],
        ["--cores", "2"],
    ],
)
def test_the_executor_that_is_typed_is_the_one_that_snakemake_s_parser_finds(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from snakemake.cli import parse_args

    monkeypatch.chdir(SCRIPTS.parent)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    _, arguments = parse_args(words)
    found = snakemake_command.executor_settings(words)
    assert found.get("executor", "local") == (arguments.executor or "local")
    if arguments.executor == "slurm":
        assert found["slurm-partition-config"] == str(arguments.slurm_partition_config)


@pytest.mark.parametrize(
    ("words", "is_named"),
    [
        (["-n"], False),
        (["--config", "run=pairs-2", "results=results"], False),
        (["--configfile", "demo/random.yaml", "--", "rankings"], False),
        (["pairs", "-n"], True),
        (["--until=pairs"], True),
        (["results/run/pairs/art/00.jsonl"], True),
    ],
)
def test_rules_and_files_that_are_named_on_the_command_line_are_found(
    words: list[str], is_named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/snakemake", *words])
    assert snakemake_command.names_any({"pairs"}, "results/run") == is_named
    monkeypatch.setattr("sys.argv", ["/bin/python", *words])
    assert not snakemake_command.names_any({"pairs"}, "results/run")


def test_a_profiles_partition_file_is_the_one_beside_it_named_as_the_executor_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*words: str) -> Path:
        settings = snakemake_command.executor_settings(words, str(SCRIPTS.parent))
        return Path(settings["slurm-partition-config"])

    own = SCRIPTS.parent / "profiles/slurm/partitions.yaml"
    monkeypatch.chdir(tmp_path)
    assert found("--profile", str(SCRIPTS.parent / "profiles/slurm")) == own
    # Typed in the clone, with --directory: nothing is there.
    assert found("--profile", "profiles/slurm") == Path("profiles/slurm/partitions.yaml")
    monkeypatch.chdir(SCRIPTS.parent)
    assert found("--profile", "profiles/slurm").resolve() == own


# --- imports --------------------------------------------------------------------------------------


def run(program: str) -> None:
    """Runs a program in a Python of its own, where it has to end well."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


QUICK = """
import gc, sys
from lib.patches.imports import hide_for_good, quick_imports
hide_for_good("wandb")
with quick_imports():
    import transformers.generation.candidate_generator
    import transformers.loss.loss_utils
    from diffusers import StableDiffusion3Pipeline
    from trl.trainer import base_trainer
assert not {"sklearn", "scipy"} & set(sys.modules) and gc.isenabled()
assert sys.modules["wandb"] is None and not base_trainer.is_wandb_available()
import scipy, sklearn
from diffusers.utils.import_utils import _package_map as of_diffusers
from transformers.utils.import_utils import PACKAGE_DISTRIBUTION_MAPPING as of_transformers
from trl.import_utils import PACKAGE_DISTRIBUTION_MAPPING as of_trl
assert of_diffusers is of_trl is of_transformers
import importlib.metadata
from accelerate.utils import is_comet_ml_available, is_deepspeed_available
read, named = importlib.metadata.Distribution.metadata.fget, []
importlib.metadata.Distribution.metadata = property(lambda self: named.append(1) or read(self))
assert is_deepspeed_available() and is_deepspeed_available() and len(named) < 2
assert not is_comet_ml_available()
"""
LATE = """
import sys
from transformers.utils import is_scipy_available
from lib.patches.imports import quick_imports
assert is_scipy_available() and "scipy" not in sys.modules
with quick_imports():
    import transformers.loss.loss_utils
"""


@pytest.mark.parametrize("program", [QUICK, LATE])
def test_quick_imports_leave_out_what_nothing_calls_and_nothing_that_was_found_before(
    program: str,
) -> None:
    run(program)


HIDDEN = """
import sys
from lib.benchmarks.language import LanguageTools
from lib.patches.imports import hidden
tools = LanguageTools("stand-in")
assert tools.tokenizer.run("two cats") == ["two", "cats"]
assert tools.singulariser.run("cats") == "cat"
assert "nltk" in sys.modules and "scipy" not in sys.modules
import scipy
with hidden("scipy"):
    import scipy.special
assert scipy.special is sys.modules["scipy.special"]
"""


def test_a_hidden_package_is_not_loaded_is_there_afterwards_and_stays_where_it_was() -> None:
    """So is scipy for NLTK, which loads all of its statistics."""
    run(HIDDEN)


COMPARED = """
from lib.patches import lmms_eval as patches
from transformers import LlamaConfig
made = []
class Config(LlamaConfig):
    def to_dict(self):
        made.append(self)
        return super().to_dict()
own, drawing = Config(), Config()
drawing.temperature = 0.5
patches.compare_configuration_once()
for _ in range(3):
    assert own._get_generation_parameters() == {}
    assert drawing._get_generation_parameters() == {"temperature": 0.5}
assert len(made) == 2, made
"""


def test_a_models_configuration_is_compared_with_a_default_one_once_and_still_refused() -> None:
    run(COMPARED)
