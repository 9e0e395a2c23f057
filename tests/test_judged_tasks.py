"""Tasks of lmms-eval that would ask a judge: nobody is asked who is not configured, and what nobody
judged is no score.
"""

import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest

import answer_benchmark
import score_benchmark
from chat_server import ChatServer
from lib.benchmarks.lmms_eval import harness
from lib.benchmarks.lmms_eval.task_code import asks_a_judge, key_names
from lib.benchmarks.lmms_eval.tasks import TaskSettings, find_task
from lib.patches import judges
from lib.patches import lmms_eval as lmms_eval_patches
from test_answer_benchmark import Job, settings_of
from tiny.benchmarks.files import parquet_bytes
from tiny.benchmarks.scenes import picture

KEY = "sk-exported-for-the-instructions"
WILD = "llava_in_the_wild"
COLUMNS = {
    "question_id": "string",
    "image": "image",
    "question": "string",
    "gpt_answer": "string",
    "caption": "string",
    "category": "string",
}


@pytest.fixture
def wild(tmp_path, demo_models, monkeypatch):
    """Two questions of LLaVA-Bench in the wild, which lmms-eval has judged by OpenAI's client."""
    rows = [
        {
            "question_id": str(number),
            "image": picture("sum"),
            "question": f"What is it? ({number})",
            "gpt_answer": "A sum.",
            "caption": "A sum.",
            "category": "conv",
        }
        for number in range(2)
    ]
    data = tmp_path / "wild.parquet"
    data.write_bytes(parquet_bytes(rows, COLUMNS))
    monkeypatch.chdir(tmp_path)
    settings = settings_of("pope", demo_models / "llava-1.5", data)
    settings |= {
        "task": WILD,
        "data": {"train": str(data)},
        "metrics": {"all": "gpt_eval_llava_all", "conv": "gpt_eval_llava_conv"},
        "prompt": {},
    }
    return SimpleNamespace(settings=settings, folder=tmp_path)


def scored(job: Job, metrics: dict[str, str]) -> Any:
    answer_benchmark.main(job)
    answers = job.answers()
    return score_benchmark.score(answers, job.results(), metrics, False), answers


@pytest.mark.slow
def test_a_random_model_gets_no_score_from_a_judge_that_is_not_there_nor_is_a_key_used_unasked(
    wild, monkeypatch
):
    """lmms-eval gives 100.0 where each call fails, and asks whoever a key is exported of."""
    server = ChatServer(lambda body: "10 10", model="judge", version="v", api_key_variable=None)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_URL", server.settings()["base_url"])
    found, answers = scored(Job(settings=wild.settings), wild.settings["metrics"])
    server.close()
    assert (found["scores"], server.requests) == ({}, [])
    assert found["missing"] == dict.fromkeys(("all", "conv"), score_benchmark.UNJUDGED)
    assert [answer["bare_question"] for answer in answers] == [
        "What is it? (0)",
        "What is it? (1)",
    ]
    files = [path for path in wild.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_the_configured_judge_is_asked_and_named(wild):
    """Also for a task that nobody here knows: its code has lmms-eval ask."""
    server = ChatServer(lambda body: "10 5", model="judge", version="v", api_key_variable=None)
    job = Job(settings={**wild.settings, "judge": server.settings()})
    found, _ = scored(job, wild.settings["metrics"])
    server.close()
    assert (found["scores"], found["missing"]) == ({"all": 50.0, "conv": 50.0}, {})
    assert len(server.requests) == 2
    assert job.results()["judge"]["model"] == "judge"


@pytest.mark.parametrize(
    ("request_of", "config_of"),
    [
        ({"messages": [{"role": "user", "content": "?"}], "images": [b"x"]}, {}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, {}),
        ({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "?"}]}, {}),
        ({"messages": [{"role": "user", "content": "?"}]}, {"system_prompt": "Be kind."}),
    ],
    ids=["pictures", "parts", "two messages", "a system prompt"],
)
def test_a_judge_that_is_to_be_asked_more_than_a_text_is_not_asked(
    monkeypatch, request_of, config_of
):
    from lmms_eval.llm_judge.protocol import Request, ServerConfig
    from lmms_eval.llm_judge.providers.openai import OpenAIProvider

    monkeypatch.setattr(OpenAIProvider, "evaluate", OpenAIProvider.evaluate)
    asked: list[str] = []
    refusals = judges.Refusals()

    def ask(text: str, **parameters: object) -> tuple[str, str]:
        asked.append(text)
        return "", ""

    lmms_eval_patches.change_judge(ask, refusals.refuse)
    config = ServerConfig(model_name="judge", **config_of)
    request = Request(**request_of, config=config)
    provider = OpenAIProvider.__new__(OpenAIProvider)
    is_asked, _ = refusals.is_asked(lambda: provider.evaluate(request))
    assert (is_asked, asked) == (True, [])


# --- what a task can do, from its code


@pytest.mark.parametrize("task", ["mmvet", WILD, "llava_in_the_wild_ko"])
def test_a_task_that_can_have_a_judge_asked_is_known_by_its_code(task):
    assert asks_a_judge(find_task(task))


@pytest.mark.parametrize("task", ["pope", "mme", "vqav2_val", "textvqa_val", "scienceqa_img"])
def test_a_task_that_cannot_is_too(task):
    assert not asks_a_judge(find_task(task))
    assert not key_names(find_task(task))


def test_the_names_under_which_a_task_looks_for_a_key_are_in_its_code_and_what_that_imports():
    assert "OPENAI_API_KEY" in key_names(find_task("mmbench_en_dev"))


def test_keys_and_addresses_of_services_stay_with_the_stages_that_they_are_for(
    tmp_path, monkeypatch
):
    services = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": "http://x",
        "AZURE_ENDPOINT": "http://x",
        "ANTHROPIC_API_KEY": KEY,
        "VIESCORE_API_KEY": KEY,
        "GOOGLE_APPLICATION_CREDENTIALS": "file",
        "MODEL_VERSION": "gpt-4o",
    }
    others = {"HF_ENDPOINT": "https://hub.example", "https_proxy": "http://p", "LANG": "C"}
    for name, value in (services | others).items():
        monkeypatch.setenv(name, value)
    task = TaskSettings(task=WILD, metrics={"all": "gpt_eval_llava_all"})
    environment = harness.environment(tmp_path, [task], 1)
    assert not services.keys() & environment.keys()
    assert others.items() <= environment.items()


# --- what asks


class Ours:
    """The client that may ask."""


@pytest.fixture
def refusals(monkeypatch):
    """The clients of HTTP, which are as before when the test is over."""
    import aiohttp
    import httpx
    import httpx2
    import requests

    for module in (httpx, httpx2):
        for cls in (module.Client, module.AsyncClient):
            monkeypatch.setattr(cls, "send", cls.send)
    monkeypatch.setattr(requests.Session, "send", requests.Session.send)
    monkeypatch.setattr(aiohttp.ClientSession, "_request", aiohttp.ClientSession._request)
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", urllib.request.OpenerDirector.open)
    made = judges.Refusals()
    judges.refuse_requests(made, Ours)
    return made


def by_requests(address: str) -> None:
    import requests

    requests.post(address, json={}, timeout=1)


def by_httpx(address: str) -> None:
    import httpx

    httpx.post(address, json={})


def by_urllib(address: str) -> None:
    urllib.request.urlopen(address, data=b"x", timeout=1)


@pytest.mark.parametrize("ask", [by_requests, by_httpx, by_urllib])
def test_whichever_client_a_task_asks_with_it_is_refused_and_told(refusals, ask):
    def process() -> str:
        try:
            ask("https://api.openai.com/v1/chat/completions")
        except Exception:
            return "full marks"
        return "judged"

    is_asked, result = refusals.is_asked(process)
    assert (is_asked, result, refusals.whom) == (True, None, "api.openai.com")


@pytest.mark.parametrize(
    ("method", "address", "refused"),
    [
        ("GET", "https://raw.example.org/data.json", False),
        ("POST", "https://huggingface.co/api/datasets/x/paths-info/main", False),
        ("POST", "https://cas-server.xethub.hf.co/x", False),
        ("POST", "https://huggingface.co.example.org/", True),
        ("post", "http://127.0.0.1:8000/v1/chat/completions", True),
    ],
)
def test_data_may_be_fetched_and_nobody_else_be_asked(method, address, refused):
    is_asked, _ = (made := judges.Refusals()).is_asked(lambda: made.check(method, address))
    assert is_asked is refused
