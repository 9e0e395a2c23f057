"""What runs again when something changes: whole runs through the commands that users type, counted
from the jobs' own records.
"""

import json
import os
import re
import shutil
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from lib.data.prompts import Prompt, shard_of
from lib.head.summary import read_records
from lib.head.verification import verify_run

pytestmark = pytest.mark.slow

#: Rules with one item a prompt, and how many jobs a shard has of each (two scorers, two policy
#: models).
ITEM_RULES = {
    "generate_images": 1,
    "rank_images": 2,
    "write_instructions": 1,
    "check_contamination": 1,
    "generate_responses": 2,
    "rank_responses": 1,
    "build_pairs": 1,
}
#: The table of vision-language benchmarks is not among them: the small run has none of these
#: benchmarks.
AFTER_TRAINING_SETTINGS = {
    "train_dpo",
    "merge_adapter",
    "model_cards",
    "answer_benchmark",
    "score_benchmark",
    "answer_questions",
    "score_answers",
    "answers_figure",
    "hallucination_table",
    "size_table",
    "all_scores_table",
}
AFTER_PAIRS = {
    *(
        "check_pairs",
        "merge_pairs",
        "data_set_card",
        "list_data_sets",
        "reasons_table",
        "similarity_figure",
    ),
    *AFTER_TRAINING_SETTINGS,
}
AFTER_RESPONSE_RANKING = {"embed_texts", "build_pairs", "reward_length_table", *AFTER_PAIRS}
AFTER_IMAGES = {"list_overlaps", "common_selections_table", "candidates_figure", "guidance_figure"}


def planned(project, *arguments):
    """The jobs of a dry run by rule."""
    output = project.snakemake(*arguments, "-n", "--quiet", "rules").stdout
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:", 1)[1].split("total", 1)[0]
    jobs = {
        rule: int(count)
        for rule, count in re.findall(r"^(\w+)\s+(\d+)\b", table, flags=re.MULTILINE)
    }
    return {rule: count for rule, count in jobs.items() if rule not in ("all", "pairs")}


def run(project, *arguments):
    """Runs, and gives what the jobs of this run put on record, by rule: jobs, computed, reused,
    failed.
    """
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    project.snakemake(*arguments)
    done: dict[str, Counter[str]] = {}
    for record in read_records(project.folder / "results/random", since):
        done.setdefault(record.rule, Counter()).update(
            jobs=1, computed=record.computed, reused=record.reused, failed=record.failed
        )
    return done


def prompt_file(project, topic="art"):
    return project.folder / f"demo/random_prompts/{topic}.txt"


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_a_finished_run_has_nothing_to_do_and_says_so(finished_copy):
    assert "Nothing to be done" in finished_copy.snakemake().stdout


def test_the_end_of_a_run_prints_what_it_did(finished_copy):
    write_lines(
        prompt_file(finished_copy),
        [*lines_of(prompt_file(finished_copy)), "one more cat beside a boat"],
    )
    output = finished_copy.snakemake(
        "results/random/image_ranking/clip/art/00.jsonl",
        "results/random/image_ranking/clip/art/01.jsonl",
    ).stdout
    assert "What this run did" in output
    assert re.search(r"generate_images .*\b1\b", output)


def test_editing_one_prompt_redoes_only_that_prompt(finished_copy):
    project = finished_copy
    lines = lines_of(prompt_file(project))
    before = project.published()
    old = Prompt("art", lines[1])
    # The edited prompt is to fall into the same shard, as one edit in two does with two shards.
    new = next(
        text
        for n in range(100)
        if shard_of(Prompt("art", text := f"{lines[1]} {n}").id, 2) == shard_of(old.id, 2)
    )
    write_lines(prompt_file(project), [lines[0], new, *lines[2:]])
    shard = shard_of(old.id, 2)
    plan = planned(project)
    assert {rule: plan[rule] for rule in ITEM_RULES} == ITEM_RULES
    told = project.snakemake("-n").stdout
    assert "1 file is of no topic that `topics` names" in told
    assert "1 prompt is new or edited (art 1): computed once in every stage" in told
    assert "1 training and 2 evaluations follow: computed anew where a pair" in told
    done = run(project)
    for rule, jobs in ITEM_RULES.items():
        assert (done[rule]["jobs"], done[rule]["computed"], done[rule]["failed"]) == (
            jobs,
            jobs,
            0,
        ), rule
    after = project.published()
    untouched = [
        name
        for name in before
        if re.fullmatch(r".*/\d\d\.jsonl", name) and not name.endswith(f"art/{shard}.jsonl")
    ]
    assert len(untouched) > 10
    assert all(after[name] == before[name] for name in untouched)
    story = f"results/random/prompts/{Prompt('art', new).id}.json"
    project.snakemake(story)
    assert json.loads((project.folder / story).read_text())["prompt"] == new


def test_reordering_prompts_redoes_nothing(finished_copy):
    lines = lines_of(prompt_file(finished_copy))
    write_lines(prompt_file(finished_copy), lines[::-1])
    assert planned(finished_copy) == {}


def test_adding_a_prompt_computes_that_one_and_deleting_it_computes_nothing(finished_copy):
    project = finished_copy
    before = project.published()
    lines = lines_of(prompt_file(project))
    write_lines(prompt_file(project), ["three green boats under a bridge", *lines])
    done = run(project, "pairs")
    # The scorer that does not pick is not needed for pairs.
    assert {rule: done[rule]["computed"] for rule in ITEM_RULES} == ITEM_RULES | {"rank_images": 1}
    write_lines(prompt_file(project), lines)
    done = run(project, "pairs")
    assert {rule: done[rule]["computed"] for rule in ITEM_RULES} == dict.fromkeys(ITEM_RULES, 0)
    after = project.published()
    shard_files = [
        name
        for name in before
        if name.endswith(".jsonl") and not name.startswith(("models", "evaluation"))
    ]
    assert all(after[name] == before[name] for name in [*shard_files, "dataset/2/llava.json"])


def test_changing_one_policy_model_redoes_its_responses_and_what_depends_on_them(finished_copy):
    project = finished_copy

    def exchange(values):
        policies = values["responses"]["policy_models"]
        policies[list(policies)[1]]["model"] = "demo/models/llama3-llava-next"

    project.edit_config(exchange)
    assert set(planned(project)) == {
        "generate_responses",
        "rank_responses",
        *AFTER_RESPONSE_RANKING,
    }
    done = run(project, "pairs")
    shards = len(
        {
            record.job
            for record in read_records(project.folder / "results/random")
            if record.rule == "build_pairs"
        }
    )
    assert done["generate_responses"]["jobs"] == shards
    assert (done["generate_responses"]["computed"], done["generate_responses"]["reused"]) == (5, 0)
    assert "generate_images" not in done
    assert "rank_images" not in done


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        (
            lambda values: values["images"].update(guidance_scales=[5.0, 11.0]),
            {*ITEM_RULES, *AFTER_RESPONSE_RANKING, *AFTER_IMAGES},
        ),
        (
            lambda values: values["image_ranking"]["scorers"]["clip"].update(dtype="bfloat16"),
            {"rank_images", "common_selections_table"},
        ),
        (
            lambda values: values["response_ranking"].update(max_length=400),
            {"rank_responses", *AFTER_RESPONSE_RANKING},
        ),
        (
            lambda values: values["training"]["settings"].update(beta=0.2),
            AFTER_TRAINING_SETTINGS,
        ),
        (
            lambda values: values["training"]["experiments"]["random-2"].update(
                settings={"learning_rate": 0.002}
            ),
            AFTER_TRAINING_SETTINGS,
        ),
        (
            lambda values: values["evaluation"]["benchmarks"]["pope"].update(
                metrics={"f1": "pope_f1_score"}
            ),
            {
                "answer_benchmark",
                "score_benchmark",
                "hallucination_table",
                "size_table",
                "all_scores_table",
                "model_cards",
            },
        ),
    ],
    ids=[
        "guidance scale",
        "a scorer that does not pick",
        "reward model",
        "DPO setting",
        "DPO setting of one experiment",
        "metric",
    ],
)
def test_changing_a_setting_redoes_what_depends_on_it_and_nothing_else(
    finished_copy, change, redone
):
    finished_copy.edit_config(change)
    assert set(planned(finished_copy)) == redone


def swap(content):
    """Other truths and other questions."""
    return content.replace(b"circle", b"square").replace(b"What", b"Tell what")


def test_a_benchmark_s_file_with_another_content_and_an_older_time_redoes_what_reads_it(
    finished_copy,
):
    """As `mv`, `rsync -t` and `tar` leave it."""
    benchmarks = finished_copy.folder / "demo/benchmarks"
    source = benchmarks.resolve()
    benchmarks.unlink()
    shutil.copytree(source, benchmarks)
    assert planned(finished_copy) == {}
    tables = {"hallucination_table", "size_table", "all_scores_table"}
    for name, answered in {
        "object_halbench/objects.json": {"score_answers", "answers_figure"},
        "object_halbench/questions.jsonl": {"answer_questions", "score_answers", "answers_figure"},
        "pope.parquet": {"answer_benchmark", "score_benchmark"},
    }.items():
        path = benchmarks / name
        kept, status = path.read_bytes(), path.stat()
        path.write_bytes(kept + b"PAR1" if path.suffix == ".parquet" else swap(kept))
        assert path.read_bytes() != kept
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 10**12))
        assert answered <= set(planned(finished_copy)), name
        assert tables & set(planned(finished_copy)), name
        path.write_bytes(kept)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_dpo_setting_does_not_redo_the_base_model_s_answers(finished_copy):
    finished_copy.edit_config(lambda values: values["training"]["settings"].update(beta=0.2))
    assert planned(finished_copy)["answer_benchmark"] == 1


def test_rankings_that_one_job_made_are_those_of_a_job_a_scorer_and_the_other_way_round(
    finished_copy,
):
    def together(wanted):
        finished_copy.edit_config(lambda values: values["image_ranking"].update(together=wanted))

    before = finished_copy.published()
    together(False)
    assert planned(finished_copy) == {}
    root = finished_copy.folder / "results/random"
    for scorer in ("image-reward", "clip"):
        (root / f"image_ranking/{scorer}/art/00.jsonl").unlink()
        (root / f"work/rank_images/{scorer}/art/00.json").unlink()
    assert planned(finished_copy, "rankings") == {"rank_images": 2}
    together(True)
    assert planned(finished_copy, "rankings") == {"rank_images": 1}
    done = run(finished_copy, "rankings")
    assert (done["rank_images"]["jobs"], done["rank_images"]["computed"]) == (2, 0)
    assert finished_copy.published() == before
    assert planned(finished_copy, "rankings") == {}


def test_a_comment_or_a_needed_time_redoes_nothing(finished_copy):
    path = finished_copy.folder / "demo/random.yaml"
    path.write_text("# a comment\n" + path.read_text())
    assert planned(finished_copy, "--set-resources", "generate_images:runtime=7") == {}


def test_editing_a_script_reruns_its_rule_with_its_items_reused_and_no_model_loaded(finished_copy):
    project = finished_copy
    script = project.folder / "scripts/generate_responses.py"
    script.write_text(script.read_text() + "\n# an edit that changes no result\n")
    before = project.published()
    done = run(project, "pairs")
    assert (done["generate_responses"]["computed"], done["generate_responses"]["reused"]) == (0, 10)
    assert done["rank_responses"]["computed"] == 0
    assert "write_instructions" not in done
    records = [
        record
        for record in read_records(project.folder / "results/random")
        if record.rule == "generate_responses"
    ]
    assert all(record.load_seconds == 0 for record in records)
    after = project.published()
    assert all(
        after[name] == before[name]
        for name in before
        if name.startswith(("responses", "pairs", "dataset"))
    )


def test_raising_a_stage_s_version_computes_its_items_again(finished_copy):
    script = finished_copy.folder / "scripts/rank_responses.py"
    text = script.read_text()
    assert "\nVERSION = 1\n" in text
    script.write_text(text.replace("\nVERSION = 1\n", "\nVERSION = 2\n"))
    done = run(finished_copy, "pairs")
    assert (done["rank_responses"]["computed"], done["rank_responses"]["reused"]) == (5, 0)
    assert (done["build_pairs"]["computed"], done["build_pairs"]["reused"]) == (0, 5)


def test_a_failed_item_is_tried_again_on_the_next_run_and_then_left_alone(finished_copy):
    project = finished_copy
    record = project.folder / "results/random/work/rank_responses/art/00.json"
    values = json.loads(record.read_text())
    # As a job leaves it whose endpoint or memory failed one item.
    record.write_text(json.dumps({**values, "failed": 1}))
    assert planned(project, "pairs")["rank_responses"] == 1
    run(project, "pairs")
    assert json.loads(record.read_text())["failed"] == 0
    assert planned(project, "pairs") == {}


def test_a_prompt_s_whole_story_can_be_asked_for_by_its_id(finished_copy):
    project = finished_copy
    prompt = Prompt("nature", lines_of(prompt_file(project, "nature"))[0])
    target = f"results/random/prompts/{prompt.id}.json"
    project.snakemake(target)
    story = json.loads((project.folder / target).read_text(encoding="utf-8"))
    assert story["prompt"] == prompt.text
    assert [candidate["guidance_scale"] for candidate in story["candidates"]] == [5.0, 9.0]
    assert set(story["image_ranking"]) == {"image-reward", "clip"}
    assert len(story["responses"]) == 2
    assert (story.get("pair")) or story["no_pair"]


def test_a_prompt_id_that_is_not_there_is_told(finished_copy):
    done = finished_copy.snakemake("results/random/prompts/art-0000000000.json", check=False)
    assert done.returncode != 0
    assert "art-0000000000" in done.stdout
    assert "Traceback (most recent call last)" not in done.stdout


def test_a_second_run_takes_over_what_the_first_has_computed_whatever_its_shards(finished_copy):
    project = finished_copy
    first = {
        path.name: path.read_bytes()
        for path in (project.folder / "results/random/images").rglob("*.png")
    }
    second = {"run": "second", "reuse_from": ["random"], "shards_per_topic": 1}
    project.edit_config(lambda values: values.update(second))
    output = project.snakemake("pairs").stdout
    records = read_records(project.folder / "results/second")
    computed: Counter[str] = Counter()
    reused: Counter[str] = Counter()
    for record in records:
        computed[record.rule] += record.computed
        reused[record.rule] += record.reused
    # Pairs, which cost nothing, name their picture's file, and that is in another folder.
    models = ITEM_RULES.keys() - {"build_pairs"}
    assert {rule: computed[rule] for rule in models} == dict.fromkeys(models, 0)
    assert reused["generate_images"] == 5
    assert "generate_images: 5 of the reused items were found in results/random" in output
    images = {
        path.name: path.read_bytes()
        for path in (project.folder / "results/second/images").rglob("*.png")
    }
    assert images == first


def test_jobs_over_all_topics_find_what_shards_of_topics_have_computed(finished_copy):
    project = finished_copy
    before = project.published()
    project.edit_config(lambda values: values.update(shards={"rank_images": 1}))
    after_images = {rule: jobs for rule, jobs in ITEM_RULES.items() if rule != "generate_images"}
    plan = planned(project, "pairs")
    assert {rule: plan[rule] for rule in after_images} == after_images | {"rank_images": 1}
    assert "generate_images" not in plan
    done = run(project, "pairs")
    assert {rule: done[rule]["computed"] for rule in after_images} == dict.fromkeys(after_images, 0)
    assert done["generate_responses"]["reused"] == 10
    after = project.published()
    data_set = [name for name in before if name.startswith("dataset/2/data")]
    assert all(after[name] == before[name] for name in ["dataset/2/llava.json", *data_set])
    stages = ("instructions", "responses/llava-v1.6-mistral", "response_ranking", "pairs")
    for stage in stages:
        rows = [
            line
            for name, content in before.items()
            if name.startswith(f"{stage}/")
            for line in content.splitlines()
        ]
        in_order = sorted(rows, key=lambda row: json.loads(row)["id"])
        assert after[f"{stage}/_all/1-of-1.jsonl"].splitlines() == in_order

    lines = lines_of(prompt_file(project))
    write_lines(prompt_file(project), [*lines[:-1], f"{lines[-1]}, seen from above"])
    new = Prompt("art", lines_of(prompt_file(project))[-1])
    told = project.snakemake("-n", "pairs").stdout
    assert "1 prompt is new or edited (art 1): computed once in every stage" in told
    assert "has changed. At most" not in told
    story = f"results/random/prompts/{new.id}.json"
    done = run(project, "pairs", story, "results/random/report/index.html")
    expected = after_images | {"generate_images": 1}
    assert {rule: done[rule]["computed"] for rule in expected} == expected
    assert json.loads((project.folder / story).read_text())["prompt"] == new.text
    root = project.folder / "results/random"
    assert new.text in (root / "report/data/prompts-000.js").read_text(encoding="utf-8")
    assert verify_run(root).differences == []
    # Nobody asks for the rows of a shard of images but who gathers them.
    assert planned(project, "pairs") == {}
    (root / "images/art/00.jsonl").unlink()
    again = planned(project, "pairs")
    assert (again["generate_images"], again["gather_images"]) == (1, 1)


def test_a_model_that_is_asked_about_several_benchmarks_in_one_job_is_not_asked_again(
    finished_copy,
):
    project = finished_copy
    before = project.published()

    def together(wanted):
        project.edit_config(lambda values: values["evaluation"].update(together=wanted))

    mme = {
        "task": "mme",
        "metrics": {"perception": "mme_perception_score"},
        "data": {"test": "demo/benchmarks/mme.parquet"},
    }
    project.edit_config(lambda values: values["evaluation"]["benchmarks"].update(mme=mme))
    together(True)
    files = [f"results/random/evaluation/base/{name}/scores.json" for name in ("pope", "mme")]
    jobs = {"answer_part": 1, "answer_benchmark": 2, "score_benchmark": 2}
    assert planned(project, *files) == jobs
    done = run(project, *files)
    # A record for each benchmark, of which one is new.
    of_both = done["answer_part"]
    assert (of_both["jobs"], of_both["reused"], of_both["computed"]) == (2, 12, 12)
    assert done["answer_benchmark"]["computed"] == 0
    after = project.published()
    assert {name: after[name] for name in before} == before
    assert planned(project, *files) == {}
    together(False)
    assert run(project, *files)["answer_benchmark"]["computed"] == 0
    assert planned(project, *files) == {}


def test_a_model_that_is_asked_by_our_own_rule_in_one_job_is_not_asked_again(finished_copy):
    """Of two benchmarks one was asked before, by a job of its own; Object HalBench, whose answers
    beams search, keeps its job.
    """
    project = finished_copy
    here = "demo/benchmarks"
    blocks: dict[str, dict[str, Any]] = {
        "amber": {
            "questions": f"{here}/amber/data/query_all.json",
            "images": f"{here}/amber/images",
            "reference": f"{here}/amber/data",
        },
        "chair": {
            "questions": f"{here}/chair/questions.jsonl",
            "images": f"{here}/chair/images",
            "reference": f"{here}/chair",
        },
    }
    for name, block in blocks.items():
        block |= {"scorer": name, "max_new_tokens": 16, "language": "stand-in"}

    def together(wanted):
        project.edit_config(lambda values: values["evaluation"].update(together=wanted))

    def in_all(of_rule):
        return {key: of_rule[key] for key in ("jobs", "computed", "reused")}

    project.edit_config(lambda values: values["evaluation"]["benchmarks"].update(blocks))
    files = {name: f"results/random/evaluation/base/{name}/scores.json" for name in blocks}
    chair = run(project, files["chair"])["answer_questions"]["computed"]
    before = project.published()
    together(True)
    jobs = {"answer_questions": 1, "score_answers": 2}
    assert planned(project, *files.values()) == jobs
    done = in_all(run(project, *files.values())["answer_questions"])
    amber = done["computed"]
    assert done == {"jobs": 2, "computed": amber, "reused": chair}  # a record for each benchmark
    assert amber
    after = project.published()
    assert {name: after[name] for name in before} == before
    assert planned(project, *files.values()) == {}
    together(False)
    done = in_all(run(project, *files.values())["answer_questions"])
    assert done == {"jobs": 2, "computed": 0, "reused": amber + chair}
    assert project.published() == after
    assert planned(project, *files.values()) == {}


def test_runs_to_reuse_that_are_not_there_are_refused(project):
    project.edit_config(lambda values: values.update(reuse_from=["papr"]))
    output = project.snakemake("-n", check=False).stdout
    assert "`reuse_from`: 'papr' is no run ('results/papr/work' is not there)" in output
    assert "Traceback" not in output


def test_a_frozen_data_set_and_what_is_trained_on_it_stay_until_they_are_released(finished_copy):
    project = finished_copy
    frozen = {
        name: content
        for name, content in project.published().items()
        if name.startswith(("dataset/", "models/"))
    }
    project.edit_config(lambda values: values["pairs"].update(freeze=True))
    assert planned(project) == {}
    lines = lines_of(prompt_file(project))
    write_lines(prompt_file(project), [*(f"{line}, seen from above" for line in lines)])
    assert not {"merge_pairs", "train_dpo", "merge_adapter", "answer_questions"} & {
        *planned(project)
    }
    output = project.snakemake("pairs").stdout
    assert re.search(r"dataset/2 is frozen .*it would lose [12] of its pairs, gain [12],", output)
    published = project.published()
    assert {name: published[name] for name in frozen} == frozen
    project.edit_config(lambda values: values["pairs"].update(freeze=False))
    assert {"merge_pairs", "train_dpo", "merge_adapter", "answer_questions"} <= {*planned(project)}
