"""Endpoints: a busy server is waited for, a mistake is told plainly and early, and the key goes
nowhere but into the request.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

import lib.endpoint
from chat_server import ChatServer, Reply, closed_port, completion, error, in_order, listing
from lib.blocks import Endpoint
from lib.endpoint import Client, RefusedRequestError, check_endpoint
from lib.errors import ItemError, UserError

KEY = "sk-a-very-secret-key"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.02)
    server = ChatServer(lambda body: "What is red?", retries=2, api_key_variable="TEST_KEY")
    yield server
    server.close()


def ask(endpoint, **changes):
    with Client(endpoint) as client:
        return client.ask("hello", **{"temperature": 0.7, "max_tokens": 20, "seed": 5, **changes})


def test_a_request_carries_model_message_and_settings(server):
    answer = ask(server.endpoint())
    assert (answer.text, answer.finish_reason) == ("What is red?", "stop")
    [request] = server.asked()
    assert request.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.7,
        "max_tokens": 20,
        "seed": 5,
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_parameters_add_to_a_request_and_null_takes_away(server):
    ask(
        server.endpoint(
            parameters={
                "max_tokens": None,
                "max_completion_tokens": 9,
                "seed": None,
                "reasoning_effort": "low",
            }
        )
    )
    body = server.asked()[0].body
    assert set(body) == {
        "model",
        "messages",
        "temperature",
        "max_completion_tokens",
        "reasoning_effort",
    }


def test_an_image_is_sent_along_as_a_data_url(server, tmp_path):
    image = tmp_path / "x.webp"
    image.write_bytes(b"RIFF")
    ask(server.endpoint(), image=image)
    content = server.asked()[0].body["messages"][0]["content"]
    assert content == [
        {"type": "image_url", "image_url": {"url": "data:image/webp;base64,UklGRg=="}},
        {"type": "text", "text": "hello"},
    ]


def test_no_key_is_needed_or_sent_where_none_is_configured(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ask(server.endpoint(api_key_variable=None))
    assert KEY not in json.dumps(server.asked()[0].headers)


@pytest.mark.parametrize(
    "fault",
    [
        error(500),
        error(503),
        error(429),
        Reply(200, "{not json"),
        Reply(200, "<html>login</html>", {"Content-Type": "text/html"}),
        Reply(200, {"choices": []}),
    ],
    ids=["500", "503", "429", "broken JSON", "HTML", "no choices"],
)
def test_a_fault_of_the_server_is_tried_again(server, fault):
    server.reply = in_order(fault, fault, completion("Is it red?"))
    assert ask(server.endpoint()).text == "Is it red?"
    assert len(server.asked()) == 3


def test_waits_grow_from_try_to_try(server, monkeypatch):
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.1)
    server.reply = in_order(error(500), error(500), completion("What is red?"))
    ask(server.endpoint())
    times = [request.time for request in server.asked()]
    assert times[1] - times[0] >= 0.1
    assert times[2] - times[1] >= 0.2


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks_by_all_threads(server):
    server.reply = in_order(error(429, headers={"Retry-After": "0.5"}), completion("What is red?"))
    with Client(server.endpoint(concurrency=4)) as client:
        ask_once = lambda _: client.ask("hello", temperature=0, max_tokens=1, seed=0)  # noqa: E731
        ask_once(0)  # its retry is over when the wait is
        first, second = (request.time for request in server.asked())
        assert second - first >= 0.5
        server.reply = in_order(
            error(429, headers={"Retry-After": "0.5"}), completion("What is red?")
        )
        server.requests.clear()
        with ThreadPoolExecutor(4) as pool:
            before = client._busy_until
            busy = pool.submit(ask_once, 0)
            while client._busy_until == before:  # until it has been told to wait
                time.sleep(0.01)
            list(pool.map(ask_once, range(3)))
            busy.result()
    times = [request.time for request in server.asked()]
    assert all(later - times[0] >= 0.5 for later in times[1:])


def test_as_many_requests_are_under_way_as_configured_and_no_more(server):
    server.delay = 0.3
    with Client(server.endpoint(concurrency=3)) as client:
        futures = [
            client.submit(lambda: client.ask("hello", temperature=0, max_tokens=1, seed=0))
            for _ in range(9)
        ]
        assert [future.result().text for future in futures] == ["What is red?"] * 9
    assert server.most_under_way == 3


def test_a_slow_answer_fails_its_item_with_the_limit_named(server):
    server.delay = 0.6
    with pytest.raises(ItemError, match=r"no answer after 2 tries: no answer within 0\.2 s"):
        ask(server.endpoint(timeout=0.2, retries=1))


@pytest.mark.parametrize(
    "fault", [error(500, "out of order"), error(429, "slow down"), Reply(200, "{not json")]
)
def test_one_request_that_never_works_fails_its_item_and_three_in_a_row_end_the_job(server, fault):
    server.reply = in_order(fault)
    with Client(server.endpoint(retries=1)) as client:
        for _ in range(2):
            with pytest.raises(ItemError, match="no answer after 2 tries"):
                client.ask("hello", temperature=0, max_tokens=1, seed=0)
        with pytest.raises(
            UserError, match=rf"{server.url}.*3 requests in a row.*what is finished is kept"
        ):
            client.ask("hello", temperature=0, max_tokens=1, seed=0)


def test_a_server_that_is_not_there_ends_the_job_with_its_address(server):
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(
        UserError, match=rf"{url} cannot be reached after 3 tries.*[Cc]onnect.*base_url"
    ):
        ask(server.endpoint(base_url=url))


def test_a_host_name_that_does_not_exist_ends_the_job_with_its_address(server):
    with pytest.raises(UserError, match=r"no-such-host\.invalid"):
        ask(server.endpoint(base_url="http://no-such-host.invalid/v1", retries=0))


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_ends_the_job_at_once_and_is_shown_nowhere(server, caplog, status):
    server.reply = in_order(error(status, f"Incorrect API key provided: {KEY}"))
    with pytest.raises(UserError, match="refuses the key in TEST_KEY") as caught:
        ask(server.endpoint())
    assert len(server.asked()) == 1
    assert KEY not in str(caught.value) + caplog.text


def test_the_key_is_in_no_log_line_even_if_the_server_repeats_it(server, caplog):
    caplog.set_level("DEBUG")
    server.reply = in_order(
        error(500, f"cannot use {KEY}"), Reply(200, f"{KEY}"), completion("What is red?")
    )
    ask(server.endpoint())
    assert "trying again" in caplog.text
    assert KEY not in "".join(
        record.getMessage() for record in caplog.records if record.name == "workflow"
    )


def test_a_missing_key_variable_is_named(server, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(
        UserError, match=r"environment variable TEST_KEY is not set.*export TEST_KEY="
    ):
        check_endpoint(server.endpoint())
    assert not server.requests


@pytest.mark.parametrize("key", ["two words", "schlüssel", "two\nlines"])
def test_a_key_that_cannot_be_one_is_refused_without_being_shown(server, monkeypatch, key):
    monkeypatch.setenv("TEST_KEY", key)
    with pytest.raises(UserError, match="TEST_KEY") as caught:
        check_endpoint(server.endpoint())
    assert key not in str(caught.value)


def test_an_address_that_holds_a_password_is_refused():
    with pytest.raises(ValidationError, match="holds a name or password"):
        Endpoint(base_url="https://me:secret@host/v1", model="m")


def test_an_unknown_model_ends_the_job_at_once(server):
    server.reply = in_order(error(404, "The model `m` does not exist"))
    with pytest.raises(UserError, match=r"knows no model 'm'.*does not exist"):
        ask(server.endpoint())
    assert len(server.asked()) == 1


def test_a_request_that_the_server_refuses_fails_its_item_at_once(server):
    server.reply = in_order(error(400, "content policy"))
    with pytest.raises(RefusedRequestError, match="HTTP 400: content policy"):
        ask(server.endpoint())
    assert len(server.asked()) == 1


def test_a_used_up_quota_is_not_waited_for(server):
    server.reply = in_order(
        error(429, "You exceeded your current quota", code="insufficient_quota")
    )
    with pytest.raises(UserError, match="no quota left"):
        ask(server.endpoint())
    assert len(server.asked()) == 1


def test_leaving_a_client_ends_its_waits(server, monkeypatch):
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 3600)
    server.reply = in_order(error(500))
    started = time.monotonic()
    with Client(server.endpoint()) as client:
        future = client.submit(lambda: client.ask("hello", temperature=0, max_tokens=1, seed=0))
        while not server.asked():
            time.sleep(0.01)
    assert time.monotonic() - started < 1800
    with pytest.raises(ItemError, match="stopped"):
        future.result()


# --------------------------------------------------------------------------------------------------


def test_an_endpoint_that_lists_the_model_is_fine_without_a_request(server):
    check_endpoint(server.endpoint())
    assert not server.asked()


@pytest.mark.parametrize("models", [error(404), listing()], ids=["no list", "not in the list"])
def test_where_the_list_does_not_tell_a_request_for_one_token_does(server, models):
    server.listing = models
    check_endpoint(server.endpoint())
    assert server.asked()[0].body["max_tokens"] == 1
    server.reply = in_order(error(400, "max_tokens is too small"))
    check_endpoint(server.endpoint())
    server.reply = in_order(error(404, "no such model"))
    with pytest.raises(UserError, match="knows no model 'm'"):
        check_endpoint(server.endpoint())


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (error(401, "who are you"), "refuses the key in TEST_KEY.*who are you"),
        (error(500, "out of order"), "HTTP 500: out of order"),
        (error(429, "slow down"), "HTTP 429: slow down"),
        (
            Reply(200, "<html>login</html>", {"Content-Type": "text/html"}),
            "not JSON, but '<html>login",
        ),
        (Reply(200, "{not json"), "not JSON"),
        (Reply(200, {"data": "nonsense"}), "not a list of models"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_before_the_run(server, models, message):
    server.listing = models
    with pytest.raises(UserError, match=message) as caught:
        check_endpoint(server.endpoint())
    assert server.url in str(caught.value)


def test_an_endpoint_that_is_not_there_is_refused_before_the_run(server):
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(UserError, match="cannot be reached"):
        check_endpoint(server.endpoint(base_url=url))
