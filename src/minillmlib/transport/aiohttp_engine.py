"""The aiohttp engine: the only module that knows an HTTP library."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from minillmlib.errors import (
    ConnectError,
    InvalidParameterError,
    MiniLLMError,
    ReadError,
    StaleConnectionError,
    TlsError,
)
from minillmlib.transport.contract import HttpRequest

__all__ = ["AiohttpTransport"]

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

CONNECT_TIMEOUT_SECS = 10.0

# A connection that was closed before shows it within a round trip. What fails later failed at
# work, and to send it again could cost twice.
STALE_SECS = 1.0

# Holds something once the request at work has opened a connection of its own.
_opened: ContextVar[list[bool]] = ContextVar("_opened")

# First match wins, so subclasses stand before their bases.
_ERRORS: tuple[tuple[type[BaseException], type[MiniLLMError], str], ...] = (
    (aiohttp.ClientSSLError, TlsError, "TLS failed with"),
    (aiohttp.ClientConnectorError, ConnectError, "could not connect to"),
    (aiohttp.ConnectionTimeoutError, ConnectError, "no connection within 10 s to"),
    (aiohttp.InvalidURL, InvalidParameterError, "not a usable address:"),
    (aiohttp.ClientResponseError, ReadError, "no valid HTTP answer from"),
    (aiohttp.ServerDisconnectedError, ReadError, "the server hung up without an answer:"),
    (aiohttp.ClientPayloadError, ReadError, "the answer broke off before its end:"),
    (aiohttp.ClientError, ReadError, "the connection broke:"),
    (OSError, ReadError, "the connection broke:"),
)
_FOREIGN = (aiohttp.ClientError, OSError)


class AiohttpTransport:
    """Sends through aiohttp, with one connection pool per event loop and process.

    A pool closes with its loop's asynchronous generators, which `asyncio.run` and every other
    well-behaved runner shuts down; nobody has to close anything.
    """

    def __init__(self) -> None:
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def send(self, request: HttpRequest) -> _AiohttpResponse:
        """Sends `request` once. See `Transport.send`."""
        session = await self._session()
        # A kept connection that the server has closed is noticed only in the loop's next turn.
        await asyncio.sleep(0)
        opened: list[bool] = []
        _opened.set(opened)
        started = time.monotonic()
        try:
            response = await session.post(
                request.url, headers=request.headers, data=request.body, allow_redirects=False
            )
        except _FOREIGN as error:
            # Foreign errors may hold the request's headers, so they are not chained.
            failure = _translated(error, request.url)
            if (
                not opened
                and type(failure) is ReadError
                and time.monotonic() < started + STALE_SECS
            ):
                raise StaleConnectionError(str(failure)) from None
            raise failure from None
        return _AiohttpResponse(response, request.url)

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None or pool.process_id != os.getpid():
            self._forget_closed_loops()
            pool = self._pools[loop] = _Pool()
            await pool.open()
        return pool.session

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._pools if loop.is_closed()]:
            del self._pools[loop]


class _Connector(aiohttp.TCPConnector):
    """Tells the request at work when it gets a connection of its own instead of a kept one."""

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of the base class
    ) -> ResponseHandler:
        _opened.get().append(True)
        return await super()._create_connection(req, traces, timeout)


class _Pool:
    """A session that ends with the event loop it was made in."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.session = aiohttp.ClientSession(
            connector=_Connector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
        )
        self._owner = self._own()

    async def open(self) -> None:
        """Starts the generator, so that the loop knows it and closes it at shutdown."""
        await anext(self._owner)

    async def _own(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.session.close()


class _AiohttpResponse:
    """An `HttpResponse` over aiohttp's."""

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self._response = response
        self._url = url

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self._response.headers.items()}

    async def read(self) -> bytes:
        try:
            return await self._response.content.readany()
        except _FOREIGN as error:
            raise _translated(error, self._url) from None

    def close(self) -> None:
        self._response.close()


def _translated(error: BaseException, url: str) -> MiniLLMError:
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    for foreign, ours, what in _ERRORS:
        if isinstance(error, foreign):
            return ours(f"{what} {origin}{_reason(error)}")
    raise AssertionError(error)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "os_error", error)
    reason = getattr(cause, "strerror", None) or getattr(cause, "reason", None)
    return f" ({reason})" if isinstance(reason, str) and reason else ""
