"""The plan before a launch (`make plan`): exact jobs, arithmetic by hand, what was used beside it,
rates measured by a run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib.config.licences import read_licences
from lib.config.run import Config
from lib.data.layouts import PromptCounts
from lib.errors import UserError
from lib.planning import graph
from lib.planning.costs import Cost, items_of, plan_costs
from lib.planning.graph import PlannedJob
from lib.planning.rates import Rates, read_rates
from lib.planning.requests import cost_of, endpoints_asked, say_requests
from lib.planning.schedule import Schedule, most_gpus_of_a_job, schedule
from lib.planning.usage import measured_rates, read_usage

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = {
    "pope": {"task": "pope", "metrics": {"f1": "pope_f1_score"}},
    "mine": {"task": "mine", "metrics": {"f1": "f1"}},
}
CONFIG = Config.model_validate(
    {
        "topics": ["art"],
        "shards_per_topic": 2,
        "pairs": {"sizes": [10]},
        "images": {"guidance_scales": [5.0, 9.0]},
        "training": {
            "experiments": {
                "small": {
                    "size": 10,
                    "settings": {"epochs": 2, "batch_size": 1, "gradient_accumulation": 2},
                }
            }
        },
        "evaluation": {"benchmarks": BENCHMARKS},
    }
)
PROMPTS = PromptCounts({("art", "00"): 7, ("art", "01"): 5})
JOBS = [
    *(
        PlannedJob("generate_images", {"topic": "art", "shard": shard}, 1, 240)
        for shard in ("00", "01")
    ),
    *(
        PlannedJob("rank_responses", {"topic": "art", "shard": shard}, 1, 60)
        for shard in ("00", "01")
    ),
    *(PlannedJob("build_pairs", {"topic": "art", "shard": shard}, 0, 20) for shard in ("00", "01")),
    PlannedJob("train_dpo", {"experiment": "small"}, 2, 60),
    *(
        PlannedJob("answer_benchmark", {"model": "base", "benchmark": name}, 1, 60)
        for name in ("pope", "mine")
    ),
]
RATES: dict[str, Any] = {
    "every_job": {"seconds": 4, "measured": "a test"},
    "stages": {
        "generate_images": {
            "seconds": 3,
            "load_seconds": 60,
            "megabytes": 2,
            "files": 1,
            "files_per_job": 4,
            "assumed": "a test",
        },
        "rank_responses": {"seconds": 0.5, "load_seconds": 30, "published": "a test"},
        "train_dpo": {"seconds": 600, "megabytes_per_job": 500, "assumed": "a test"},
        "answer_benchmark": {"seconds": 1, "measured": "a test"},
        "answer_benchmark/pope": {"seconds": 0.2, "load_seconds": 10, "measured": "a test"},
    },
    "other_jobs": {"seconds": 0.1, "load_seconds": 1, "assumed": "a test"},
    "questions": {"pope": 9000},
}


def rates(**changes):
    return Rates.model_validate({**RATES, **changes})


def command(folder, *arguments, environment=None):
    return subprocess.run(
        [sys.executable, REPOSITORY / "scripts/plan.py", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        text=True,
        capture_output=True,
        check=False,
    )


def test_the_plan_is_jobs_times_items_times_rates():
    plan = plan_costs(JOBS, CONFIG, PROMPTS, rates())
    # 12 prompts x 2 images x 3 s, 2 jobs x (60 + 4) s; the longer job has 7 prompts.
    assert plan.costs["generate_images"] == Cost(2, 24, 200, 200, 64 + 42, 48e6, 24 + 8)
    # 12 prompts x 4 policy models x 0.5 s, 2 x (30 + 4) s.
    assert plan.costs["rank_responses"] == Cost(2, 48, 92, 92, 34 + 14, 0, 0)
    # No rate of its own and no GPU: the other jobs' rate.
    assert vars(plan.costs["build_pairs"]) == pytest.approx(
        vars(Cost(2, 12, 2 * 5 + 1.2, 0, 5.7, 0, 0))
    )
    # 10 pairs in 2 processes are 5 batches, 3 updates an epoch, 6 in all; two GPUs are held.
    assert plan.costs["train_dpo"] == Cost(1, 6, 3604, 7208, 3604, 500e6, 0)
    # 9,000 questions x 0.2 s + 10 + 4 s, at the benchmark's own rate; the other one's questions are
    # not known.
    assert plan.costs["answer_benchmark"].seconds == pytest.approx(1814 + 4)
    assert plan.bases["rank_responses"] == {"published"}
    assert any("mine" in note and "questions" in note for note in plan.notes)


def test_questions_are_planned_by_what_answers_them_and_in_how_many_parts():
    def seconds(jobs, **evaluation):
        blocks = {"pope": {**BENCHMARKS["pope"], "shards": evaluation.pop("shards", 1)}}
        values = CONFIG.model_dump() | {"evaluation": {"benchmarks": blocks, **evaluation}}
        stages = RATES["stages"] | {
            "answer_benchmark@vllm": {"seconds": 0.1, "measured": "a test"},
            "answer_benchmark/pope@prefix_caching": {"seconds": 0.01, "measured": "a test"},
            "answer_benchmark@joined": {"seconds": 0.001, "measured": "a test"},
        }
        planned = plan_costs(jobs, Config.model_validate(values), PROMPTS, rates(stages=stages))
        return [each - 4 for each in planned.seconds]

    names = {"model": "base", "benchmark": "pope"}
    whole = [PlannedJob("answer_benchmark", names, 1)]
    assert seconds(whole) == [pytest.approx(9000 * 0.2 + 10)]
    assert seconds(whole, task_backend="vllm") == [pytest.approx(9000 * 0.1)]
    vllm = {"task_backend": "vllm", "prefix_caching": True}
    assert seconds(whole, **vllm) == [pytest.approx(9000 * 0.01)]
    parts = [PlannedJob("answer_part", {**names, "part": f"{n}-of-2"}, 1) for n in (1, 2)]
    joined = [*parts, PlannedJob("answer_benchmark", names, 0)]
    assert seconds(joined, shards=2) == pytest.approx([4500 * 0.2 + 10] * 2 + [9])
    assert seconds(joined, shards=2, **vllm) == pytest.approx([45, 45, 9])


def test_a_job_with_several_scorers_is_planned_to_read_pictures_once():
    shard = {"topic": "art", "shard": "00"}
    scorers = tuple({"scorer": name, **shard} for name in ("image-reward", "clip", "blip"))
    job = PlannedJob("rank_images", shard, 1, together=scorers)
    stages = RATES["stages"] | {
        "rank_images": {"seconds": 3, "load_seconds": 30, "measured": "a test"},
        "rank_images@decoded": {"seconds": 1, "load_seconds": 10, "measured": "a test"},
        "rank_images/blip": {"seconds": 2, "load_seconds": 20, "measured": "a test"},
    }
    plan = plan_costs([job], CONFIG, PROMPTS, rates(stages=stages))
    pictures = PROMPTS.of("art", "00") * 2
    # The one of which more is known is planned by that.
    seconds = 4 + (30 + 3 * pictures) + (10 + pictures) + (20 + 2 * pictures)
    cost = plan.costs["rank_images"]
    assert (cost.jobs, cost.items) == (1, 3 * pictures)
    assert plan.seconds == [cost.seconds] == [cost.gpu_seconds] == [cost.longest] == [seconds]


#: What one job asks two models about, on a GPU and on two.
TOGETHER = [
    PlannedJob(
        "answer_part",
        {"model": model},
        gpus,
        together=tuple(
            {"model": model, "benchmark": name, "part": "1-of-1"} for name in ("pope", "mine")
        ),
    )
    for model, gpus in (("base", 1), ("large", 2))
]


#: The same where our own rule asks.
OWN_TOGETHER = [
    PlannedJob(
        "answer_questions",
        job.wildcards,
        job.gpus,
        together=tuple({"model": "base", "benchmark": part["benchmark"]} for part in job.together),
    )
    for job in TOGETHER[:1]
]


def test_benchmarks_of_our_own_that_are_asked_in_one_job_are_planned_with_one_load(tmp_path):
    stages = RATES["stages"] | {
        "answer_questions": {"seconds": 2, "load_seconds": 30, "measured": "a test"},
        "answer_questions/mine": {"seconds": 1, "load_seconds": 20, "measured": "a test"},
    }
    known = rates(stages=stages, questions={"pope": 9000, "mine": 100})
    plan = plan_costs(OWN_TOGETHER, CONFIG, PROMPTS, known)
    cost = plan.costs["answer_questions"]
    assert (cost.jobs, cost.items) == (1, 9100)
    assert plan.seconds == [cost.gpu_seconds] == [4 + 30 + 9000 * 2 + 100 * 1]
    # What it took is the rate of both.
    for name, load in (("pope", 40.0), ("mine", 0.0)):
        write_record(tmp_path, "answer_questions", f"base/{name}", 10, 10, compute=5.0, load=load)
    measured = measured_rates(tmp_path, OWN_TOGETHER, CONFIG, PROMPTS, rates())
    for name in ("pope", "mine"):
        assert measured["stages"][f"answer_questions/{name}"]["load_seconds"] == 40
        assert measured["questions"][name] == 10
    used = read_usage(tmp_path, OWN_TOGETHER)["answer_questions"]
    assert (used.jobs, used.seconds) == (2, 40 + 2 * 5 + 2)


def test_a_model_that_is_asked_about_several_benchmarks_in_one_job_is_planned_to_be_loaded_once():
    known = {"questions": {"pope": 9000, "mine": 100}}
    plan = plan_costs(TOGETHER, CONFIG, PROMPTS, rates(**known))
    seconds = 4 + 10 + 9000 * 0.2 + 100 * 1
    cost = plan.costs["answer_part"]
    assert (cost.jobs, cost.items, cost.longest) == (2, 2 * 9100, seconds)
    assert cost.gpu_seconds == 3 * seconds


def test_what_one_load_took_is_the_rate_of_every_benchmark_that_shared_it_and_used_once(tmp_path):
    for model in ("base", "large"):
        for name, load in (("pope", 40.0), ("mine", 0.0)):
            job = f"{model}/{name}/1-of-1"
            write_record(tmp_path, "answer_part", job, 10, 10, compute=5.0, load=load)
    stages = measured_rates(tmp_path, TOGETHER, CONFIG, PROMPTS, rates())["stages"]
    assert [stages[f"answer_benchmark/{name}"]["load_seconds"] for name in ("pope", "mine")] == [
        40,
        40,
    ]
    used = read_usage(tmp_path, TOGETHER)["answer_part"]
    a_second_each = 2  # that the records have besides
    assert used.seconds == 2 * (40 + 2 * 5 + a_second_each)
    assert used.gpu_seconds == 1.5 * used.seconds  # on one GPU, and on two


def test_a_job_that_is_planned_near_its_time_limit_is_told():
    notes = plan_costs(JOBS, CONFIG, PROMPTS, rates()).notes
    assert [
        note
        for note in notes
        if note.startswith("train_dpo small is planned for 1.0 h, and its time limit is 1.0 h")
    ]
    assert not [note for note in notes if note.startswith("generate_images")]


def test_a_stage_that_needs_a_gpu_and_has_no_rate_is_refused():
    with pytest.raises(UserError, match="none for 'train_dpo', which needs a GPU"):
        plan_costs(
            JOBS,
            CONFIG,
            PROMPTS,
            rates(
                stages={name: rate for name, rate in RATES["stages"].items() if name != "train_dpo"}
            ),
        )


def broken(change):
    values = json.loads(json.dumps(RATES))
    change(values)
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda values: values["stages"].update(paint={"seconds": 1, "assumed": "so"}),
            r"line \d+: stages: there is no stage 'paint'",
        ),
        (
            lambda values: values["stages"].update(
                {"train_dpo/x": {"seconds": 1, "assumed": "so"}}
            ),
            "there is no stage 'train_dpo/x'",
        ),
        (
            lambda values: values["stages"]["train_dpo"].update(seconds=-1),
            r"line \d+: stages.train_dpo.seconds: .*greater than or equal to 0",
        ),
        (
            lambda values: values["stages"]["train_dpo"].pop("seconds"),
            r"line \d+: stages.train_dpo.seconds: this key is missing",
        ),
        (
            lambda values: values["stages"]["train_dpo"].pop("assumed"),
            r"line \d+: stages.train_dpo: say where the rate comes from",
        ),
        (
            lambda values: values["stages"]["train_dpo"].update(measured="twice"),
            "with exactly one of",
        ),
        (
            lambda values: values["stages"]["train_dpo"].update(gigabytes=1),
            "stages.train_dpo.gigabytes: unknown key",
        ),
        (
            lambda values: values["questions"].update(pope=0),
            r"questions.pope: .*greater than 0 \(found 0\)",
        ),
        (lambda values: values.pop("every_job"), "every_job: this key is missing"),
    ],
)
def test_a_mistake_in_the_rates_is_told_with_file_and_line(tmp_path, change, message):
    path = tmp_path / "rates.yaml"
    path.write_text(yaml.safe_dump(broken(change), sort_keys=False))
    with pytest.raises(UserError, match=message) as caught:
        read_rates(path, [job.rule for job in JOBS])
    assert str(path) in str(caught.value)


def test_a_rates_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_rates(tmp_path / "none.yaml", [])


def write_record(root, rule, name, items, computed, compute, load=0.0, journal=()):
    path = root / "work" / rule / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "rule": rule,
        "job": name,
        "items": items,
        "computed": computed,
        "reused": items - computed,
        "failed": 0,
        "notes": [],
        "compute_seconds": compute,
        "load_seconds": load,
        "wall_seconds": compute + load + 1,
        "finished": "2026-11-24T12:00:00.000+00:00",
    }
    path.write_text(json.dumps(record))
    if journal:
        lines = [
            {"journal": 1, "rule": rule},
            *(
                {"key": str(n), "id": str(n), "seconds": s, "status": "ok"}
                for n, s in enumerate(journal)
            ),
        ]
        path.with_name(f"{path.stem}.journal.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines) + '{"torn'
        )


@pytest.fixture
def run(tmp_path):
    """A run of two shards of images, of which one ran again with nothing to do, and a training on
    two GPUs.
    """
    root = tmp_path / "results/pilot"
    write_record(root, "generate_images", "art/00", items=7, computed=7, compute=84.0, load=50.0)
    write_record(
        root, "generate_images", "art/01", items=5, computed=0, compute=0.0, journal=[12.0] * 5
    )
    write_record(root, "train_dpo", "small", items=6, computed=6, compute=60.0, load=20.0)
    for number in range(24):
        picture = root / f"images/art/{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"x" * 1000)
    adapter = root / "models/small/adapter/adapter_model.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.write_bytes(b"x" * 5000)
    return root


def test_what_was_used_comes_from_the_records_and_for_jobs_that_ran_again_from_the_journal(run):
    used = read_usage(run, JOBS)
    assert (used["generate_images"].jobs, used["generate_images"].items) == (2, 12)
    assert used["generate_images"].seconds == pytest.approx(84 + 50 + 1 + 60)
    assert used["train_dpo"].gpu_seconds == pytest.approx(2 * 81)
    records = sum(
        path.stat().st_size for path in (run / "work/generate_images").rglob("*") if path.is_file()
    )
    assert used["generate_images"].bytes == 24_000 + records
    assert used["generate_images"].files == 24 + 3


def test_rates_measured_by_a_run_say_so_and_leave_the_rest_as_it_was(run, tmp_path):
    content = measured_rates(run, JOBS, CONFIG, PROMPTS, rates())
    images = content["stages"]["generate_images"]
    assert images["seconds"] == pytest.approx((84 + 60) / 24)
    assert images["load_seconds"] == 50
    assert images["megabytes"] == pytest.approx(0.001)
    assert images["files"] == 1
    assert images["measured"] == f"{run}: 2 jobs, the last of 2026-11-24"
    assert "assumed" not in images
    assert content["stages"]["train_dpo"]["seconds"] == 10
    assert content["stages"]["rank_responses"] == {
        "seconds": 0.5,
        "load_seconds": 30,
        "published": "a test",
    }
    path = tmp_path / "measured.yaml"
    path.write_text(yaml.safe_dump(content))
    again = plan_costs(JOBS, CONFIG, PROMPTS, read_rates(path, [job.rule for job in JOBS]))
    assert again.bases["generate_images"] == {"measured"}
    assert again.costs["generate_images"].seconds == pytest.approx(2 * (4 + 50) + 144)


def test_a_run_without_records_gives_no_rates(tmp_path):
    with pytest.raises(UserError, match="holds no records of jobs"):
        measured_rates(tmp_path, JOBS, CONFIG, PROMPTS, rates())


def jobs_by_rule(text):
    """The rows of a table of ours, or of Snakemake's job stats: stage and jobs."""
    return {
        name: int(count)
        for name, count in re.findall(r"^[│ ]*(\w+) +(?:│ +)?(\d+)\b", text, flags=re.MULTILINE)
    }


def test_the_planned_jobs_are_snakemake_s_own_and_planning_leaves_nothing_behind(project):
    before = sorted(path.name for path in project.folder.iterdir())
    planned = command(
        project.folder,
        "--configfile",
        "demo/random.yaml",
        "--rates",
        REPOSITORY / "profiles/slurm/rates.yaml",
    )
    assert planned.returncode == 0, planned.stderr
    assert (
        sorted(path.name for path in project.folder.iterdir() if path.name != ".snakemake")
        == before
    )
    dry_run = project.snakemake("-n").stdout
    stats = jobs_by_rule(dry_run[dry_run.index("Job stats") :].split("\n\n")[0])
    expected = {rule: count for rule, count in stats.items() if rule not in ("all", "total")}
    found = jobs_by_rule(planned.stdout)
    assert found.pop("all") == sum(expected.values()) == stats["total"]
    assert {rule: found.get(rule) for rule in expected} == expected


def test_the_paper_s_run_is_planned_with_the_project_s_rates_also_for_prompts_that_are_not_written(
    project,
):
    arguments = ("--rates", REPOSITORY / "profiles/slurm/rates.yaml")
    written = command(project.folder, *arguments)
    assert written.returncode == 0, written.stderr
    assert re.search(
        r"has \d+ prompts, fewer than the largest data set \(9000 pairs\) needs",
        " ".join(written.stdout.split()),
    )
    whole = command(project.folder, *arguments, "--prompts-per-topic", 900)
    assert "9000 prompts" in whole.stdout
    assert re.search(r"generate_images +│ +20 │ +36,000 ", whole.stdout)
    assert re.search(r"train_dpo +│ +4 │ +5,750 ", whole.stdout)
    assert "is not in the rates" not in whole.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--configfile", "none.yaml"], "none.yaml: there is no such file. Correct --configfile"),
        (["--prompts-per-topic", "0"], "'0' is not a number of 1 or more"),
        (["--run", "results/none"], "results/none: holds no records of jobs"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_message(project, arguments, message):
    done = command(project.folder, "--rates", REPOSITORY / "profiles/slurm/rates.yaml", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shipped_pilot_takes_at_most_four_gpu_hours_and_has_the_jobs_that_the_page_says(
    project,
):
    page = (REPOSITORY / "docs/cluster.md").read_text(encoding="utf-8")
    planned = command(project.folder, "--configfile", "pilot.yaml")
    assert planned.returncode == 0, planned.stderr
    total = next(line for line in planned.stdout.splitlines() if line.startswith("│ all "))
    jobs, _, _, longest, gpu_hours, *_ = (cell.strip() for cell in total.split("│")[2:])
    assert float(gpu_hours) <= 4
    assert float(longest) <= 1
    said = re.search(r"-n +# (\d+) jobs; ([\d.]+) GPU-hours by the plan", page)
    assert said
    assert (int(said[1]), float(said[2])) == (int(jobs), round(float(gpu_hours), 1))


def test_the_authors_released_data_and_model_are_planned_without_a_prompt(project, tmp_path):
    shutil.rmtree(project.folder / "prompts")
    cache = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    planned = command(project.folder, "--configfile", "released.yaml", environment=cache)
    assert planned.returncode == 0, planned.stderr
    jobs = {
        cells[1].strip(): (int(cells[2]), cells[3].strip())
        for line in planned.stdout.splitlines()
        if len(cells := line.split("│")) > 3 and cells[2].strip().isdecimal()
    }
    # The four sizes of the paper, and two data sets that it has no row for.
    assert (jobs["import_pairs"][0], jobs["train_dpo"][0], jobs["convert_model"][0]) == (6, 6, 1)
    updates = sum(2 * -(-(pairs // 2) // 4) for pairs in (2000, 5000, 7000, 9000))
    assert jobs["train_dpo"][1] == f"{updates + 2 * 2:,}"
    assert "generate_images" not in jobs
    paper = graph.read_configuration([REPOSITORY / "config.yaml"])[1]
    released = graph.read_configuration([REPOSITORY / "released.yaml"])[1]
    only = {"experiments"}
    assert released.training.model_dump(exclude=only) == paper.training.model_dump(exclude=only)
    rows = [each.paper_row for each in released.training.experiments.values()]
    assert rows == [2000, 5000, 7000, 9000, None, None]
    only_of_released = {"models"}
    ours, theirs = (
        config.evaluation.model_dump(exclude=only_of_released) for config in (released, paper)
    )
    for values in (ours, theirs):
        del values["benchmarks"]["vqav2"]["shards"]  # in how many jobs
    assert ours == theirs


def test_the_pilot_is_the_paper_s_run_but_for_how_much_of_everything():
    pilot = graph.read_configuration([REPOSITORY / "pilot.yaml"])[1]
    paper = graph.read_configuration([REPOSITORY / "config.yaml"])[1]
    less = {"run", "topics", "generate_prompts", "shards_per_topic", "shards"}
    less |= {"pairs", "training", "evaluation"}
    assert pilot.model_dump(exclude=less) == paper.model_dump(exclude=less)
    assert pilot.training.settings == paper.training.settings
    assert pilot.training.base_model == paper.training.base_model
    for part in ("pairs", "training", "evaluation"):
        ours, theirs = (getattr(config, part).model_dump() for config in (pilot, paper))
        for name in ("sizes", "experiments", "benchmarks"):
            ours.pop(name, None), theirs.pop(name, None)
        assert ours == theirs
    benchmarks = pilot.evaluation.benchmarks
    assert all(block.limit for block in benchmarks.values())
    assert {
        name: block.model_copy(update={"limit": None, "shards": 1})
        for name, block in benchmarks.items()
    } == {
        name: block.model_copy(update={"shards": 1})
        for name, block in paper.evaluation.benchmarks.items()
    }


#: Two shards of pictures, then their answers by two models, then a training on two GPUs.
CHAIN = [
    PlannedJob("generate_images", {"shard": "00"}, 1),
    PlannedJob("generate_images", {"shard": "01"}, 1),
    *(
        PlannedJob(
            "generate_responses",
            {"policy": policy, "shard": shard},
            1,
            0,
            (f"generate_images/{shard}",),
        )
        for policy in ("a", "b")
        for shard in ("00", "01")
    ),
    PlannedJob(
        "build_pairs",
        {},
        0,
        0,
        tuple(
            f"generate_responses/{policy}/{shard}"
            for policy in ("a", "b")
            for shard in ("00", "01")
        ),
    ),
    PlannedJob("train_dpo", {"experiment": "one"}, 2, 0, ("build_pairs",)),
]
SECONDS = [100, 50, 10, 10, 10, 10, 5, 200]


@pytest.mark.parametrize(
    ("gpus", "seconds", "at_once"),
    [
        # 100 | 50 + 10 + 10, then of the first shard 10 beside 10, 5, 200.
        (2, 100 + 10 + 5 + 200, 2),
        # The longest chain: 100 + 10 + 5 + 200.
        (4, 315, 3),
        (None, 315, 3),
    ],
)
def test_the_hours_on_some_gpus_are_the_jobs_in_the_order_of_the_graph(gpus, seconds, at_once):
    assert schedule(CHAIN, SECONDS, gpus) == Schedule(seconds, at_once)


def test_jobs_that_wait_for_gpus_make_a_run_longer_and_small_ones_go_first():
    single = [PlannedJob("rank_images", {"shard": str(shard)}, 1) for shard in range(3)]
    assert schedule(single, [10, 10, 10], 1) == Schedule(30, 1)
    assert schedule(single, [10, 10, 10], 3) == Schedule(10, 3)
    pair = PlannedJob("train_dpo", {}, 2)
    assert schedule([*single, pair], [10, 10, 10, 15], 3) == Schedule(25, 3)
    assert most_gpus_of_a_job([*single, pair]) == 2


ENDPOINT = {"base_url": "https://example.org/v1", "model": "writer"}


def asked_by(**changes):
    config = Config.model_validate(CONFIG.model_dump() | changes)
    return {one.key: one for one in endpoints_asked(config, JOBS, PROMPTS, {"pope": 9000})}


def test_an_endpoint_s_requests_tokens_and_cost_are_told():
    asked = asked_by(instructions={"backend": "openai", "endpoint": ENDPOINT})
    one = asked["instructions.endpoint"]
    assert one.items == 12
    rate = {"input_tokens": 100_000, "output_tokens": 50_000, "assumed": "a test"}
    price = {"input": 2, "output": 10, "currency": "EUR", "published": "a test"}
    priced = rates(requests={"instructions": rate}, prices={"writer": price})
    cost = cost_of(one, priced)
    assert (cost.requests, cost.tokens) == (12, (1_200_000, 600_000))
    assert cost.cost == pytest.approx(1.2 * 2 + 0.6 * 10)
    (line,) = say_requests([cost], priced, "my-rates.yaml")
    assert "12 requests, 1.20 million tokens in, 0.60 million out (assumed): 8.40 EUR" in line
    (line,) = say_requests(
        [cost_of(one, rates(requests={"instructions": rate}))],
        rates(requests={"instructions": rate}),
        "my-rates.yaml",
    )
    assert "No price of 'writer' is in my-rates.yaml" in line
    (line,) = say_requests([cost_of(one, rates())], rates(), "my-rates.yaml")
    assert "add 'instructions' under `requests`" in line


def test_judges_and_proposals_are_counted_as_often_as_they_are_asked():
    judged = {"task": "mmvet", "metrics": {"score": "gpt_eval_score"}, "scorer": "mm_vet"}
    jobs = [
        PlannedJob("answer_benchmark", {"model": model, "benchmark": "mm_vet"}, 1)
        for model in ("base", "small")
    ]
    config = Config.model_validate(
        CONFIG.model_dump()
        | {
            "evaluation": {"benchmarks": {"mm_vet": judged | {"judge": ENDPOINT}}},
            "image_ranking": {"judge": {"endpoint": ENDPOINT, "comparisons": 5}},
            "generate_prompts": {"count": {"art": 25}, "endpoint": ENDPOINT},
        }
    )
    found = {one.key: one.items for one in endpoints_asked(config, jobs, PROMPTS, {"mm_vet": 218})}
    assert found["evaluation.benchmarks.mm_vet.judge"] == 218 * 2 * 5
    assert found["image_ranking.judge.endpoint"] == 2 * 5
    # As often where the questions are asked together with others', or in parts, and then joined.
    asked = [{"model": "base", "benchmark": "mm_vet", "part": "1-of-1"}]
    together = PlannedJob("answer_part", {"model": "base"}, 1, together=(*asked, *asked))
    again = endpoints_asked(config, [*jobs, together], PROMPTS, {"mm_vet": 218})
    assert {one.key: one.items for one in again} == found
    own = PlannedJob("answer_questions", {"model": "base"}, 1, together=tuple(asked))
    once = endpoints_asked(config, [own], PROMPTS, {"mm_vet": 218})
    assert {one.key: one.items for one in once}["evaluation.benchmarks.mm_vet.judge"] == 218 * 5
    assert found["generate_prompts.endpoint"] == 25


def test_a_policy_model_s_endpoint_is_asked_for_each_of_its_answers() -> None:
    policies = {
        "far": {"backend": "openai", "endpoint": ENDPOINT, "samples": 3, "temperature": 1},
        "near": {"backend": "vllm", "model": "a/model", "samples": 2, "temperature": 1},
    }
    asked = asked_by(responses={"policy_models": policies})
    far = asked["responses.policy_models.far.endpoint"]
    assert (far.kind, far.items) == ("responses", 3 * 12)
    assert "responses.policy_models.near.endpoint" not in asked
    config = Config.model_validate(CONFIG.model_dump() | {"responses": {"policy_models": policies}})
    shard = {"topic": "art", "shard": "00"}
    for rule, names, items in (
        ("generate_responses", {"policy": "far", **shard}, 3 * 7),
        ("generate_responses", {"policy": "near", **shard}, 2 * 7),
        ("rank_responses", shard, 5 * 7),
    ):
        assert items_of(PlannedJob(rule, names, 1), config, PROMPTS, {}) == items


@pytest.mark.parametrize(
    ("kind", "requests"), [("vlm-judge-endpoint", 4 * 12), ("claims-endpoint", 8 * 4 * 12)]
)
def test_scorers_and_rewards_at_endpoints_are_counted_and_priced(kind, requests) -> None:
    asked = asked_by(
        image_ranking={
            "scorers": {"far": {"kind": "vlm-rating", "endpoint": ENDPOINT}},
            "select_by": "far",
        },
        response_ranking={"kind": kind, "endpoint": ENDPOINT},
    )
    shipped = yaml.safe_load((REPOSITORY / "profiles/slurm/rates.yaml").read_text("utf-8"))
    price = {"input": 2, "output": 10, "published": "a test"}
    priced = rates(requests=shipped["requests"], prices={"writer": price})
    images, answers = (
        cost_of(asked[key], priced)
        for key in ("image_ranking.scorers.far.endpoint", "response_ranking.endpoint")
    )
    assert (images.requests, answers.requests) == (2 * 12, requests)
    for cost in (images, answers):
        assert cost.tokens is not None
        assert cost.tokens[0] > 765 * cost.requests, "a picture's tokens are among them"
        assert cost.cost is not None


def test_the_plan_of_the_paper_tells_hours_costs_downloads_and_terms(project):
    done = command(project.folder, "--prompts-per-topic", 900, "--gpus", 8)
    said = " ".join(done.stdout.split())
    assert re.search(r"without time in the queue: [\d.]+ hours on 8 GPUs, never under", said)
    assert re.search(r"instructions.endpoint \(gpt-4o-2024-08-06\): 9,000 requests, .* USD", said)
    assert re.search(r"Hub cache: 19 repositories, [\d.]+ GB .*`make fetch`", said)
    for name in ("Stability AI Community", "Llama 3 Community", "Llama 2 Community", "OpenAI's"):
        assert name in said
    refused = command(project.folder, "--prompts-per-topic", 900, "--gpus", 1)
    assert refused.returncode == 1
    assert "holds 2 GPUs at once" in refused.stderr


def test_every_term_of_use_is_on_the_page_of_licences_with_its_address():
    page = (REPOSITORY / "docs/licences.md").read_text(encoding="utf-8")
    licences = read_licences()
    for terms in licences.terms:
        assert terms.name in page
        assert terms.address in page
    named = [each for terms in licences.terms for each in (*terms.hub, *terms.endpoints)]
    assert len(named) == len(set(named))
    for name in named:
        assert name.removeprefix("datasets/") in page, name


def test_a_pilot_s_limit_does_not_become_a_benchmark_s_number_of_questions(run):
    benchmarks = {name: block | {"limit": 5} for name, block in BENCHMARKS.items()}
    config = Config.model_validate(CONFIG.model_dump() | {"evaluation": {"benchmarks": benchmarks}})
    write_record(run, "answer_benchmark", "base/pope", 5, 5, 1.0, 1.0)
    content = measured_rates(run, JOBS, config, PROMPTS, rates())
    assert content["stages"]["answer_benchmark/pope"]["measured"]
    assert content["questions"] == {"pope": 9000}
