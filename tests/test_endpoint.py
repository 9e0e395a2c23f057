"""Endpoints: a busy server is waited for, a mistake is told plainly and early, and the key goes
nowhere but into the request.
"""

import gzip
import json
import re
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
from pydantic import ValidationError

import lib.endpoint
from chat_server import (
    ChatServer,
    Reply,
    closed_port,
    completion,
    error,
    in_order,
    listing,
    refusal,
)
from lib.blocks import Block, Endpoint, first_mistake
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


# --------------------------------------------------------------------------------------------------
# Servers that are not friendly.


def fail(endpoint, what, kind=ItemError):
    with Client(endpoint) as client:
        return failure(client, what, kind)


def failure(client, what=".", kind=(ItemError, UserError)):
    """The message of a request that fails, which a terminal may show."""
    with pytest.raises(kind, match=what) as caught:
        client.ask("hello", temperature=0.7, max_tokens=20, seed=5)
    assert not control_characters_in(str(caught.value))
    return str(caught.value)


def control_characters_in(text):
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)


def pieces_of_key():
    return [KEY[start : start + 10] for start in range(len(KEY) - 9)]


def test_no_half_of_the_key_is_left_where_a_message_is_cut(server):
    with Client(server.endpoint(retries=0)) as client:
        for before in (*range(80, 110, 3), *range(270, 310, 3)):
            said = "x" * before + f" {KEY} {KEY}"
            for reply in (error(400, said), refusal(said), Reply(200, said), Reply(200, [said])):
                server.reply = in_order(reply)
                text = failure(client)
                assert not [piece for piece in pieces_of_key() if piece in text]


@pytest.mark.parametrize(
    "said",
    [
        f"I cannot help with {KEY}.",
        f"Your key ends in {KEY[8:]}",
        f"{KEY[:12]}...",
        " ".join(KEY),
        KEY.upper(),
        KEY.replace("-", "%2D"),
        "".join(f"\\u{ord(letter):04x}" for letter in KEY),
        f"{KEY[:10]}\n{KEY[10:]}",
        "\x1b[1m".join(KEY),
    ],
    ids=["whole", "end", "begin", "spaced", "capitals", "URL", "escaped", "two lines", "bold"],
)
def test_a_server_that_repeats_the_key_has_nothing_of_it_published(server, caplog, said):
    replies = (
        refusal(said),
        error(400, said),
        error(401, said),
        error(404, said),
        error(429, said, code="insufficient_quota"),
        error(500, said),
        Reply(500, said),
        Reply(200, said),
        Reply(307, "", {"Location": f"http://elsewhere.invalid/?key={KEY}"}),
        Reply(307, "", {"Location": f"http://{KEY}.invalid/"}),
    )
    texts = []
    with Client(server.endpoint(retries=1)) as client:
        for reply in replies:
            server.reply = in_order(reply)
            texts.append(failure(client))
    texts += [each.getMessage() for each in caplog.records if each.name == "workflow"]
    assert not [piece for piece in pieces_of_key() if piece in "".join(texts)]
    assert not [text for text in texts if folded(KEY) in folded(text)]


def folded(text):
    return re.sub(r"[\W_]", "", text.replace("[1m", "")).casefold()


@pytest.mark.parametrize("said", [f"It is {KEY}!", KEY[:12], " ".join(KEY)])
def test_an_answer_that_holds_the_key_fails_its_item(server, said):
    server.reply = lambda body: said
    text = fail(server.endpoint(), "answer holds the key in TEST_KEY")
    assert said not in text
    assert len(server.asked()) == 1


def test_the_model_s_name_and_the_reason_to_stop_show_no_key_and_no_control_character(server):
    server.reply = lambda body: completion("Is it?", f"stop\x1b[2J{KEY}", f"m\x9b31m{KEY}\ud800")
    answer = ask(server.endpoint())
    said = f"{answer.model}{answer.finish_reason}"
    assert (KEY in said, control_characters_in(said)) == (False, [])


def test_a_word_that_stands_for_no_key_may_stand_in_an_answer(server, monkeypatch):
    for key in ("none", "EMPTY", "local-development"):
        monkeypatch.setenv("TEST_KEY", key)
        server.reply = lambda body: "none; EMPTY; development"
        assert ask(server.endpoint()).text == "none; EMPTY; development"


SECRETS = [
    {"base_url": "https://me:secret-word@host/v1"},
    {"base_url": "https://me%40secret-word@host/v1"},
    {"base_url": "me:secret-word@host/v1"},
    {"base_url": "https://host/v1?api_key=secret-word"},
    {"base_url": "https://host/v1?x=1&API-Key=secret-word"},
    {"base_url": "https://host/v1?key=secret-word"},
    {"base_url": "https://host/v1?access%5Ftoken=secret-word"},
    {"base_url": "https://host/v1#token=secret-word"},
    {"base_url": "https://host/sk-secret-word-123/v1"},
    {"parameters": {"api_key": "secret-word"}},
    {"parameters": {"apiKey": "secret-word"}},
    {"parameters": {"Authorization": "secret-word"}},
    {"parameters": {"headers": {"x": "secret-word"}}},
    {"parameters": {"extra_headers": {"x": "secret-word"}}},
    {"parameters": {"extra_body": {"token": "secret-word"}}},
    {"parameters": {"extra_query": {"key": "secret-word"}}},
    {"parameters": {"metadata": [{"x": {"password": "secret-word"}}]}},
    {"parameters": {"user": "sk-secret-word-123"}},
    {"parameters": {"user": "Bearer secret-word"}},
    {"api_key": "secret-word"},
    {"headers": {"Authorization": "secret-word"}},
    {"api_key_variable": "sk-secret-word-123"},
    {"api_key_variable": "gsk_secretsecretsecret1"},
    {"api_key_variable": "a8secretword0000000000word"},
]


@pytest.mark.parametrize("settings", SECRETS, ids=json.dumps)
def test_a_key_in_the_configuration_is_refused_with_one_message_that_does_not_show_it(settings):
    with pytest.raises(ValidationError, match="environment variable") as caught:
        Endpoint.model_validate({"base_url": "https://host/v1", "model": "m", **settings})
    _, mistake = first_mistake(caught.value)
    assert "no key may stand in it" in mistake
    assert "`api_key_variable`" in mistake
    assert "secret" not in mistake.replace("secretword", "secret")


@pytest.mark.parametrize(
    "settings", [{"base_url": f"https://host/{KEY}/v1"}, {"parameters": {"user": f"x{KEY}"}}]
)
def test_the_key_of_the_environment_is_refused_in_the_configuration_however_it_looks(
    server, monkeypatch, settings
):
    key = "aWordThatLooksLikeNoKey"
    monkeypatch.setenv("TEST_KEY", key)
    endpoint = server.endpoint(**json.loads(json.dumps(settings).replace(KEY, key)))
    with pytest.raises(UserError, match=r"holds the key that is in TEST_KEY") as caught:
        check_endpoint(endpoint)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["https://me:secret@host/v1", "https://host/v1?key=secret", "sk-secret-word-123"]
)
def test_a_key_that_stands_in_a_wrong_place_is_not_shown(value):
    class Judge(Block):
        endpoint: Endpoint
        count: int = 0

    right = {"base_url": "https://host/v1", "model": "m"}
    for wrong in ({"endpoint": value}, {"endpoint": right, "count": value}):
        with pytest.raises(ValidationError) as caught:
            Judge.model_validate(wrong)
        assert "secret" not in first_mistake(caught.value)[1]


@pytest.mark.parametrize(
    "address",
    [
        "https://[::1",
        "https://host:99999/v1",
        "https://host:key/v1",
        "https://",
        "http://a b",
        "\x1b",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_shown(address):
    with pytest.raises(ValidationError, match="`base_url` is not an address") as caught:
        Endpoint(base_url=address, model="m")
    assert address not in first_mistake(caught.value)[1].replace("https://api", "")


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "https://x.azure.com/openai?api-version=2024-10-21"},
        {"base_url": "https://sk-learn-models.org/v1", "model": "hf-internal-testing/tiny"},
        {"parameters": {"max_tokens": 5, "prompt_cache_key": "a", "stop_token_ids": [1]}},
        {"parameters": {"response_format": {"schema": {"properties": {"token": {"type": "x"}}}}}},
        {"api_key_variable": "MY_KEY_2"},
        {"api_key_variable": None},
    ],
    ids=json.dumps,
)
def test_what_is_no_key_may_be_configured(settings):
    Endpoint.model_validate({"base_url": "https://host/v1", "model": "m", **settings})


def test_nothing_is_sent_to_another_host(server):
    other = ChatServer(lambda body: "What is red?")
    places = (other.url, other.url.replace("http://", "//"), "https://127.0.0.1/")
    try:
        with Client(server.endpoint()) as client:
            for status in (301, 302, 303, 307, 308):
                for place in places:
                    headers = {"Location": f"{place}/chat/completions"}
                    server.reply = in_order(Reply(status, "", headers))
                    text = failure(client, "sends its requests on", UserError)
                    assert "base_url" in text
        server.listing = Reply(307, "", {"Location": f"{other.url}/models"})
        with pytest.raises(UserError, match="sends its requests on"):
            check_endpoint(server.endpoint())
        assert not other.requests
    finally:
        other.close()


def test_a_redirect_on_the_same_server_is_followed_but_not_for_ever(server):
    there = Reply(308, "", {"Location": "/v1/chat/completions"})
    server.reply = in_order(there, completion("What is red?"))
    assert ask(server.endpoint()).text == "What is red?"
    assert server.bodies()[0] == server.bodies()[1]
    server.reply = in_order(there)
    fail(server.endpoint(), "sends its requests on", UserError)


def dripping(first, again, seconds=0.05):
    def pieces():
        yield first
        while True:
            time.sleep(seconds)
            yield again

    return pieces


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, dripping(b'{"choices": [', b" ")),
        Reply(500, dripping(b"out of", b" order")),
        Reply(0, dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x")),
        Reply(0, dripping(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n")),
        Reply(200, dripping(b"", b"5\r\n     \r\n"), {"Transfer-Encoding": "chunked"}),
    ],
    ids=["blanks", "an error", "a header", "promises", "chunks"],
)
def test_an_answer_that_comes_byte_by_byte_and_never_ends_is_given_up_in_time(server, reply):
    server.reply = in_order(reply)
    started = time.monotonic()
    fail(server.endpoint(timeout=0.6, retries=0), r"no answer within 0\.6 s")
    assert time.monotonic() - started < 60  # the server would never end


def endless(piece):
    def pieces():
        while True:
            yield piece

    return pieces


@cache
def bomb(window):
    """100 MB of blanks in less than one, as gzip (window 31) or zlib (15)."""
    packer = zlib.compressobj(1, wbits=window)
    return b"".join(packer.compress(b" " * 2**20) for _ in range(100)) + packer.flush()


def bombs(window):
    return lambda: [bomb(window)]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, endless(b" " * 2**16)),
        Reply(500, endless(b" " * 2**16)),
        Reply(200, " " * 5_000_000),
        Reply(200, bombs(31), {"Content-Encoding": "gzip"}),
        Reply(400, bombs(31), {"Content-Encoding": "gzip"}),
        Reply(200, bombs(15), {"Content-Encoding": "deflate"}),
        Reply(200, gzip.compress(b"{}") + b"\0" * 5_000_000, {"Content-Encoding": "gzip"}),
    ],
    ids=["endless", "endless error", "large", "bomb", "bomb error", "deflate", "tail"],
)
def test_an_answer_that_is_too_large_packed_or_unpacked_fails_its_item(server, reply):
    server.reply = in_order(reply)
    tracemalloc.start()
    try:
        with Client(server.endpoint(timeout=60)) as client:
            for _ in range(lib.endpoint.FAILURES_IN_A_ROW + 1):
                with pytest.raises(ItemError, match="larger than 4 MB"):
                    client.ask("hello", temperature=0, max_tokens=1, seed=0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 60e6


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "zstd", "x" * 5000])
def test_a_coding_that_was_not_asked_for_is_not_unpacked(server, coding):
    server.reply = in_order(
        Reply(200, gzip.compress(gzip.compress(b"{}")), {"Content-Encoding": coding})
    )
    fail(server.endpoint(), "was not asked for")


def test_an_answer_that_comes_packed_is_read(server):
    for coding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)):
        data = pack(json.dumps(completion("What is red?").content).encode())
        server.reply = in_order(Reply(200, data, {"Content-Encoding": coding}))
        assert ask(server.endpoint()).text == "What is red?"


def test_an_alphabet_that_unpacks_is_not_heard(server):
    headers = {"Content-Type": "application/json; charset=zlib"}
    server.reply = in_order(Reply(200, bombs(15), headers))
    fail(server.endpoint(retries=0, timeout=60), "not JSON")


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, DEEP),
        Reply(200, DEEP + "]" * 200_000),
        Reply(200, '{"a":' * 200_000),
        Reply(200, '{"choices":' + DEEP),
        Reply(400, DEEP),
        Reply(400, '{"error": {"message": ' + "[" * 900 + "]" * 900 + "}}"),
        Reply(200, '{"choices": [{"message": {"refusal": ' + "[" * 900 + "]" * 900 + "}}]}"),
        refusal("no\x00\x1b]0;you\x07\x9b31m\ud800\r"),
        error(400, "no\x00\x1b]0;you\x07\x9b31m\ud800\r"),
    ],
    ids=["open", "closed", "objects", "choices", "error", "message", "refusal", "escapes", "said"],
)
def test_a_reply_that_no_parser_likes_costs_its_item_and_never_the_job(server, reply):
    good = completion("What is red?")
    server.reply = in_order(*[reply] * 5, good)
    with Client(server.endpoint(retries=0)) as client:
        for _ in range(5):
            with pytest.raises(ItemError) as caught:
                client.ask("hello", temperature=0, max_tokens=1, seed=0)
            assert not control_characters_in(str(caught.value))
        assert client.ask("hello", temperature=0, max_tokens=1, seed=0).text == "What is red?"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(0, lambda: [b"\x00\x1b[31m nonsense\r\n\r\n"]),
        Reply(0, lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]),
        Reply(0, lambda: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]),
        Reply(0, list),
        Reply(200, b"no gzip", {"Content-Encoding": "gzip"}),
    ],
    ids=["no HTTP", "cut off", "no chunks", "nothing", "no gzip"],
)
def test_an_answer_that_breaks_off_is_tried_again_and_fails_its_item(server, reply):
    server.reply = in_order(reply, completion("What is red?"))
    assert ask(server.endpoint()).text == "What is red?"
    server.reply = in_order(reply)
    fail(server.endpoint(retries=1), "no answer after 2 tries")


@pytest.mark.parametrize(
    "wait", ["nan", "-1", "soon", "Mon, 01 Jan 0001 00:00:00 -0000", "Mon, 40 Foo 99999", "1e400"]
)
def test_a_wait_that_is_none_is_not_obeyed(server, monkeypatch, wait):
    monkeypatch.setattr(lib.endpoint, "LONGEST_WAIT", 0.1)
    server.reply = in_order(error(429, headers={"Retry-After": wait}), completion("What is red?"))
    assert ask(server.endpoint()).text == "What is red?"
