"""The one client for OpenAI-compatible endpoints: concurrent, patient with busy servers, plain
about what is wrong.

What a user can mend (key, address, model name, a server that is down) is a UserError and ends the
job; what concerns one request only (a refused prompt) is an ItemError and fails that item. The key
comes from the environment and goes nowhere but into the request.

A server is not trusted: it gets a limited time for the whole of an answer, of limited size, may
send nobody elsewhere (lib/limited_http.py), and nothing that it says is shown as it came.
"""

import base64
import json
import math
import mimetypes
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

from lib.blocks import Endpoint
from lib.errors import ItemError, UserError, cannot_be_reached, printable
from lib.files import canonical_json
from lib.progress import log
from lib.secret import MEND, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

FIRST_WAIT = 1.0
LONGEST_WAIT = 120.0
#: So many requests in a row that fail for the server's sake, each after all its retries, mean that
#: the server is down.
FAILURES_IN_A_ROW = 3
CHECK_TIMEOUT = 15.0
#: Of what a server says, so many characters are looked through for the key, and then so many shown.
CHARACTERS_READ = 10_000
CHARACTERS_SHOWN = 300


@dataclass(frozen=True)
class Token:
    """A token of an answer, and those that could have stood in its place, each with the natural
    logarithm of its probability.
    """

    text: str
    log_probability: float
    alternatives: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """What came back: the text as it came, why it ended ("stop", "length", "content_filter"), and
    the model that the server says it is, and the tokens of the answer that it counts.

    said  its tokens, where `logprobs` was asked for and is given
    """

    text: str
    finish_reason: str
    model: str | None = None
    tokens: int | None = None
    said: Sequence[Token] = ()


class RefusedRequestError(ItemError):
    """The server accepts who asks, but not this request (HTTP 400, 413, 422, ...)."""


class _ServerError(Exception):
    """A failure that trying again may mend. `wait`: the seconds that the server asks for;
    `refused`: there is no connection at all.
    """

    def __init__(
        self, text: str, wait: float | None = None, refused: bool = False, busy: bool = False
    ) -> None:
        super().__init__(text)
        self.wait = wait
        self.refused = refused
        self.busy = busy


def read_key(endpoint: Endpoint) -> str:
    """The key from the environment. A missing or malformed one is a UserError that names the
    variable and never the key.
    """
    variable = endpoint.api_key_variable
    if variable is None:
        return "none"  # the client insists on a key, such a server ignores it
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"the environment variable {variable} is not set, and the endpoint {endpoint.base_url}"
            f" needs its key there. Run `export {variable}=...`, or set `api_key_variable: null`"
            " for a server that wants no key."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(
            f"the environment variable {variable} holds characters that no key has (a blank or a"
            " line break?). Correct it."
        )
    return key


def secret_of(endpoint: Endpoint) -> Secret:
    """What must not be shown of the endpoint's key, if it has one."""
    return Secret(os.environ.get(endpoint.api_key_variable or "", "").strip())


class Client:
    """A connection to an endpoint, with as many requests under way at once as configured. Use it in
    a `with` block.
    """

    def __init__(self, endpoint: Endpoint, timeout: float | None = None) -> None:
        """`timeout`: seconds, in place of the configured ones. Errors: UserError for a key that is
        missing, or stands in the configuration, too.
        """
        self.endpoint = endpoint
        key = read_key(endpoint)
        self._secret = secret_of(endpoint)
        for name, value in (("base_url", endpoint.base_url), ("parameters", endpoint.parameters)):
            if self._secret.is_in(canonical_json(value)):
                raise UserError(
                    f"`{name}` of an endpoint holds the key that is in {endpoint.api_key_variable}."
                    f" {MEND}."
                )
        # After what needs neither: a dry run that lacks a key waits for no library.
        import openai

        from lib.limited_http import LimitedClient

        self._timeout = timeout or endpoint.timeout
        self._openai = openai
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=endpoint.base_url,
            timeout=self._timeout,
            max_retries=0,
            http_client=LimitedClient(),
        )
        self._closing = ExitStack()
        self._pool = ThreadPoolExecutor(
            max_workers=endpoint.concurrency, thread_name_prefix="endpoint"
        )
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failures_in_a_row = 0
        self._busy_until = 0.0

    def __enter__(self) -> Self:
        from anyio.from_thread import start_blocking_portal

        # Requests go out from an event loop, since only there a whole answer can be given a time:
        # elsewhere it is from one piece of it to the next.
        self._loop = self._closing.enter_context(start_blocking_portal())
        self._closing.callback(self._loop.call, self._client.close)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._closing.close()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Calls a function that uses this client in one of its threads."""
        return self._pool.submit(function, *arguments)

    def ask(
        self,
        text: str,
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        image: Path | bytes | None = None,
        images: Sequence[Path] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> Answer:
        """One answer to one user message, with an image file, or several in order, if given.
        `image`: may be the content of a file, too.
        `parameters`: of the request, before those of the endpoint.

        Errors: ItemError where only this request failed; UserError where no other would fare
            better.
        """
        content: Any = text
        if shown := [*([image] if image is not None else []), *images]:
            content = [*map(_image_part, shown), {"type": "text", "text": text}]
        request: dict[str, Any] = {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
            **(parameters or {}),
            **self.endpoint.parameters,
        }
        request = {name: value for name, value in request.items() if value is not None}

        def once() -> Answer:
            # `extra_body`, since `parameters` may hold what this version of the client has no
            # argument for.
            text = self._text_of(
                partial(
                    self._client.chat.completions.with_raw_response.create,
                    model=self.endpoint.model,
                    messages=[{"role": "user", "content": content}],
                    extra_body=request,
                )
            )
            return self._answer_in(text)

        answer = self._patiently(once, self.endpoint.retries)
        with self._lock:
            self._failures_in_a_row = 0
        return answer

    def model_names(self) -> list[str] | None:
        """The models that the endpoint lists; None where it lists none. Errors as in `ask`."""

        def once() -> list[str] | None:
            try:
                text = self._text_of(self._client.models.with_raw_response.list)
            except self._openai.NotFoundError:
                return None
            page = self._json(text)
            data = page.get("data") if isinstance(page, dict) else None
            if not isinstance(data, list) or not all(
                isinstance(model, dict) and isinstance(model.get("id"), str) for model in data
            ):
                raise _ServerError(f"its answer is not a list of models, but {self._quoted(text)}")
            return [model["id"] for model in data]

        return self._patiently(once, 1)

    def _text_of(self, request: Callable[[], Awaitable[Any]]) -> str:
        """The whole answer to a request. Errors: TimeoutError where it takes longer than it may."""
        import anyio

        async def answer() -> str:
            with anyio.fail_after(self._timeout):
                response = await request()
            return str(response.http_response.text)

        return self._loop.call(answer)

    def _answer_in(self, text: str) -> Answer:
        """The first choice of a chat completion, read from its JSON; a _ServerError shows whatever
        else a server sends.
        """
        completion = self._json(text)
        try:
            choice = completion["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content"), message.get("refusal")
        except (AttributeError, IndexError, KeyError, TypeError):
            raise _ServerError(
                f"its answer is not a chat completion, but {self._quoted(text)}"
            ) from None
        if refusal:
            raise ItemError(f"the model refused: {self._shown(refusal)}")
        answer = content if isinstance(content, str) else ""
        if self._secret.is_in(answer):
            raise ItemError(
                f"the model's answer holds the key in {self.endpoint.api_key_variable}, or much of"
                " it, and is not kept"
            )
        model, reason = completion.get("model"), choice.get("finish_reason")
        return Answer(
            answer,
            self._shown(reason) if isinstance(reason, str) and reason else "stop",
            self._shown(model) if isinstance(model, str) else None,
            _tokens_in(completion),
            _said_in(choice),
        )

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise _ServerError(f"its answer is not JSON, but {self._quoted(text)}") from None
        except RecursionError:
            raise ItemError("its answer is JSON that is nested too deeply") from None

    def _patiently(self, once: Callable[[], T], retries: int) -> T:
        for attempt in range(retries + 1):
            self._wait_until_not_busy()
            try:
                with self._explaining_faults():
                    return once()
            except _ServerError as fault:
                if attempt == retries:
                    self._give_up(fault, retries)
                wait = min(
                    LONGEST_WAIT, FIRST_WAIT * 2**attempt if fault.wait is None else fault.wait
                )
                log.warning("%s: %s; trying again in %.1f s", self.endpoint.base_url, fault, wait)
                if fault.busy:  # then it is busy for every thread
                    with self._lock:
                        self._busy_until = max(self._busy_until, time.monotonic() + wait)
                else:
                    self._sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _wait_until_not_busy(self) -> None:
        while (wait := self._busy_until - time.monotonic()) > 0:
            self._sleep(wait)

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise ItemError("stopped before the endpoint answered")

    def _give_up(self, fault: _ServerError, retries: int) -> None:
        tries = f"after {retries + 1} tries" if retries else "at the first try"
        if fault.refused:
            raise cannot_be_reached(
                self.endpoint.base_url,
                f"the endpoint {self.endpoint.base_url} cannot be reached {tries}: {fault}. Start"
                " the server, or correct `base_url`; what is finished is kept.",
            ) from None
        with self._lock:
            self._failures_in_a_row += 1
            down = self._failures_in_a_row >= FAILURES_IN_A_ROW
        if down:
            raise UserError(
                f"the endpoint {self.endpoint.base_url} failed {FAILURES_IN_A_ROW} requests in a"
                f" row, each {tries}; the last one: {fault}. Run again when it answers (fewer"
                " requests at once: `concurrency`; more patience: `timeout`, `retries`); what is"
                " finished is kept."
            ) from None
        raise ItemError(f"no answer {tries}: {fault}") from None

    @contextmanager
    def _explaining_faults(self) -> "Iterator[None]":
        """Turns the client library's exceptions into UserErrors, ItemErrors and faults worth
        another try; none shows the key.
        """
        openai, endpoint = self._openai, self.endpoint
        try:
            yield
        except (openai.APITimeoutError, TimeoutError):
            raise _ServerError(f"no answer within {self._timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise _ServerError(
                self._shown(error.__cause__ or error), refused=not _broke_off(error.__cause__)
            ) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(
                f"the endpoint {endpoint.base_url} refuses the key in"
                f" {endpoint.api_key_variable or '(no key is configured)'} (HTTP"
                f" {error.status_code}): {self._message_of(error)}. Put a valid key into the"
                " environment variable that `api_key_variable` names."
            ) from None
        except openai.NotFoundError as error:
            raise UserError(
                f"the endpoint {endpoint.base_url} knows no model '{endpoint.model}' (HTTP 404):"
                f" {self._message_of(error)}. Correct `model`, or `base_url` (it ends in /v1 for"
                " most servers)."
            ) from None
        except openai.APIStatusError as error:
            if 300 <= error.status_code < 400:
                raise UserError(self._redirection(error)) from None
            text = f"HTTP {error.status_code}: {self._message_of(error)}"
            if getattr(error, "code", None) == "insufficient_quota":
                raise UserError(
                    f"the endpoint {endpoint.base_url} has no quota left for this key ({text}). Add"
                    " credit, or use another key."
                ) from None
            if error.status_code in (408, 409, 429) or error.status_code >= 500:
                raise _ServerError(
                    text,
                    _retry_after(error.response.headers.get("retry-after")),
                    busy=error.status_code in (429, 503),
                ) from None
            raise RefusedRequestError(
                f"{text} (if the server does not take a parameter, change it with the endpoint's"
                " `parameters`)"
            ) from None

    def _message_of(self, error: Any) -> str:
        body = error.body
        return self._shown(
            body.get("message") or body.get("detail") or body
            if isinstance(body, dict)
            else body or error.message
        )

    def _redirection(self, error: Any) -> str:
        """What is wrong with a server that sends its requests elsewhere."""
        base = self.endpoint.base_url
        try:
            place = urlsplit(urljoin(base, error.response.headers.get("location", "")))
            there = f"{place.scheme}://{place.hostname}" + (f":{place.port}" if place.port else "")
        except ValueError:
            there = "what is no address"
        return (
            f"the endpoint {base} sends its requests on (HTTP {error.status_code}), to"
            f" {self._shown(there)}; they are not sent there. If that is where they belong, put its"
            " address into `base_url`."
        )

    def _shown(self, said: Any) -> str:
        """What a server says, on one line, as it may be shown: without the key, without control
        characters, and then cut.
        """
        try:
            text = str(said)
        except RecursionError:
            return "(what it says is nested too deeply)"
        text = self._secret.redacted(" ".join(text[:CHARACTERS_READ].split()))
        return printable(text)[:CHARACTERS_SHOWN]

    def _quoted(self, said: str) -> str:
        return repr(self._shown(said)[:100])


def _tokens_in(completion: Any) -> int | None:
    """The tokens of an answer, as far as the server counts them."""
    usage = completion.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if type(tokens) is int and tokens >= 0 else None


def _said_in(choice: Mapping[str, Any]) -> list[Token]:
    """The tokens of an answer with their probabilities, as far as the server tells them."""
    told = choice.get("logprobs")
    tokens = told.get("content") if isinstance(told, dict) else None
    said = []
    for token in tokens if isinstance(tokens, list) else []:
        own = _log_probability_in(token)
        if own is None:
            return []
        others = token.get("top_logprobs")
        found = map(_log_probability_in, others if isinstance(others, list) else [])
        said.append(Token(*own, dict(each for each in found if each)))
    return said


def _log_probability_in(entry: Any) -> tuple[str, float] | None:
    """The text of a token and the logarithm of its probability; None where that is none."""
    if not isinstance(entry, dict):
        return None
    text, value = entry.get("token"), entry.get("logprob")
    if not isinstance(text, str) or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Rounding may leave one a little above 0.
    return (text, min(float(value), 0.0)) if -math.inf < value < 1 else None


def _broke_off(cause: BaseException | None) -> bool:
    """Whether there was a connection to the server, which failed later."""
    import httpx2

    return isinstance(
        cause,
        httpx2.ReadError | httpx2.WriteError | httpx2.RemoteProtocolError | httpx2.DecodingError,
    )


def _image_part(image: Path | bytes) -> dict[str, Any]:
    """An image file, or the content of a PNG file, as a data URL in a message."""
    kind = "image/png"
    if isinstance(image, Path):
        kind = mimetypes.guess_type(image.name)[0] or kind
        image = image.read_bytes()
    url = f"data:{kind};base64,{base64.b64encode(image).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None  # a date that is none


def check_endpoint(endpoint: Endpoint) -> None:
    """Raises a UserError if the endpoint cannot be used, before any GPU is asked for.

    Its list of models is read; where that does not name the configured model (some servers have
    aliases, some have no list), a request for one token decides.
    """
    with Client(endpoint, timeout=CHECK_TIMEOUT) as client:
        try:
            names = client.model_names()
            if names is None or endpoint.model not in names:
                client.ask("Answer with one word: ready?", temperature=0, max_tokens=1, seed=0)
        except RefusedRequestError:
            # it is there and knows the key and the model; what it asks for is shown by a real
            # request
            return
        except ItemError as error:
            raise UserError(
                f"the endpoint {endpoint.base_url} does not work: {error}. Correct `base_url` (it"
                " ends in /v1 for most servers), or run again when the server answers."
            ) from None
