"""What is kept is whole: every file that a rule makes is missed when it is gone, and a run is held
against its records.
"""

import shutil

import pytest

from conftest import make_small


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


@pytest.mark.slow
def test_whatever_file_is_deleted_it_is_made_again_with_the_same_bytes(finished_copy):
    project, root = finished_copy, finished_copy.folder / "results/random"
    before = project.published()
    for name in (
        "tables/size_table.tex",
        "tables/reasons_table.md",
        "tables/image_judge_table.json",
        "figures/guidance_figure.png",
        "contamination/overlaps.csv",
        "dataset/2/llava.json",
        "models/random-2/training.png",
        "evaluation/base/object_halbench/scored.jsonl",
        "evaluation/base/pope/results.json",
    ):
        (root / name).unlink()
    shutil.rmtree(root / "dataset/2/data")
    project.snakemake()
    after = project.published()
    assert {name for name in before if before[name] != after.get(name)} == set()
