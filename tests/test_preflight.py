"""What a run looks for before it starts: the models, endpoints and files of the jobs that are to
run, and of no others.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lib.endpoint
from chat_server import ChatServer, closed_port
from lib import weights
from lib.config.run import Config
from lib.errors import OutOfReachError, UserError
from lib.head.plan import Plan
from lib.head.preflight import Job, check_run, needs_of

SHARD = {"topic": "art", "shard": "00"}
OWN = "http://127.0.0.1:9/v1"
BASE = "llava-hf/llava-1.5-7b-hf"
COMMIT = "b234b804b114d9e37bb655e11cbbb5f5e971b7a9"


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    """The paper's configuration for one topic of two prompts."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/art.txt").write_text("a red cat\na blue cat\n")

    def make(**values: Any) -> Plan:
        judge = {"judge": {"endpoint": {"base_url": OWN, "model": "judge"}}}
        return Plan(
            Config.model_validate(
                {
                    "results": str(tmp_path / "results"),
                    "prompts": str(tmp_path / "prompts"),
                    "topics": ["art"],
                    "pairs": {"sizes": ["all"]},
                    "training": {"experiments": {"dpo": {"size": "all"}}},
                    "figures": {"embedding": {"model": "some/embedding"}},
                    "image_ranking": judge,
                    **values,
                }
            )
        )

    return make


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the base model's snapshot in a hub cache that holds nothing; no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path / "hub" / f"models--{BASE.replace('/', '--')}" / "snapshots" / COMMIT


NEEDS: dict[str, tuple[Job, set[str], set[str]]] = {
    "images": (("generate_images", SHARD), {"images"}, set()),
    "one scorer": (
        ("rank_images", {"scorer": "clip", **SHARD}),
        {"image_ranking.scorers.clip"},
        set(),
    ),
    "scorers in one job": (
        ("rank_images", SHARD),
        {f"image_ranking.scorers.{name}" for name in ("image-reward", "clip", "blip")},
        set(),
    ),
    "instructions": (("write_instructions", SHARD), set(), {"instructions.endpoint"}),
    "one policy model": (
        ("generate_responses", {"policy": "llava-v1.6-vicuna-7b", **SHARD}),
        {"responses.policy_models.llava-v1.6-vicuna-7b"},
        set(),
    ),
    "rewards": (("rank_responses", SHARD), {"response_ranking"}, set()),
    "pairs": (("build_pairs", SHARD), {"training.base_model"}, set()),
    "a data set": (("merge_pairs", {"size": "all"}), set(), set()),
    "training": (("train_dpo", {"experiment": "dpo"}), {"training.base_model"}, set()),
    "answers of the base model": (
        ("answer_benchmark", {"model": "base", "benchmark": "pope"}),
        {"training.base_model"},
        set(),
    ),
    "answers of a trained model": (
        ("answer_benchmark", {"model": "dpo", "benchmark": "pope"}),
        set(),
        set(),
    ),
    "embeddings": (("embed_texts", SHARD), {"figures.embedding"}, set()),
    "the judge of picks": (("compare_picks", {}), set(), {"image_ranking.judge.endpoint"}),
    "prompts": (("generate_prompts", {"topic": "art"}), set(), {"instructions.endpoint"}),
    "a table": (("size_table", {}), set(), set()),
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_job_asks_for_its_own_models_and_endpoints_and_no_others(plan, name):
    job, models, endpoints = NEEDS[name]
    needs = needs_of(plan(), [job])
    assert {key for key in needs.models if not key.endswith(".tokenizer")} == models
    assert set(needs.endpoints) == endpoints


def test_a_policy_model_s_endpoint_is_asked_for_where_it_answers(plan):
    endpoint = {"base_url": OWN, "model": "far"}
    far = {"backend": "openai", "endpoint": endpoint}
    made = plan(responses={"policy_models": {"far": far, "mine": "base"}})
    asked, own = (
        needs_of(made, [("generate_responses", {"policy": name, **SHARD})])
        for name in ("far", "mine")
    )
    assert (set(asked.endpoints), asked.models) == (
        {"responses.policy_models.far.endpoint"},
        {},
    )
    assert (own.endpoints, set(own.models)) == ({}, {"responses.policy_models.mine"})
    assert own.models["responses.policy_models.mine"][0].model == BASE


def test_the_endpoints_of_a_scorer_and_of_a_reward_are_asked_for_and_need_their_keys(
    plan, monkeypatch
):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    endpoint = {"base_url": OWN, "model": "judge", "api_key_variable": "JUDGE_KEY"}
    made = plan(
        image_ranking={
            "scorers": {"far": {"kind": "vlm-rating", "endpoint": endpoint}},
            "select_by": "far",
        },
        response_ranking={"kind": "vlm-judge-endpoint", "endpoint": endpoint},
    )
    jobs: list[Job] = [("rank_images", {"scorer": "far", **SHARD}), ("rank_responses", SHARD)]
    assert needs_of(made, jobs).models == {}
    with pytest.raises(UserError) as caught:
        check_run(made, jobs)
    keys = ["image_ranking.scorers.far.endpoint", "response_ranking.endpoint"]
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == keys
    assert all("JUDGE_KEY is not set" in line for line in lines)


def test_a_judge_is_asked_for_where_its_scores_are_made(plan):
    judge = {"base_url": OWN, "model": "judge"}
    block = {"task": "mmvet", "scorer": "mm_vet", "metrics": {"score": "gpt_eval_score"}}
    made = plan(evaluation={"benchmarks": {"mm_vet": {**block, "judge": judge}}})
    names = {"model": "dpo", "benchmark": "mm_vet"}
    assert needs_of(made, [("answer_benchmark", names)]).endpoints == {}
    asked = needs_of(made, [("score_benchmark", names)]).endpoints
    assert list(asked) == ["evaluation.benchmarks.mm_vet.judge"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"metrics": {"f1": "pope_f1"}},
            r"`metrics\.f1`: lmms-eval's task 'pope' gives no 'pope_f1'\. It gives pope_accuracy,",
        ),
        ({"data": {"val": "x.parquet"}}, r"`data`: .*'pope' reads the split 'test', .* only 'val'"),
        ({"task": "poppe"}, r"lmms-eval has no task 'poppe'.*Did you mean 'pope'"),
    ],
)
def test_a_metric_a_split_or_a_task_that_is_not_there_is_told_before_the_run(
    plan, tmp_path, monkeypatch, changes, told
):
    monkeypatch.chdir(tmp_path)
    Path("x.parquet").write_bytes(b"PAR1    PAR1")
    block = {"task": "pope", "metrics": {"f1": "pope_f1_score"}}
    jobs: list[Job] = [("answer_benchmark", {"model": "dpo", "benchmark": "mine"})]
    check_run(plan(evaluation={"benchmarks": {"mine": block}}), jobs)
    with pytest.raises(UserError, match=rf"evaluation\.benchmarks\.mine: {told}"):
        check_run(plan(evaluation={"benchmarks": {"mine": block | changes}}), jobs)


def test_pairs_alone_ask_for_the_base_model_s_tokenizer_before_they_start(plan, empty_cache):
    with pytest.raises(UserError, match=rf"training\.base_model: {BASE} at .*neither in the local"):
        check_run(plan(), [("build_pairs", SHARD)])
    empty_cache.mkdir(parents=True)
    for name in ("tokenizer.json", "config.json", "chat_template.json"):
        (empty_cache / name).touch()
    check_run(plan(), [("build_pairs", SHARD)])
    # No weights came with it, which training needs.
    both: list[Job] = [("train_dpo", {"experiment": "dpo"}), ("build_pairs", SHARD)]
    for jobs in (both, both[::-1]):
        with pytest.raises(UserError, match=r"training\.base_model"):
            check_run(plan(), jobs)
    (empty_cache / "model.safetensors").touch()
    check_run(plan(), both)


def test_all_that_is_missing_is_told_at_once(plan):
    jobs: list[Job] = [("generate_images", SHARD), ("write_instructions", SHARD)]
    with pytest.raises(UserError) as caught:
        check_run(plan(), jobs)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "images",
        "instructions.endpoint",
    ]


def test_a_dry_run_tells_a_server_elsewhere_that_it_cannot_reach_and_is_no_error(
    plan, monkeypatch, tmp_path
):
    def unreachable(*_: object) -> None:
        raise OutOfReachError("not from here")

    monkeypatch.setattr(weights, "check_access", unreachable)
    jobs: list[Job] = [("generate_images", SHARD)]
    assert check_run(plan(), jobs, may_be_out_of_reach=True) == ["images: not from here"]
    assert not (tmp_path / "results").exists()
    with pytest.raises(UserError, match="images: not from here"):
        check_run(plan(), jobs)


def test_a_dry_run_fails_for_a_missing_key_and_for_a_server_of_this_machine_that_is_down(
    plan, monkeypatch
):
    jobs: list[Job] = [("write_instructions", SHARD)]
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        check_run(plan(), jobs, may_be_out_of_reach=True)
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    endpoint = {"base_url": f"http://127.0.0.1:{closed_port()}/v1", "model": "m", "timeout": 1}
    with pytest.raises(UserError, match=r"instructions\.endpoint: .*cannot be reached"):
        check_run(plan(instructions={"endpoint": endpoint}), jobs, may_be_out_of_reach=True)


def test_a_server_that_answers_is_no_problem(plan):
    server = ChatServer(lambda body: "ready")
    settings = server.settings(api_key_variable=None)
    check_run(plan(instructions={"endpoint": settings}), [("write_instructions", SHARD)])
    server.close()


def test_prompts_by_an_llm_need_one(plan):
    made = plan(instructions={"backend": "template", "templates": ["What is it?"]})
    with pytest.raises(UserError, match=r"there is none.*generate_prompts\.endpoint"):
        check_run(made, [("generate_prompts", {"topic": "art"})])


def test_a_topic_without_prompts_stops_all_but_the_writing_of_prompts(plan):
    made = plan(topics=["art", "nature"], generate_prompts={"count": 5})
    assert made.lacking == {"art": 3, "nature": 5}
    with pytest.raises(UserError, match=r"nature\.txt: there are no prompts yet.*target `prompts`"):
        check_run(made, [("reasons_table", {})])
    check_run(made, [("add_prompts", {})])


def test_a_base_model_that_cannot_be_asked_ends_the_run_before_it_starts(plan, tmp_path):
    """Unless the configuration says how to."""
    (tmp_path / "base").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "base" / name).write_text("{}")
    training = {
        "experiments": {"dpo": {"size": "all"}},
        "base_model": {"model": f"{tmp_path}/base"},
    }
    jobs: list[Job] = [("build_pairs", SHARD)]
    with pytest.raises(UserError, match=r"training\.base_model: .*base: .*no chat template"):
        check_run(plan(training=training), jobs)
    form = {"prompt_template": "USER: <image>\n{instruction} ASSISTANT:"}
    check_run(plan(training=training | form), jobs)


def test_a_model_folder_that_lacks_its_weights_ends_the_run_with_its_key_s_place(plan, tmp_path):
    (tmp_path / "scorer").mkdir()
    (tmp_path / "scorer/config.json").write_text("{}")
    scorers = {"image-reward": {"kind": "clip", "model": f"{tmp_path}/scorer"}}
    made = plan(image_ranking={"scorers": scorers})
    message = (
        r"^config\.yaml, line 3: image_ranking\.scorers\.image-reward: `model`: the folder"
        r" '.*scorer' cannot be loaded: it has no weights \(model\.safetensors or pytorch_model\."
    )
    with pytest.raises(UserError, match=message):
        check_run(
            made,
            [("rank_images", {"scorer": "image-reward", **SHARD})],
            where=lambda _: "config.yaml, line 3: ",
        )
    assert check_run(made, [("size_table", {})]) == []  # which loads no model
