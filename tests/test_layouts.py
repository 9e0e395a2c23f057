"""Shards of several stages: which prompts are in which, and what is asked of a job of each."""

from pathlib import Path

import pytest
import yaml

from lib.config.run import load_config
from lib.data.layouts import PromptCounts
from lib.data.prompts import shard_of
from lib.errors import UserError
from lib.head.plan import Plan
from lib.jobs.job import ALL_TOPICS
from lib.jobs.published import SHARD_RULES
from lib.planning.costs import how_of, items_of, parts_of, plan_costs
from lib.planning.graph import made_up_prompts, read_configuration
from lib.planning.rates import read_rates
from lib.planning.reported import RATES, all_rules, jobs_with_models

REPOSITORY = Path(__file__).resolve().parent.parent


def plan_of(folder, per_topic=30, **values):
    """The plan of a run with so many prompts on each of two topics."""
    folders = {"prompts": str(folder / "prompts"), "results": str(folder / "results")}
    config = load_config({**folders, "topics": ["nature", "art"], **values}, [])
    if not Path(config.prompts).is_dir():
        made_up_prompts(config, Path(config.prompts), per_topic)
    return Plan(config)


def ids_of(plan, rule):
    return {place: shard.prompts.ids() for place, shard in plan.stages.layout(rule).shards.items()}


def test_a_shard_over_all_topics_holds_whole_shards_of_the_stage_before(tmp_path):
    plan = plan_of(tmp_path, shards_per_topic=4, shards={"rank_images": 2, "rank_responses": 1})
    images, ranking = ids_of(plan, "generate_images"), ids_of(plan, "rank_images")
    assert list(ranking) == [(ALL_TOPICS, "1-of-2"), (ALL_TOPICS, "2-of-2")]
    assert list(ids_of(plan, "build_pairs")) == [(ALL_TOPICS, "1-of-1")]
    for place, ids in ranking.items():
        # The rows of its images are gathered for it, and for every job after it.
        gathered = f"{plan.root}/images/{'/'.join(place)}.jsonl"
        assert plan.stages.files_behind("rank_images", "images", *place) == [gathered]
        assert gathered in plan.stages.image_files()
        files = plan.stages.files_behind("gather_images", "images", *place)
        behind = [(Path(file).parent.name, Path(file).stem) for file in files]
        assert ids == sorted(name for each in behind for name in images[each])
        assert [
            prompt.id for prompt in plan.stages.layout("rank_images").shards[place].prompts
        ] == ids
        assert {plan.stages.layout("rank_images").place_of(name) for name in ids} == {place}
    assert sum(map(len, ranking.values())) == 60
    files = plan.stages.files_behind("rank_responses", "responses/mine", ALL_TOPICS, "1-of-1")
    assert files == plan.stages.files("responses/mine")
    assert [Path(file).stem for file in files] == ["1-of-2", "2-of-2"]


def test_each_file_that_a_job_reads_row_by_row_has_its_prompts_digest(tmp_path):
    plan = plan_of(tmp_path, shards_per_topic=4, shards={"rank_images": 2, "rank_responses": 1})
    digests = plan.stages.digests_of("write_instructions", ALL_TOPICS, "1-of-2")
    read = [
        *plan.stages.files_behind("write_instructions", "images", ALL_TOPICS, "1-of-2"),
        *plan.stages.files_behind("write_instructions", "image_ranking/clip", ALL_TOPICS, "1-of-2"),
    ]
    assert set(digests) == {f"{Path(file).parent.name}/{Path(file).stem}" for file in read}
    gathered = plan.stages.digests_of("gather_images", ALL_TOPICS, "1-of-2")
    assert len(gathered) == 1 + 2 * 2  # its own shard, and two of each topic
    assert digests.items() <= plan.stages.digests.items()
    # Of stages with other shards, those of the same number are others.
    assert len(plan.stages.digests) == 8 + 2 + 1


def test_without_fewer_shards_files_and_parameters_are_what_they_were(tmp_path):
    plan = plan_of(tmp_path)
    for stage, rules in SHARD_RULES.items():
        for topic, shard in plan.shards:
            file = f"{plan.root}/{stage}/{topic}/{shard}.jsonl"
            for rule in rules:
                assert plan.stages.files_behind(rule, stage, topic, shard) == [file]
                digests = {f"{topic}/{shard}": plan.shards[topic, shard].digest}
                assert plan.stages.digests_of(rule, topic, shard) == digests
    names = [(topic, name) for topic in ("nature", "art") for name in ("00", "01")]
    assert list(plan.shards) == names


def test_a_shard_of_another_layout_is_no_target(tmp_path):
    plan = plan_of(tmp_path, shards={"generate_responses": 1})
    with pytest.raises(UserError, match=r"in shard 00, .* or rank_responses has other shards"):
        plan.stages.files_behind("rank_responses", "responses/mine", "art", "00")
    assert plan.stages.files_behind("rank_images", "images", "art", "00")


@pytest.mark.parametrize(("count", "first", "last"), [(2, "00", "01"), (100, "00", "99")])
def test_the_names_of_up_to_a_hundred_shards_are_of_two_digits(count, first, last):
    assert (shard_of("art-0000000000", count), shard_of(f"art-{count - 1:010x}", count)) == (
        first,
        last,
    )


def test_the_names_of_more_shards_sort_as_their_numbers():
    names = [shard_of(f"art-{number:010x}", 1000) for number in range(1000)]
    assert names == sorted(names)
    assert (names[7], names[-1]) == ("007", "999")


@pytest.mark.parametrize(
    ("values", "mistake"),
    [
        ({"shards": {"rank_images": 3}}, "`rank_images: 3` does not divide `shards_per_topic: 2`"),
        (
            {"shards_per_topic": 6, "shards": {"rank_images": 2, "build_pairs": 3}},
            "`build_pairs: 3` does not divide `rank_images: 2`",
        ),
    ],
)
def test_shards_that_would_split_files_are_refused_with_their_line(tmp_path, values, mistake):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump({"run": "mine", **values}, sort_keys=False))
    with pytest.raises(UserError) as error:
        load_config(values, [path])
    assert f"{path}, line {len(values) + 1}: shards: {mistake}" in str(error.value)


def test_a_stage_that_has_no_model_is_no_key_of_shards(tmp_path):
    with pytest.raises(UserError, match=r"shards.embed_texts: unknown key"):
        load_config({"shards": {"embed_texts": 1}}, [])


def test_prompts_are_counted_in_shards_of_any_layout(tmp_path):
    plan = plan_of(tmp_path, shards_per_topic=4, shards={"rank_images": 2})
    counts = PromptCounts({place: len(shard.prompts) for place, shard in plan.shards.items()})
    for rule in ("generate_images", "build_pairs"):
        shards = plan.stages.layout(rule).shards
        assert {place: counts.of(*place) for place in shards} == {
            place: len(shard.prompts) for place, shard in shards.items()
        }
    assert counts.total == 60


def test_the_paper_s_run_of_9000_prompts_loads_models_in_a_twentieth_of_its_time(tmp_path):
    values, _ = read_configuration([REPOSITORY / "config.yaml"])
    values |= {"prompts": str(tmp_path / "prompts"), "results": str(tmp_path / "results")}
    config = load_config(values, [])
    made_up_prompts(config, Path(config.prompts), 900)
    plan, rates = Plan(config), read_rates(RATES, all_rules())
    counts = PromptCounts({place: len(shard.prompts) for place, shard in plan.shards.items()})
    for stage in ("generate_images", "rank_images", "generate_responses", "rank_responses"):
        jobs = [job for job in jobs_with_models(plan) if job.rule == stage]
        cost = plan_costs(jobs, config, counts, rates)
        loading = sum(rates.of(job, how_of(job, config)).load_seconds for job in jobs)
        assert 0 < loading <= 0.05 * cost.costs[stage].seconds, stage
        assert cost.costs[stage].longest <= 4 * 3600, stage
        assert sum(items_of(job, config, counts, {}) for job in jobs) >= 36_000
    asking = [job for job in jobs_with_models(plan) if job.rule == "answer_part"]
    seconds = plan_costs(asking, config, counts, rates).costs["answer_part"].seconds
    loading = sum(rates.of(*parts_of(job, config)[0]).load_seconds for job in asking)
    assert 0 < loading <= 0.05 * seconds
    assert not [
        job for job in jobs_with_models(plan) if job.rule == "answer_benchmark" and job.gpus
    ]
