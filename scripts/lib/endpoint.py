"""The one client for OpenAI-compatible endpoints: concurrent, patient with busy servers, plain
about what is wrong.

What a user can mend (key, address, model name, a server that is down) is a UserError and ends the
job; what concerns one request only (a refused prompt) is an ItemError and fails that item. The key
comes from the environment and goes nowhere but into the request.
"""

import base64
import json
import mimetypes
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lib.blocks import Endpoint
from lib.errors import ItemError, UserError, cannot_be_reached
from lib.progress import log

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

FIRST_WAIT = 1.0
LONGEST_WAIT = 120.0
#: So many requests in a row that fail for the server's sake, each after all its retries, mean that
#: the server is down.
FAILURES_IN_A_ROW = 3
CHECK_TIMEOUT = 15.0


@dataclass(frozen=True)
class Answer:
    """What came back: the text as it came, why it ended ("stop", "length", "content_filter"), and
    the model that the server says it is.
    """

    text: str
    finish_reason: str
    model: str | None = None


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


class Client:
    """A connection to an endpoint, with as many requests under way at once as configured. Use it in
    a `with` block.
    """

    def __init__(self, endpoint: Endpoint, timeout: float | None = None) -> None:
        """`timeout`: seconds, in place of the configured ones. Errors: UserError for a missing
        key.
        """
        import openai

        self.endpoint = endpoint
        self._key = read_key(endpoint)
        self._timeout = timeout or endpoint.timeout
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=self._key, base_url=endpoint.base_url, timeout=self._timeout, max_retries=0
        )
        self._pool = ThreadPoolExecutor(
            max_workers=endpoint.concurrency, thread_name_prefix="endpoint"
        )
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failures_in_a_row = 0
        self._busy_until = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

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
        image: Path | None = None,
        images: Sequence[Path] = (),
    ) -> Answer:
        """One answer to one user message, with an image file, or several in order, if given.

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
            **self.endpoint.parameters,
        }
        request = {name: value for name, value in request.items() if value is not None}

        def once() -> Answer:
            # `extra_body`, since `parameters` may hold what this version of the client has no
            # argument for.
            response = self._client.chat.completions.with_raw_response.create(
                model=self.endpoint.model,
                messages=[{"role": "user", "content": content}],
                extra_body=request,
            )
            return _answer_of(response.http_response.text)

        answer = self._patiently(once, self.endpoint.retries)
        with self._lock:
            self._failures_in_a_row = 0
        return answer

    def model_names(self) -> list[str] | None:
        """The models that the endpoint lists; None where it lists none. Errors as in `ask`."""

        def once() -> list[str] | None:
            try:
                text = self._client.models.with_raw_response.list().http_response.text
            except self._openai.NotFoundError:
                return None
            page = _json(text)
            data = page.get("data") if isinstance(page, dict) else None
            if not isinstance(data, list) or not all(
                isinstance(model, dict) and isinstance(model.get("id"), str) for model in data
            ):
                raise _ServerError(f"its answer is not a list of models, but {_shown(text)}")
            return [model["id"] for model in data]

        return self._patiently(once, 1)

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
        except openai.APITimeoutError:
            raise _ServerError(f"no answer within {self._timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise _ServerError(
                self._redacted(f"{error.__cause__ or error}"), refused=True
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
        except _ServerError as error:
            raise _ServerError(self._redacted(str(error))) from None

    def _message_of(self, error: Any) -> str:
        body = error.body
        message = (
            body.get("message") or body.get("detail") or body
            if isinstance(body, dict)
            else body or error.message
        )
        return self._redacted(" ".join(str(message).split())[:300])

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "***") if self.endpoint.api_key_variable else text


def _image_part(image: Path) -> dict[str, Any]:
    """An image file as a data URL in a message."""
    kind = mimetypes.guess_type(image.name)[0] or "image/png"
    url = f"data:{kind};base64,{base64.b64encode(image.read_bytes()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _answer_of(text: str) -> Answer:
    """The first choice of a chat completion, read from its JSON; a _ServerError shows whatever else
    a server sends.
    """
    completion = _json(text)
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (AttributeError, IndexError, KeyError, TypeError):
        raise _ServerError(f"its answer is not a chat completion, but {_shown(text)}") from None
    if refusal:
        raise ItemError(f"the model refused: {' '.join(str(refusal).split())[:200]}")
    model = completion.get("model")
    return Answer(
        content if isinstance(content, str) else "",
        str(choice.get("finish_reason") or "stop"),
        model if isinstance(model, str) else None,
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _ServerError(f"its answer is not JSON, but {_shown(text)}") from None


def _shown(text: str) -> str:
    return repr(" ".join(text.split())[:100])


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
    except ValueError:
        return None


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
