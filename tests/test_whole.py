"""What is kept is whole: every file that a rule makes is missed when it is gone, and a run is held
against its records.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import make_small, read_rows
from lib.data.rows import PairRow


def made_files(project):
    """Every file that the jobs of the whole run make, in Snakemake's own words."""
    lines = project.snakemake("--summary").stdout.split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("output_file\t"))
    return {line.split("\t")[0] for line in lines[start + 1 :] if "\t" in line}


def wanted_files(project):
    """The files that the run is for: the targets of rule all."""
    code = (
        "from pathlib import Path; import sys; sys.path.insert(0, 'scripts')\n"
        "from lib.config.run import load_config; from lib.config.yaml_files import read_yaml\n"
        "from lib.head.plan import Plan; from lib.head.targets import targets\n"
        "file = Path('demo/random.yaml')\n"
        "print(*targets(Plan(load_config(read_yaml(file), [file]))), sep='\\n')\n"
    )
    return set(project.python("-c", code).split())


def test_every_file_that_a_rule_makes_is_a_target_of_the_run(project):
    make_small(project)
    assert made_files(project) == wanted_files(project)


def changed(before, after):
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.mark.slow
def test_whatever_file_is_deleted_it_is_made_again_with_the_same_bytes(finished_copy):
    project, root = finished_copy, finished_copy.folder / "results/random"
    before = project.published()
    image = next(name for name in before if name.startswith("images/") and name.endswith(".png"))
    for name in (
        image,
        "tables/size_table.tex",
        "tables/reasons_table.md",
        "tables/image_judge_table.json",
        "figures/guidance_figure.png",
        "contamination/overlaps.csv",
        "dataset/2/llava.json",
        "dataset/2/SHA256SUMS",
        "models/random-2/cards/merged/README.md",
        "models/random-2/training.png",
        "evaluation/base/object_halbench/scored.jsonl",
        "evaluation/base/pope/results.json",
    ):
        (root / name).unlink()
    shutil.rmtree(root / "dataset/2/data")
    (root / "models/random-2/merged/config.json").unlink()
    (root / "work/score_answers/base/object_halbench.json").unlink()
    project.snakemake()
    assert (root / "work/score_answers/base/object_halbench.json").exists()
    assert changed(before, project.published()) == set()
    assert "Nothing to be done" in project.snakemake().stdout


def cut(path):
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")


def empty(path):
    path.write_bytes(b"")


def edit(path):
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])


def unmake_header(path):
    path.write_bytes(path.read_bytes().replace(b'"journal":1', b'"journal":9', 1))


#: What is damaged, how, and what is deleted so that a job reads it (from results/random on).
DAMAGE = (
    ("instructions/art/{shard}.jsonl", cut, "response_ranking/art/{shard}.jsonl"),
    ("responses/{policy}/art/{shard}.jsonl", empty, "response_ranking/art/{shard}.jsonl"),
    ("pairs/art/{shard}.jsonl", edit, "dataset/2/dataset.json"),
    ("{image}", edit, "dataset/2/dataset.json"),
    ("{image}", Path.unlink, "dataset/2/dataset.json"),
    ("dataset/2/data/train-00000-of-00001.parquet", edit, "models/random-2/training.svg"),
    ("models/random-2/adapter/adapter_config.json", edit, "models/random-2/merged"),
    ("evaluation/base/pope/answers.jsonl", edit, "evaluation/base/pope/scores.json"),
    (
        "evaluation/base/object_halbench/asked.json",
        edit,
        "evaluation/base/object_halbench/scores.json",
    ),
    ("work/build_pairs/art/{shard}.journal.jsonl", unmake_header, "pairs/art/{shard}.jsonl"),
)
MENDS = (
    re.compile(r"(?P<it>results/[^\s:]+)[^\n]*\. Delete it and run again"),
    re.compile(r"Delete (?P<it>results/\S+) and run again"),
    re.compile(r"`mv (?P<it>results/\S+) \S+`\) and run again"),
)


def named_mend(output):
    """What a message says is to be deleted or moved away."""
    return next(found["it"] for mend in MENDS if (found := mend.search(output)))


@pytest.mark.slow
def test_every_mend_that_a_message_names_works_when_it_is_typed(finished_copy):
    project, root = finished_copy, finished_copy.folder / "results/random"
    before = project.published()
    shard = next(
        path for path in (root / "pairs/art").iterdir() if path.read_bytes().count(b"\n") > 1
    )
    rows = read_rows(shard, PairRow).values()
    names = {
        "shard": shard.stem,
        "policy": min(path.name for path in (root / "responses").iterdir()),
        "image": next(row["image"]["file"] for row in rows if "pair" in row),
    }
    for name, damage, asked in DAMAGE:
        product = asked.format(**names)
        damage(root / name.format(**names))
        gone = root / product
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        # By itself Snakemake would make an image that is gone again.
        failed = project.snakemake(
            f"results/random/{product}", "--rerun-triggers", "mtime", check=False
        )
        assert failed.returncode, f"{name}: the damage was not noticed"
        assert "Traceback" not in failed.stdout, failed.stdout
        named = project.folder / named_mend(failed.stdout)
        shutil.rmtree(named) if named.is_dir() else named.unlink()
        project.snakemake(f"results/random/{product}", "--rerun-triggers", "mtime")
    project.snakemake()
    assert changed(before, project.published()) == set()


@pytest.mark.slow
def test_verify_says_what_differs_in_a_run_and_what_to_type(finished_copy):
    project, root = finished_copy, finished_copy.folder / "results/random"
    assert verify(project) == (0, [])
    before = project.published()
    damaged = sorted(name for number, name in enumerate(before) if number % 5 == 0)
    for name in damaged:
        edit(root / name)
    code, lines = verify(project)
    assert (code, [line.split(": ")[0] for line in lines if ": has other" in line]) == (
        1,
        [f"results/random/{name}" for name in damaged],
    )
    (mend,) = [line for line in lines if line.startswith("To mend it: rm -r ")]
    subprocess.run(mend.removeprefix("To mend it: "), shell=True, check=True, cwd=project.folder)
    project.snakemake()
    assert changed(before, project.published()) == set()
    assert verify(project) == (0, [])
    assert "all are as recorded" in project.snakemake("verify").stdout


def verify(project):
    """The exit code of `make verify`, and what it said but for the last line."""
    done = subprocess.run(
        [sys.executable, "scripts/verify.py", "results/random"],
        cwd=project.folder,
        text=True,
        stdout=subprocess.PIPE,
    )
    return done.returncode, done.stdout.strip().split("\n")[:-1]


@pytest.mark.slow
def test_of_two_clones_that_make_one_run_the_second_is_told_so_and_touches_nothing(
    new_project, finished
):
    first, second = new_project("first"), new_project("second")
    for project in (first, second):
        make_small(project)
        project.edit_config(lambda values: values.update(results=str(first.folder / "shared")))
    images = str(first.folder / "shared/random/images/art/00.jsonl")
    running = subprocess.Popen(
        first.command(images), cwd=first.folder, env=first.environment(), stderr=subprocess.DEVNULL
    )
    owner = first.folder / "shared/random/work/run.owner"
    while not owner.exists():
        assert running.poll() is None
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGSTOP)
    for arguments in ((images,), ("--unlock",)):
        refused = second.snakemake(*arguments, check=False)
        assert refused.returncode
        assert f"another run is at work in this results folder (process {running.pid} on" in (
            refused.stdout
        )
        assert "Traceback" not in refused.stdout
    os.kill(running.pid, signal.SIGCONT)
    assert running.wait() == 0
    assert not owner.exists()
    expected = finished.folder / "results/random/images/art/00.jsonl"
    assert Path(images).read_bytes() == expected.read_bytes()
    second.snakemake(images)
