"""The HTTP client under the endpoints' client: it sends nothing elsewhere than it was told to, and
takes in no more than an answer can be.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx2

from lib.errors import ItemError

#: Of an answer, as it comes and unpacked. The longest list of models takes one of them.
MOST_MEGABYTES = 4
MOST_BYTES = MOST_MEGABYTES * 2**20
#: Codings that are unpacked piece by piece.
CODINGS = ("gzip", "deflate")
MOST_REDIRECTS = 3
#: The headers of an answer that say something to its reader.
KEPT_HEADERS = ("location", "retry-after")


class LimitedClient(httpx2.AsyncClient):
    """Sends a request to the host that it is for and no other, and reads the whole answer, if that
    is no larger than `MOST_BYTES`, packed or unpacked.
    """

    def __init__(self) -> None:
        # How many requests are under way is the caller's concern.
        super().__init__(
            headers={"Accept-Encoding": ", ".join(CODINGS)},
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        """The answer, read; a redirect to elsewhere is the answer. Errors: ItemError for one that
        is too large.
        """
        options["follow_redirects"] = False
        response = await super().send(request, stream=True, **options)
        for _ in range(MOST_REDIRECTS):
            following = response.next_request
            if following is None or not _is_same(request, following):
                break
            await response.aclose()
            request = following
            response = await super().send(request, stream=True, **options)
        try:
            return await _read(request, response)
        finally:
            await response.aclose()


def _is_same(request: httpx2.Request, following: httpx2.Request) -> bool:
    """Whether a redirect leads to the same server, and asks it the same."""
    here, there = request.url, following.url
    return (here.scheme, here.host, here.port, request.method) == (
        there.scheme,
        there.host,
        there.port,
        following.method,
    )


async def _read(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    """The answer with all of its content. What it says of its alphabet is not heard: JSON is
    UTF-8, and Python's other alphabets unpack, too.
    """
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity", *CODINGS):
        raise ItemError(f"its answer comes in the coding {coding[:40]!r}, which was not asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Counted(response.stream)
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        _refuse_too_large(len(content))
    kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    return httpx2.Response(
        response.status_code, headers=kept, content=bytes(content), request=request
    )


class _Counted(httpx2.AsyncByteStream):
    """An answer's bytes as they come, up to `MOST_BYTES`."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            _refuse_too_large(size)
            yield piece

    async def aclose(self) -> None:
        """Lets go of the connection."""
        await self._stream.aclose()


def _refuse_too_large(size: int) -> None:
    if size > MOST_BYTES:
        raise ItemError(f"its answer is larger than {MOST_MEGABYTES} MB, and was not read on")
