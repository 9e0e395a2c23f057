"""Where a cluster's software comes from: conda, environment modules or a container; and that
switching computes nothing again.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from snakemake.settings.types import DeploymentMethod

from lib.config.run import Config
from lib.errors import UserError
from lib.head.software import check_jobs, spared_packages

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = REPOSITORY / "scripts"
#: What conda makes one environment for, and what needs no model: the counts of why prompts gave no
#: pair.
SMALL_TARGET = "results/random/tables/reasons_table.md"
#: One shard, two jobs.
RANKED = "results/random/image_ranking/clip/art/00.jsonl"
ONLY_THIS = (
    "--rerun-triggers",
    "mtime",
    "--allowed-rules",
    "reasons_table",
    "--forcerun",
    "reasons_table",
)
#: Prints what the jobs of each rule get, as Snakemake has it.
ASK_SNAKEMAKE = """
import contextlib, io, json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import (
    ConfigSettings, DeploymentMethod, DeploymentSettings, OutputSettings, ResourceSettings
)

def software_of(rule):
    return [list(rule.env_modules.names) if rule.env_modules else [], rule.container_img]

method = DeploymentMethod(int(sys.argv[1]))
quiet = OutputSettings(quiet={Quietness.ALL}, dryrun=True)
with SnakemakeApi(quiet) as api, contextlib.redirect_stdout(io.StringIO()):
    made = api.workflow(
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(configfiles=[Path("demo/random.yaml")]),
        deployment_settings=DeploymentSettings(deployment_method={method}),
        snakefile=Path("Snakefile"),
    )
    made.dag()
    rules = [rule for rule in made._workflow.rules if rule.script]
    software = {rule.name: software_of(rule) for rule in rules}
print(json.dumps(software))
"""


#: Snakemake's numbers of the words of --sdm.
METHODS = {str(method): method.value for method in DeploymentMethod}


def write_site(project, **values):
    (project.folder / "envs/site.yaml").write_text(
        yaml.safe_dump({"container": None, "modules": {}} | values)
    )


def software_of_jobs(project, method):
    done = subprocess.run(
        [sys.executable, "-c", ASK_SNAKEMAKE, str(METHODS[method])],
        cwd=project.folder,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NEEDS_APPTAINER = pytest.mark.skipif(
    not (shutil.which("apptainer") or shutil.which("singularity")),
    reason=(
        "no apptainer on the PATH, without which Snakemake plans nothing with --sdm apptainer; that"
        " every rule gets its image is tested"
    ),
)


def records(project):
    paths = (project.folder / "results/random/work").glob("*/**/*.json")
    values = [json.loads(path.read_text()) for path in paths]
    return {(value["rule"], value["job"]): value for value in values if "finished" in value}


def test_modules_of_the_site_file_reach_every_job_by_its_environment(project):
    write_site(
        project, modules={"default": ["cuda/13.0", "pds-dpo/1.0"], "vllm": ["pds-dpo-vllm/1.0"]}
    )
    found = software_of_jobs(project, "env-modules")
    assert found["generate_responses"] == [["pds-dpo-vllm/1.0"], None]
    assert (
        found["rank_images"]
        == found["train_dpo"]
        == found["size_table"]
        == [["cuda/13.0", "pds-dpo/1.0"], None]
    )
    assert all(modules for modules, _ in found.values())


def test_the_container_of_the_site_file_reaches_every_job(project):
    (project.folder / "pds-dpo.sif").write_bytes(b"an image")
    write_site(project, container="./pds-dpo.sif", modules={"default": ["not/asked-for"]})
    found = software_of_jobs(project, "apptainer")
    assert {tuple(map(str, software)) for software in found.values()} == {("[]", "pds-dpo.sif")}


def test_without_sdm_no_job_gets_a_module_or_a_container(project):
    write_site(project, container="docker://example/image:1", modules={"default": ["cuda/13.0"]})
    assert {
        tuple(map(str, software)) for software in software_of_jobs(project, "conda").values()
    } == {("[]", "None")}


@pytest.mark.parametrize(
    "method", ["env-modules", pytest.param("apptainer", marks=NEEDS_APPTAINER)]
)
def test_a_dry_run_passes_with_modules_and_with_a_container(project, method):
    (project.folder / "pds-dpo.sif").write_bytes(b"an image")
    write_site(project, container="pds-dpo.sif", modules={"default": ["pds-dpo/1.0"]})
    assert "Job stats" in project.snakemake("-n", "--sdm", method).stdout


@pytest.mark.parametrize(
    ("method", "site", "message"),
    [
        ("env-modules", {}, "`modules` has neither 'vllm' (rule generate_prompts) nor 'default'"),
        (
            "env-modules",
            {"modules": {"vlm": ["a"]}},
            "line 3: modules: there is no environment 'vlm'",
        ),
        ("env-modules", {"modules": {"default": ["a; rm -rf ."]}}, "line 4: modules.default.0"),
        ("apptainer", {}, "`container` names no image"),
        (
            "apptainer",
            {"container": "missing.sif"},
            "line 1: container: there is no file 'missing.sif'",
        ),
        ("apptainer", {"image": "x"}, "image: unknown key"),
    ],
)
def test_a_mistake_in_the_site_file_is_told_before_anything_runs(project, method, site, message):
    write_site(project, **site)
    done = project.snakemake("-n", "--sdm", method, check=False)
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def shell_with_modules():
    """The file that defines `module` for a shell, or None."""
    return next(
        (
            path
            for path in ("/etc/profile.d/modules.sh", "/etc/profile.d/lmod.sh")
            if Path(path).is_file()
        ),
        None,
    )


@pytest.fixture
def ranked(finished_copy):
    """A clone in which one shard's images are made and ranked, in the plain environment."""
    return finished_copy


def assert_all_was_reused(project, before, published):
    again = {
        name: record
        for name, record in records(project).items()
        if record["finished"] != before[name]["finished"]
    }
    assert {rule for rule, _ in again} == {"generate_images", "rank_images"}
    assert all(
        record["computed"] == 0 and record["load_seconds"] == 0 and record["reused"]
        for record in again.values()
    )
    assert project.published() == published


@pytest.mark.slow
def test_switching_the_software_environment_runs_jobs_again_and_computes_no_item(ranked):
    before, published = records(ranked), ranked.published()
    write_site(ranked, modules={"default": ["pds-dpo/1.0"]})
    # Snakemake would run the jobs again, and says why.
    assert (
        "its environment changed"
        in ranked.snakemake("-n", "--sdm", "env-modules", "--", RANKED).stdout
    )
    # Where there is no such module, the same jobs are made to run again in the plain environment.
    ranked.snakemake("--forceall", RANKED)
    assert_all_was_reused(ranked, before, published)


@pytest.mark.slow
@pytest.mark.skipif(
    shell_with_modules() is None,
    reason="no environment modules on this machine (Debian: environment-modules)",
)
def test_after_switching_to_modules_jobs_run_in_the_module_s_python_and_compute_no_item(ranked):
    before, published = records(ranked), ranked.published()
    # A module that brings a Python of its own, which notes where it is started whether the module
    # is loaded.
    binaries = ranked.folder / "site/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text(
        f'#!/bin/sh\necho "$PDS_MODULE" >> {ranked.folder}/started\nexec {sys.executable} "$@"\n'
    )
    (binaries / "python").chmod(0o755)
    modulefile = ranked.folder / "site/modules/pds-dpo/1.0"
    modulefile.parent.mkdir(parents=True)
    modulefile.write_text(f"#%Module1.0\nprepend-path PATH {binaries}\nsetenv PDS_MODULE loaded\n")
    write_site(ranked, modules={"default": ["pds-dpo/1.0"]})
    environment = {"BASH_ENV": shell_with_modules(), "MODULEPATH": str(modulefile.parent.parent)}
    ranked.snakemake("--sdm", "env-modules", "--", RANKED, **environment)
    assert "loaded" in (ranked.folder / "started").read_text().split()
    assert_all_was_reused(ranked, before, published)


def run_with_conda(project, *arguments, profile="profiles/local"):
    """Makes the small target again in its conda environment; what was published stays the same."""
    before = project.published()
    project.snakemake("--sdm", "conda", *ONLY_THIS, *arguments, "--", SMALL_TARGET, profile=profile)
    assert project.published() == before
    envs = project.folder / "envs"
    lock = (envs / "workflow.lock").read_text().splitlines()
    made = (project.folder / ".snakemake/conda").glob("*.yaml")
    (environment,) = (
        path.with_suffix("")
        for path in made
        if path.read_bytes() == (envs / "workflow.yaml").read_bytes()
    )
    python = environment / "bin/python"
    frozen = subprocess.run(
        [python, "-m", "pip", "freeze", "--all"], text=True, capture_output=True, check=True
    ).stdout.lower()
    wanted = {line.split()[0].lower().replace("_", "-") for line in lock if "==" in line}
    assert wanted <= {line.replace("_", "-") for line in frozen.splitlines()}


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("conda") is None,
    reason="no conda on the PATH; what --sdm conda installs is tested in test_locks.py",
)
def test_a_job_runs_in_its_conda_environment_which_holds_the_lock(finished_copy):
    run_with_conda(finished_copy)


def test_the_image_s_recipes_install_the_lock_and_nothing_else():
    lock = "envs/gpu.lock"
    for name in ("envs/Dockerfile", "envs/apptainer.def"):
        text = (REPOSITORY / name).read_text()
        wanted = f"pip install --no-cache-dir --no-deps --require-hashes -r /{Path(lock).name}"
        assert text.count("pip install") == text.count(wanted) == 1
        assert "python:3.11.7" in text
    assert os.path.exists(REPOSITORY / lock)


def test_the_image_s_jobs_are_not_root_s():
    last_user = re.findall(r"^USER (.*)$", (REPOSITORY / "envs/Dockerfile").read_text(), re.M)[-1]
    assert int(last_user.split(":")[0]) > 0


def write_environment(folder, name, *packages):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"dependencies": ["python=3.11.7", {"pip": list(packages)}]}))
    return str(path)


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("plan.py", ("--configfile", "pilot.yaml"), "pilot: 62 jobs"),
        ("fetch.py", ("--configfile", "demo/random.yaml"), "needs nothing from the hub"),
        ("fetch.py", ("--configfile", "pilot.yaml"), "http://127.0.0.1:9 cannot be reached"),
        ("verify.py", ("results/none",), "no job's record"),
    ],
)
def test_what_make_runs_on_a_login_node_runs_in_the_head_environment(
    project, head_environment, script, words, said
):
    done = subprocess.run(
        [head_environment / "python", f"scripts/{script}", *words],
        cwd=project.folder,
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert said in done.stdout


def test_pairs_are_checked_in_the_head_environment_with_pictures_and_languages(
    head_environment, tmp_path
):
    Image.new("RGB", (64, 64), (90, 30, 60)).save(tmp_path / "a.png")
    pair = {
        "prompt": [{"role": "user", "content": "What do you see in this picture?"}],
        "chosen": [
            {
                "role": "assistant",
                "content": "There is a small red house on the hill beside the river.",
            }
        ],
        "rejected": [
            {
                "role": "assistant",
                "content": "There is a large green ship on the sea near the town.",
            }
        ],
        "images": [{"bytes": (tmp_path / "a.png").read_bytes(), "path": None}],
    }
    pq.write_table(pa.Table.from_pylist([pair]), tmp_path / "pairs.parquet")
    done = subprocess.run(
        [head_environment / "python", SCRIPTS / "check_pairs.py", tmp_path / "pairs.parquet"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Languages of the answers: en 100.0%" in done.stdout
    assert "Not checked: benchmark overlap" in done.stdout
    assert "not installed" not in done.stdout


def test_jobs_whose_packages_this_python_lacks_are_refused_with_what_is_missing_and_the_mends(
    tmp_path,
):
    whole = write_environment(tmp_path, "whole", "pyyaml==6.0.3", "Pydantic>=2")
    models = write_environment(tmp_path, "models", "pyyaml==1.0", "no-such-package==1.0")
    check_jobs([("build_pairs", whole)], [], tmp_path)
    rules = ["train_dpo", "merge_adapter", "rank_images", "answer_benchmark", "rank_images"]
    with pytest.raises(UserError) as refused:
        check_jobs([("build_pairs", whole), *((rule, models) for rule in rules)], [], tmp_path)
    message = str(refused.value)
    assert sys.executable in message
    assert (
        "envs/models.yaml (answer_benchmark, merge_adapter, rank_images and 1 more):"
        " no-such-package\n" in message
    )
    assert "whole" not in message
    for mend in ("--sdm conda", "LOCK=envs/gpu.lock", "--sdm env-modules", "--sdm apptainer"):
        assert mend in message


@pytest.mark.parametrize("method", ["conda", "env-modules", "apptainer"])
def test_jobs_with_an_environment_of_their_own_need_nothing_of_this_python(tmp_path, method):
    models = write_environment(tmp_path, "models", "no-such-package==1.0")
    check_jobs([("train_dpo", models)], [method], tmp_path)


def test_vllm_is_asked_for_only_where_a_backend_is_vllm_s(tmp_path):
    models = write_environment(tmp_path, "models", "vllm-of-a-test==1.0", "yaml==1")
    check_jobs([("generate_responses", models)], [], tmp_path, spared={"vllm-of-a-test"})
    assert spared_packages(Config()) == {"bitsandbytes"}
    backends = {
        "responses": {"backend": "transformers"},
        "evaluation": {"backend": "transformers"},
    }
    assert spared_packages(Config.model_validate(backends)) == {"vllm", "bitsandbytes"}
    backends["evaluation"]["task_backend"] = "vllm"
    assert spared_packages(Config.model_validate(backends)) == {"bitsandbytes"}


def test_bitsandbytes_is_asked_for_only_where_a_base_model_is_held_in_4_bits():
    in_4_bits = {"experiments": {"a": {"size": 2000, "settings": {"tuning": "qlora"}}}}
    spared = spared_packages(Config.model_validate({"training": in_4_bits}))
    assert spared == set()
    jobs, envs = [("train_dpo", "training")], REPOSITORY / "envs"
    check_jobs(jobs, [], envs, spared_packages(Config()))
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(UserError, match=r"train_dpo\): bitsandbytes"):
            check_jobs(jobs, [], envs, spared)


@pytest.fixture
def head_project(project, head_environment):
    """A clone whose user has followed the cluster guide as far as its head environment."""

    def snakemake(*words, programs="", **environment):
        """`programs`: a folder of further programs, first on the PATH."""
        path = os.pathsep.join(filter(None, [programs, str(head_environment), os.environ["PATH"]]))
        return subprocess.run(
            [head_environment / "snakemake", *words],
            cwd=project.folder,
            env={**os.environ, "PATH": path, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    project.head_snakemake = snakemake
    return project


def test_a_head_environment_without_the_jobs_packages_is_refused_before_anything_is_submitted(
    head_project,
):
    planned = head_project.head_snakemake("--profile", "slurm", "--configfile", "pilot.yaml", "-n")
    begun = head_project.head_snakemake(
        "--profile", "profiles/local", "--configfile", "demo/random.yaml"
    )
    for done in (planned, begun):
        assert done.returncode == 1
        assert "which lacks packages that they need" in done.stdout
        assert re.search(r"envs/diffusion\.yaml \(generate_images\): .*\btorch\b", done.stdout)
        assert "Traceback" not in done.stdout
    assert "total" in planned.stdout  # the plan is shown all the same
    assert not (head_project.folder / "results/random/logs").exists()


#: What Snakemake asks of conda before it plans, and nothing else.
CONDA = """#!/bin/sh
case "$*" in
"info --json") echo '{"conda_prefix": "/opt/conda", "platform": "linux-64"}' ;;
"--version") echo "conda 26.7.1" ;;
config*) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""


def test_the_cluster_guide_s_way_with_conda_leads_to_a_run_that_is_not_refused(
    head_project, tmp_path
):
    guide = (REPOSITORY / "docs/cluster.md").read_text(encoding="utf-8")
    (switch,) = re.findall(r"^ *(sed -i .* profiles/slurm/config.yaml)$", guide, re.MULTILINE)
    subprocess.run(switch, shell=True, check=True, cwd=head_project.folder)
    profile = yaml.safe_load((head_project.folder / "profiles/slurm/config.yaml").read_text())
    assert profile["software-deployment-method"] == "conda"
    (first,) = re.findall(r"^ *conda env create (.*) && conda activate (.*)$", guide, re.MULTILINE)
    assert first == ("--name pds-dpo-head --file envs/head.yaml", "pds-dpo-head")
    (tmp_path / "conda").write_text(CONDA)
    (tmp_path / "conda").chmod(0o755)
    (planned,) = re.findall(r"^(snakemake .* -n) +# 62 jobs", guide, re.MULTILINE)
    done = head_project.head_snakemake(
        *planned.split()[1:], programs=str(tmp_path), OPENAI_API_KEY="a-key-of-the-reader"
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^total +62$", done.stdout, re.MULTILINE)  # with the target `all`
