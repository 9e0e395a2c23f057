"""What a run says before it starts of what it will cost."""

from pathlib import Path

import pytest

from lib.config.run import Config
from lib.data.prompts import Prompt, shard_of
from lib.files import write_jsonl
from lib.head.costs import tell_costs
from lib.head.job_table import JobToRun
from lib.head.plan import Plan

SHARDS = ("00", "01")


def write_prompts(folder: Path, *texts: str) -> Plan:
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "prompts/art.txt").write_text("".join(f"{text}\n" for text in texts))
    values = {"results": str(folder / "results"), "prompts": str(folder / "prompts")}
    return Plan(Config.model_validate({**values, "topics": ["art"], "shards_per_topic": 2}))


TEXTS = tuple(f"a cat of the colour {number}" for number in range(6))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run that has its images."""
    plan = write_prompts(tmp_path, *TEXTS)
    for (topic, name), shard in plan.shards.items():
        path = Path(plan.root, "images", topic, f"{name}.jsonl")
        write_jsonl(path, [{"id": prompt.id} for prompt in shard.prompts])
    return tmp_path


def jobs(rule: str, *, is_changed: bool = True) -> list[JobToRun]:
    return [JobToRun(rule, {"topic": "art", "shard": shard}, is_changed) for shard in SHARDS]


def test_a_first_run_is_told_nothing(tmp_path: Path) -> None:
    assert tell_costs(write_prompts(tmp_path, *TEXTS), jobs("generate_images")) == []


def test_an_edited_prompt_is_told_as_one_that_is_new_and_one_that_is_gone(finished: Path) -> None:
    plan = write_prompts(finished, "another cat", *TEXTS[1:])
    lines = tell_costs(plan, [])
    assert [line.split(":")[0] for line in lines] == [
        "1 prompt is new or edited (art 1)",
        "1 prompt is gone (art 1)",
    ]


def test_a_setting_that_changed_is_told_with_all_the_items_that_it_may_decide(
    finished: Path,
) -> None:
    """And not the stages after it, which may find the same."""
    plan = write_prompts(finished, *TEXTS)
    ran = [*jobs("generate_images"), *jobs("rank_images", is_changed=False)]
    (line,) = tell_costs(plan, ran)
    assert line.startswith("generate_images, 2 jobs: the configuration, a model or the code")
    assert "At most 6 items" in line


def test_a_shard_with_an_edited_prompt_does_not_count_as_one_whose_settings_changed(
    finished: Path,
) -> None:
    new = Prompt("art", "another cat")
    plan = write_prompts(finished, *TEXTS, new.text)
    wildcards = {"topic": "art", "shard": shard_of(new.id, 2)}
    (line,) = tell_costs(plan, [JobToRun("generate_images", wildcards, is_changed=True)])
    assert line.startswith("1 prompt is new")


def test_what_changed_pairs_cost_is_told_and_how_to_be_spared_it(finished: Path) -> None:
    plan = write_prompts(finished, *TEXTS)
    follow = [
        JobToRun("merge_pairs", {"size": "3"}, is_changed=True),
        JobToRun("train_dpo", {"experiment": "dpo"}, is_changed=False),
        *(JobToRun("answer_questions", {}, is_changed=False) for _ in range(2)),
    ]
    (line,) = tell_costs(plan, follow)
    assert line.startswith("1 training and 2 evaluations follow")
    assert "`pairs.freeze: true`" in line
    (line,) = tell_costs(plan, follow[1:])
    assert line.startswith("1 training and 2 evaluations run;")


def test_where_only_tables_are_made_nothing_is_told(finished: Path) -> None:
    assert tell_costs(write_prompts(finished, *TEXTS), [JobToRun("size_table", {}, True)]) == []
