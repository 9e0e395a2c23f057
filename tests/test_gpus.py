"""One setting says on how many GPUs a model runs: what jobs ask for and are planned with, and what
loads it. There is no GPU here: what PyTorch says of the machine is said by the tests.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from conftest import REPOSITORY
from lib.benchmarks.lmms_eval.answer_journal import AnswerKeys, Kept
from lib.benchmarks.lmms_eval.engine import Engine
from lib.benchmarks.lmms_eval.harness import AskedModel, Harness, _arguments
from lib.benchmarks.lmms_eval.tasks import TaskSettings
from lib.blocks import deciding
from lib.config.evaluation import Evaluation
from lib.config.run import Config, load_config
from lib.data.layouts import PromptCounts
from lib.engine import BY_KERNELS, ONE_AT_A_TIME, independence
from lib.errors import UserError
from lib.head import evaluation
from lib.head.plan import Plan
from lib.jobs.device import VISIBLE, first_gpus, require_device
from lib.loading import placing, to_device
from lib.models.response_generators.for_jobs import generator_in_key, load_for_job
from lib.models.response_generators.registry import GENERATORS
from lib.models.response_generators.requests import Request, Sampling
from lib.models.response_generators.transformers import TransformersGenerator
from lib.planning.costs import plan_costs
from lib.planning.graph import PlannedJob, plan_jobs
from lib.planning.rates import read_rates
from lib.planning.reported import RATES, jobs_with_models

GIB = 2**30


def planned(values: dict[str, Any]) -> tuple[list[PlannedJob], PromptCounts, list[str]]:
    """The jobs of a configuration, planned in a process of its own: what the Snakefile leaves in
    one is no company for vLLM.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        config = Config.model_validate(values)
        jobs, counts, rules = process.submit(plan_jobs, values, config, per_topic=1).result()
    return jobs, counts, rules


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two GPUs of 80 GiB, so new that vLLM has batch-invariant kernels for them."""
    for name, value in {
        "is_available": True,
        "device_count": 2,
        "get_device_capability": (9, 0),
        "mem_get_info": (80 * GIB, 80 * GIB),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, said=value: said)
    # What an engine for them sets is not for those of other tests.
    for name in ("VLLM_BATCH_INVARIANT", "VLLM_WORKER_MULTIPROC_METHOD"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)
    return monkeypatch


def values_of(models: Path) -> dict[str, Any]:
    """A configuration whose models, one of each role, run on more GPUs than one."""
    model = {"model": str(models / "llava-1.5"), "dtype": "float32"}
    policy = {"model": "Qwen/Qwen2.5-VL-72B-Instruct", "backend": "vllm"}
    pope = {"task": "pope", "metrics": {"accuracy": "pope_accuracy"}}
    return {
        "device": "cuda",
        "topics": ["art"],
        "shards_per_topic": 1,
        "images": {"model": str(models / "stable-diffusion-3-medium")},
        "image_ranking": {
            "scorers": {
                "clip": {"kind": "clip", "model": str(models / "clip")},
                "asks": {"kind": "vqascore", **model, "gpus": 2},
            },
            "select_by": "clip",
        },
        "instructions": {
            "backend": "vllm",
            "llm": {"model": str(models / "instruct-llm")},
            "gpus": 2,
        },
        "responses": {"policy_models": {"large": {**policy, "gpus": 4}, "small": model}},
        "response_ranking": {"kind": "vlm-judge", **model, "gpus": 2},
        "training": {"base_model": model, "experiments": {}},
        "evaluation": {
            "gpus": 2,
            "backend": "transformers",
            "benchmarks": {"pope": pope, "divided": {**pope, "shards": 2}},
            "models": {"theirs": {**model, "gpus": 4}},
            "contamination": {"check": False},
        },
    }


#: Rule and who runs in it -> the GPUs of a job.
EXPECTED = {
    ("generate_images", ""): 1,
    ("rank_images", "clip"): 1,
    ("rank_images", "asks"): 2,
    ("write_instructions", ""): 2,
    ("generate_responses", "large"): 4,
    ("generate_responses", "small"): 1,
    ("rank_responses", ""): 2,
    ("answer_benchmark", "base/pope"): 2,
    ("answer_benchmark", "theirs/pope"): 4,
    ("answer_benchmark", "base/divided"): 0,
    ("answer_benchmark", "theirs/divided"): 0,
    ("answer_part", "base/divided"): 2,
    ("answer_part", "theirs/divided"): 4,
}


def gpus_by_job(jobs: Any) -> dict[tuple[str, str], int]:
    """The GPUs of jobs whose models' blocks may say how many."""
    names = {"rank_images": ("scorer",), "generate_responses": ("policy",)} | dict.fromkeys(
        ("answer_benchmark", "answer_part"), ("model", "benchmark")
    )
    return {
        (part.rule, "/".join(part.wildcards[name] for name in names.get(part.rule, ()))): part.gpus
        for job in jobs
        for part in job.parts
        if job.gpus or job.rule == "answer_benchmark"
    }


def test_snakemake_s_jobs_hold_the_gpus_of_their_models_and_are_planned_with_them(
    demo_models: Path, tmp_path: Path
) -> None:
    """The resource `gpu` of the real graph, which Slurm's request is made of."""
    values = values_of(demo_models)
    config = Config.model_validate(values)
    jobs, shards, rules = planned(values)
    assert gpus_by_job(jobs) == EXPECTED
    costs = plan_costs(jobs, config, shards, read_rates(RATES, rules)).costs
    assert costs["write_instructions"].gpu_seconds == 2 * costs["write_instructions"].seconds
    # What the report says was planned is found without the graph.
    (tmp_path / "art.txt").write_text("a red bird on a wooden fence\n")
    plan = Plan(Config.model_validate(values | {"prompts": str(tmp_path)}))
    assert gpus_by_job(jobs_with_models(plan)) == EXPECTED


def test_a_job_that_asks_about_several_benchmarks_of_our_own_holds_its_model_s_gpus(
    demo_models: Path, demo_benchmarks: Path, tmp_path: Path
) -> None:
    """In the real graph, and in what the report says was planned."""
    values, here = values_of(demo_models), demo_benchmarks
    own = {
        "chair": {"questions": here / "chair/questions.jsonl", "images": here / "chair/images"},
        "amber": {"questions": here / "amber/data/query_all.json", "images": here / "amber/images"},
        "object_halbench": {"questions": here / "object_halbench/questions.jsonl"},
    }
    for name, files in own.items():
        files["reference"] = here / name / ("data" if name == "amber" else "")
        block = {"scorer": name} | {key: str(path) for key, path in files.items()}
        values["evaluation"]["benchmarks"][name] = block
    values["evaluation"]["together"] = True
    (tmp_path / "art.txt").write_text("a red bird on a wooden fence\n")
    plan = Plan(Config.model_validate(values | {"prompts": str(tmp_path)}))
    for jobs in (planned(values)[0], jobs_with_models(plan)):
        asking = {
            (job.name, *sorted(part.wildcards["benchmark"] for part in job.parts)): job.gpus
            for job in jobs
            if job.rule == "answer_questions"
        }
        assert asking == {
            ("answer_questions/base", "amber", "chair"): 2,
            ("answer_questions/theirs", "amber", "chair"): 4,
            ("answer_questions/base/object_halbench", "object_halbench"): 2,
            ("answer_questions/theirs/object_halbench", "object_halbench"): 4,
        }


def test_on_a_cpu_the_setting_asks_for_nothing(demo_models: Path) -> None:
    values = values_of(demo_models) | {"device": "cpu"}
    jobs, _, _ = planned(values)
    assert {job.gpus for job in jobs} == {0}


def test_one_gpu_and_no_determinism_are_told_to_no_job_as_before_there_were_these_settings(
    demo_models: Path,
) -> None:
    values = values_of(demo_models)
    for block in (values["instructions"], values["response_ranking"], values["evaluation"]):
        block["gpus"] = 1
    values["responses"]["policy_models"]["large"] |= {"gpus": 1}
    values["responses"]["deterministic"] = values["evaluation"]["deterministic"] = False
    config = Config.model_validate(values)
    plan = Plan(config)
    told = [
        config.responses.job_of("large"),
        config.response_ranking,
        config.instructions,
        evaluation.answer_job(plan, "pope"),
    ]
    text = json.dumps([plan.params(block) for block in told])
    assert "gpus" not in text
    assert "deterministic" not in text


def test_how_many_gpus_there_are_leaves_items_as_they_are_and_determinism_makes_them_others(
    demo_models: Path,
) -> None:
    def keys(**changes: Any) -> list[Any]:
        values = values_of(demo_models)
        policy = values["responses"]["policy_models"]["large"]
        policy["gpus"] = changes.pop("gpus", 1)
        for block in (values["responses"], values["evaluation"]):
            block |= changes
        values["evaluation"] |= {"task_backend": "vllm", "gpus": 1, "models": {}}
        config = Config.model_validate(values)
        job = config.responses.job_of("large")
        task = deciding(evaluation.answer_job(Plan(config), "pope"))
        generator = job.policy.generator(job)
        assert generator
        return [generator_in_key(generator) | deciding(job), task]

    assert keys(gpus=4) == keys()
    changed = keys(deterministic=True)
    assert [{**key, "deterministic": True} for key in keys()] == changed


def test_a_model_is_spread_over_the_gpus_that_its_block_says_and_over_no_more(
    two_gpus: pytest.MonkeyPatch, demo_models: Path
) -> None:
    """What vLLM and transformers are given, by the way that a job takes."""
    from transformers import AutoModelForImageTextToText

    given: dict[str, Any] = {}
    notes: list[str] = []

    def load(*_: Any, **options: Any) -> Any:
        given.update(options)
        raise ValueError("stop here")

    two_gpus.setitem(sys.modules, "vllm", SimpleNamespace(LLM=load))
    two_gpus.setattr(AutoModelForImageTextToText, "from_pretrained", load)
    model = {"model": str(demo_models / "llava-v1.6-mistral"), "gpus": 2, "deterministic": True}
    job: Any = SimpleNamespace(device="cuda", note=notes.append)
    for backend in ("vllm", "transformers"):
        settings = GENERATORS.validate({"backend": backend, **model})
        with pytest.raises((UserError, ValueError), match="stop here"):
            load_for_job(
                job, settings, Sampling(8, 0), with_images=True, batch_size=32, of="prompts"
            )
    assert given["tensor_parallel_size"] == 2
    assert given["max_num_seqs"] == 32  # by batch-invariant kernels
    assert given["device_map"] == "auto"
    assert given["max_memory"] == {0: 72 * GIB, 1: 72 * GIB}
    assert notes == [
        f"deterministic: {BY_KERNELS}",
        "spread over 2 GPUs: with vLLM, low bits may depend on how many",
        f"deterministic: {ONE_AT_A_TIME}",
        "spread over 2 GPUs: with vLLM, low bits may depend on how many",
    ]


TWO_PROCESSES = """\
import json
import sys
from multiprocessing import active_children
from pathlib import Path

sys.path.insert(0, {scripts!r})

if __name__ == "__main__":
    from lib.models.response_generators.requests import Request, Sampling
    from lib.models.response_generators.vllm import VllmGenerator

    generator = VllmGenerator(
        Path({model!r}), "float32", "cpu", Sampling(24, 0), False, 4, 512, gpus=2
    )
    answers = generator.generate([Request(text, 0) for text in {texts!r}])
    processes = [process.pid for process in active_children()]
    print(json.dumps([[answer.text for answer in answers], processes]), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_vllm_on_two_devices_answers_as_on_one_and_leaves_no_process_behind(
    demo_models: Path, tmp_path: Path
) -> None:
    """Two processes on a CPU, each with a part of every layer; the job is killed then."""
    model, texts = demo_models / "instruct-llm", ["What is there?", "Where are the cats?"]
    script = tmp_path / "job.py"
    scripts = str(REPOSITORY / "scripts")
    script.write_text(TWO_PROCESSES.format(scripts=scripts, model=str(model), texts=texts))
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout
        said = next(line for line in job.stdout if line.startswith("[["))
        job.kill()
    answers, processes = json.loads(said)
    alone = TransformersGenerator(model, "float32", "cpu", Sampling(24, 0), False)
    assert answers == [alone.generate([Request(text, 0)])[0].text for text in texts]
    assert len(processes) == 2
    left = [psutil.Process(each) for each in processes if psutil.pid_exists(each)]
    assert not psutil.wait_procs(left, timeout=60)[1]


def test_layers_are_spread_over_both_gpus_and_a_model_without_room_is_refused(
    two_gpus: pytest.MonkeyPatch, demo_models: Path
) -> None:
    """By accelerate's own division of a model's layers."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.integrations.accelerate import _get_device_map

    config = AutoConfig.from_pretrained(demo_models / "instruct-llm", num_hidden_layers=16)
    config.vocab_size = 64  # layers are most of it, as of large models
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    size = sum(parameter.nbytes for parameter in model.parameters())

    def places(free: int) -> Any:
        two_gpus.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
        options = placing("cuda", 2)
        return _get_device_map(model, options["device_map"], options["max_memory"], None)

    assert set(places(size * 4 // 5).values()) == {0, 1}
    model.hf_device_map = places(size // 4)
    with pytest.raises(ValueError, match=r"GPUs have no room for all of it .*Raise `gpus`"):
        to_device(model, "cuda")


def test_fewer_gpus_than_the_model_is_to_be_spread_over_are_told(
    two_gpus: pytest.MonkeyPatch,
) -> None:
    require_device("cuda", 2)
    with pytest.raises(UserError, match="spread over 4 GPUs, and the job sees 2"):
        require_device("cuda", 4)


@pytest.mark.parametrize(
    ("block", "changes", "heads"),
    [
        # Its vision tower has one head, and what writes reads no pictures.
        (
            "evaluation",
            {"backend": "vllm"},
            "2 and 1 attention heads.* among 2\\. Take one of 1",
        ),
        ("instructions", {"gpus": 3}, "2 attention heads.* not among 3\\. Take one of 1, 2\\. "),
    ],
)
def test_heads_that_vllm_cannot_divide_are_told_before_the_run(
    demo_models: Path, block: str, changes: dict[str, Any], heads: str
) -> None:
    values = values_of(demo_models)
    values[block] |= changes
    with pytest.raises(UserError, match=heads):
        load_config(values, [])


def test_lmms_eval_s_own_class_sees_the_first_gpus_only_and_spreads_over_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task = TaskSettings(task="pope", metrics={"accuracy": "pope_accuracy"})
    harness = Harness(task, "base/pope", tmp_path / "log")

    kept = Kept(tmp_path / "journal", AnswerKeys("", ""))

    def command(gpus: int) -> str:
        model = AskedModel(tmp_path, "bfloat16", "cuda", "", gpus=gpus)
        return " ".join(_arguments([(harness, kept)], model))

    assert "device_map=cuda," in command(1)
    assert "device_map=auto," in command(2)
    monkeypatch.setenv(VISIBLE, "3,5,6")
    assert first_gpus(2) == "3,5"
    monkeypatch.delenv(VISIBLE)
    assert first_gpus(2) == "0,1"


def test_where_there_are_no_batch_invariant_kernels_one_is_answered_at_a_time(
    two_gpus: pytest.MonkeyPatch,
) -> None:
    def places(device: str) -> int:
        return Engine("bfloat16", device, 32, 2048, deterministic=True).places

    assert (places("cuda"), independence("cuda")) == (32, BY_KERNELS)
    assert (places("cpu"), independence("cpu")) == (1, ONE_AT_A_TIME)
    two_gpus.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert (places("cuda"), independence("cuda")) == (1, ONE_AT_A_TIME)


def test_determinism_and_what_depends_on_the_order_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="Set one of them to false"):
        Evaluation(deterministic=True, prefix_caching=True)
