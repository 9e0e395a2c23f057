"""Data sets that the prompts cannot give: left out with a word before the run and in the tables."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.config.publish import Publish
from lib.config.run import Config
from lib.data.prompts import Prompt
from lib.errors import UserError
from lib.files import write_json, write_jsonl
from lib.head import table_rows
from lib.head.frozen import tell_old_forms
from lib.head.left_out import tell_left_out, tell_too_large
from lib.head.plan import NEEDED_FILES, Plan
from lib.head.preflight import check_run
from lib.head.publications import publications
from lib.head.run_start import RunStart
from lib.head.targets import targets
from lib.jobs.job import digest_of_params
from lib.jobs.record import Record
from merge_pairs import number_of

PROMPTS = 10
SIZES = [4, 10, 12, "all"]
RULES = {"merge_pairs"}


def plan(folder: Path, sizes: list[Any] = SIZES, **pairs: Any) -> Plan:
    (folder / "prompts").mkdir(exist_ok=True)
    lines = [f"a cat of the colour {number}\n" for number in range(PROMPTS)]
    (folder / "prompts/art.txt").write_text("".join(lines))
    experiments = {f"dpo-{size}": {"size": size} for size in sizes}
    values = {
        "results": str(folder / "results"),
        "prompts": str(folder / "prompts"),
        "topics": ["art"],
        "shards_per_topic": 2,
        "pairs": {"sizes": sizes, **pairs},
        "training": {"experiments": experiments},
    }
    return Plan(Config.model_validate(values))


def make_pairs(made: Plan, without: int = 3) -> None:
    """Publishes the run's pairs as build_pairs does; so many prompts give none."""
    prompts = sorted(prompt.id for shard in made.shards.values() for prompt in shard.prompts)
    for (topic, name), shard in made.shards.items():
        rows = [row_of(prompt, prompt.id in prompts[:without]) for prompt in shard.prompts]
        write_jsonl(Path(made.root, "pairs", topic, f"{name}.jsonl"), rows)
        asked = digest_of_params(made.pairs_params(topic, name))
        record = Record("build_pairs", f"{topic}/{name}", asked=asked)
        write_json(Path(made.root, "work/build_pairs", topic, f"{name}.json"), vars(record))


def row_of(prompt: Prompt, is_tie: bool) -> Mapping[str, Any]:
    return {**prompt.row(), **({"no_pair": "tie"} if is_tie else {"pair": {}})}


def test_a_size_above_the_number_of_prompts_is_left_out_with_its_experiments(tmp_path):
    made = plan(tmp_path)
    assert made.left_out == {"12": "there are 10 prompts, and a prompt gives at most one pair"}
    assert made.sizes() == [4, 10, "all"]
    assert made.models() == ["base", "dpo-4", "dpo-10", "dpo-all"]
    assert not [file for file in targets(made) if "/12/" in file or "dpo-12" in file]
    assert f"{made.root}/dataset/all/dataset.json" in targets(made)


def test_what_is_left_out_and_what_may_come_short_is_said_before_the_run(tmp_path):
    lines = tell_left_out(plan(tmp_path), RULES)
    assert lines[0] == (
        "Data set size 12 left out with experiment dpo-12: there are 10 prompts, and a prompt gives"
        " at most one pair."
    )
    assert lines[2].startswith("Data set size 10 is 100 % of the 10 prompts")
    assert len(lines) == 3


def test_nothing_is_said_of_sizes_to_a_run_that_stops_before_the_pairs(tmp_path):
    assert tell_left_out(plan(tmp_path), {"generate_images", "images", "rank_images"}) == []


def test_a_run_that_trains_nothing_for_want_of_prompts_says_so(tmp_path):
    made = plan(tmp_path, sizes=[11])
    assert any("nothing is trained" in line for line in tell_left_out(made, RULES))


def test_a_run_that_can_make_no_data_set_at_all_is_refused_before_it_starts(tmp_path):
    with pytest.raises(UserError, match=r"pairs\.sizes: no data set .*10 prompts.*Add `all`"):
        check_run(plan(tmp_path, sizes=[11]), [("merge_pairs", {})])
    check_run(plan(tmp_path, sizes=[11]), [("images", {})])


def test_a_size_above_the_number_of_pairs_is_left_out_once_the_pairs_are_there(tmp_path):
    make_pairs(plan(tmp_path))
    made = plan(tmp_path)
    assert made.left_out["10"] == "the 10 prompts gave 7 pairs"
    assert made.sizes() == [4, "all"]


def test_a_run_s_end_tells_the_sizes_that_its_pairs_turned_out_too_few_for(tmp_path):
    made = plan(tmp_path)
    assert made.sizes() == [4, 10, "all"]
    assert tell_too_large(made) == []
    make_pairs(made)
    (line,) = tell_too_large(made)
    assert line.startswith("Data set size 10 cannot be made: the 10 prompts gave 7 pairs. Run the")


def test_pairs_that_are_to_be_made_anew_leave_no_size_out(tmp_path):
    make_pairs(plan(tmp_path, min_margin=1.0))
    assert plan(tmp_path).sizes() == [4, 10, "all"]


def test_a_job_leaves_out_what_its_run_left_out_whatever_has_been_made_since(tmp_path):
    head = plan(tmp_path)
    start = head.start({})
    make_pairs(head)
    assert Plan(head.config, start).sizes() == [4, 10, "all"]
    assert RunStart(**vars(start)).left_out == head.left_out


def test_a_frozen_data_set_stays_whatever_became_of_the_prompts(tmp_path):
    for name in NEEDED_FILES:
        path = Path(plan(tmp_path).root, "dataset/12", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert 12 in plan(tmp_path, freeze=True).sizes()
    assert 12 not in plan(tmp_path).sizes()


def test_a_frozen_data_set_in_the_form_of_before_is_told_with_what_to_do(tmp_path):
    made = plan(tmp_path, freeze=True)
    folder = Path(made.root, "dataset/4")
    for name in NEEDED_FILES:
        (folder / name).mkdir(parents=True)
    [line] = tell_old_forms(made)
    assert line.startswith(f"{folder} is frozen")
    assert "`pairs.freeze: false`" in line
    to_hub = Publish.model_validate({"data_sets": {"4": "me/pairs"}})
    publishing = Plan(made.config.model_copy(update={"publish": to_hub}))
    with pytest.raises(UserError, match=r"dataset/4 is frozen .* `pairs.freeze: false`"):
        publications(publishing)
    (folder / "ms_swift.jsonl").touch()
    assert tell_old_forms(made) == []
    assert len(publications(publishing)) == 1


def test_a_left_out_experiment_keeps_its_row_in_the_tables_and_asks_for_no_scores(tmp_path):
    made = plan(tmp_path)
    names = table_rows.experiments_by_size(made)
    assert names == ["dpo-4", "dpo-10", "dpo-12", "dpo-all"]
    rows = table_rows.model_table_job(made, names, table_rows.SIZE_SCORES).rows
    assert [row.left_out is not None for row in rows] == [False, False, False, True, False]
    assert [row.pairs for row in rows] == [0, 4, 10, 12, "all"]
    files = table_rows.score_files(made, names, {"pope": "pope/f1"})
    assert [Path(file).parts[-3] for file in files] == ["base", "dpo-4", "dpo-10", "dpo-all"]


def test_the_largest_size_that_is_made_is_shown_beside_the_one_that_is_left_out(tmp_path):
    shown = table_rows.largest_experiments(plan(tmp_path))
    assert shown == ["dpo-10", "dpo-12", "dpo-all"]
    assert table_rows.largest_experiments(plan(tmp_path, sizes=[4, 10])) == ["dpo-10"]


def test_the_sheet_of_answers_is_left_out_with_its_experiment(tmp_path):
    made = plan(tmp_path)
    sheet = SimpleNamespace(experiment="dpo-12")
    config = made.config.model_copy(
        update={"figures": made.config.figures.model_copy(update={"answers": sheet})}
    )
    sheetless = Plan(config)
    assert sheetless.answers_sheet is None
    assert table_rows.answers_job(sheetless) is None
    assert not [file for file in targets(sheetless) if "answers_figure" in file]


def test_pairs_that_are_too_few_are_told_with_their_reasons_and_what_to_do():
    rows: list[Any] = [
        {"id": "1", "topic": "art", "pair": {}},
        {"id": "2", "topic": "art", "no_pair": "tie"},
        {
            "id": "3",
            "topic": "art",
            "missing": {"rule": "rank_images", "reason": "all images blank"},
        },
    ]
    assert number_of("1", 1, rows) == number_of("all", 1, rows) == 1
    with pytest.raises(
        UserError,
        match=r"3 prompts gave 1 pairs.*tie 1, all images blank 1\. Run the same command again",
    ):
        number_of("2", 1, rows)
    with pytest.raises(UserError, match="gave 0 pairs"):
        number_of("all", 0, rows)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [(["many"], "a whole number above 0, or `all`"), ([0], "a whole number above 0, or `all`")],
)
def test_a_size_that_is_none_is_refused_in_one_sentence(sizes, message):
    with pytest.raises(ValueError, match=message) as caught:
        Config.model_validate({"pairs": {"sizes": sizes}, "training": {"experiments": {}}})
    assert str(caught.value).count("pairs.sizes") == 1


def test_as_it_is_cloned_the_paper_s_run_is_planned_with_warnings(project):
    """Its key and models are not here, which a dry run says below the plan."""
    snakemake = project.command()[0]
    told = subprocess.run(
        [snakemake, "--profile", "slurm", "-n"],
        cwd=project.folder,
        env=project.environment() | {"HF_HUB_OFFLINE": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    ).stdout
    assert re.search(r"^merge_pairs +1 ", told, flags=re.MULTILINE)
    assert re.search(r"^generate_images +20 ", told, flags=re.MULTILINE)
    assert "Data set sizes 2000, 5000, 7000, 9000 left out with experiments pds-dpo-2k" in told
    assert "is larger than" not in told
    assert "Traceback" not in told
