"""The aiohttp engine: the only module that knows an HTTP library."""

import asyncio
import io
import os
import select
import socket
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

import aiohttp

from minillmlib.errors import (
    ConnectError,
    InvalidParameterError,
    MiniLLMError,
    ProtocolError,
    ReadError,
    StaleConnectionError,
    TlsError,
)
from minillmlib.transport.base import Departure, HttpRequest
from minillmlib.transport.origin import origin_of_url

__all__ = ["AiohttpTransport"]

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

CONNECT_TIMEOUT_SECS = 10.0
LARGE_BYTES = 1024 * 1024  # from here on bit by bit, so that the loop goes on meanwhile

# A connection that was closed before shows it within a round trip. What fails later failed at
# work, and to send it again could cost twice.
STALE_SECS = 1.0


class _Passage:
    """The request at work, for aiohttp's parts that we changed, and what they tell of it.

    `body` is what is written behind its headers; aiohttp writes those that it was given itself.
    """

    __slots__ = ("body", "departure", "has_own_connection")

    def __init__(self, departure: Departure, body: bytes) -> None:
        self.departure = departure
        self.body = body
        self.has_own_connection = False


_passage: ContextVar[_Passage] = ContextVar("_passage")

# First match wins, so subclasses stand before their bases.
_ERRORS: tuple[tuple[type[BaseException], type[MiniLLMError], str], ...] = (
    (aiohttp.ClientSSLError, TlsError, "no valid TLS (is it an http address?) at"),
    (aiohttp.ClientConnectorError, ConnectError, "could not connect to"),
    (aiohttp.ConnectionTimeoutError, ConnectError, "no connection within 10 s to"),
    (aiohttp.InvalidURL, InvalidParameterError, "not a usable address:"),
    (aiohttp.ClientResponseError, ProtocolError, "no valid HTTP answer from"),
    (aiohttp.ServerDisconnectedError, ReadError, "the server hung up without an answer:"),
    (aiohttp.ClientPayloadError, ReadError, "the answer broke off before its end:"),
    (aiohttp.ClientError, ReadError, "the connection broke:"),
    (OSError, ReadError, "the connection broke:"),
    (ValueError, InvalidParameterError, "not a usable address or header for"),
    (RuntimeError, ReadError, "the event loop is being shut down; nothing can be sent to"),
)
_FOREIGN = (aiohttp.ClientError, OSError, ValueError, RuntimeError)


class AiohttpTransport:
    """Sends through aiohttp, with one connection pool per event loop and process.

    A pool closes with its loop's asynchronous generators, which `asyncio.run` and every other
    well-behaved runner shuts down; nobody has to close anything.
    """

    def __init__(self) -> None:
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def send(self, request: HttpRequest) -> "_AiohttpResponse":
        """Sends `request` once. See `Transport.send`."""
        request.departure.may_have_left = False
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None or pool.process_id != os.getpid() or pool.session.closed:
            pool = await self._new_pool(loop)
        session = pool.single_use if request.on_new_connection else pool.session
        body, headers = request.body, request.headers
        is_large = len(body) >= LARGE_BYTES
        if body and not is_large:
            headers = (*headers, ("Content-Length", str(len(body))))
        passage = _Passage(request.departure, b"" if is_large else body)
        _passage.set(passage)
        started = time.monotonic()
        try:
            response = await session.request(
                request.method,
                request.url,
                headers=headers,
                data=io.BytesIO(body) if is_large else None,
                allow_redirects=False,
            )
        except _FOREIGN as error:
            failure = _translated(error, request.url)
            is_kept = not passage.has_own_connection
            if is_kept and _is_stale(error) and time.monotonic() < started + STALE_SECS:
                failure = StaleConnectionError(str(failure))
        except asyncio.CancelledError as error:
            # The frames of aiohttp hold the headers, so they stay out of tracebacks.
            raise error.with_traceback(None) from None
        else:
            return _AiohttpResponse(response, request.url)
        # Raised here, since the foreign error may hold the request's headers.
        raise failure

    async def _new_pool(self, loop: asyncio.AbstractEventLoop) -> "_Pool":
        for other in list(self._pools):
            if other.is_closed():
                self._pools.pop(other, None)
        pool = self._pools[loop] = _Pool()
        await pool.open()
        return pool


def _is_stale(error: BaseException) -> bool:
    """Whether a kept connection may have been closed before we wrote to it."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else it holds the beginning of an answer
    return isinstance(error, aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )


class _Connector(aiohttp.TCPConnector):
    """Tells the request at work when it has a connection, and when that is not a kept one."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of the base class
    ) -> "Connection":
        passage = _passage.get()
        connection = await super().connect(req, traces, timeout)
        while not passage.has_own_connection:
            if _has_news(connection):
                await _let_news_in(connection)
            if not _is_spent(connection):
                break
            connection.close()
            connection = await super().connect(req, traces, timeout)
        passage.departure.may_have_left = True  # next, aiohttp writes to it
        return connection

    def _release(
        self, key: "ConnectionKey", protocol: "ResponseHandler", *, should_close: bool = False
    ) -> None:
        if should_close or protocol.should_close:
            protocol.abort()  # at once: a close would wait until the server has taken every byte
        super()._release(key, protocol, should_close=should_close)

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of the base class
    ) -> "ResponseHandler":
        _passage.get().has_own_connection = True
        return await super()._create_connection(req, traces, timeout)


def _is_spent(connection: "Connection") -> bool:
    """Whether a kept connection has ended, or got what nobody asked for and would pass for ours.

    Or whether it has not taken all of an earlier request yet, whose answer came before.
    """
    protocol = connection.protocol
    return (
        protocol is None
        or not protocol.is_connected()
        or protocol.should_close
        or protocol.writing_paused
    )


async def _let_news_in(connection: "Connection") -> None:
    """Lets the event loop take in what came; it does in its next turn."""
    try:
        await asyncio.sleep(0)
    except BaseException:
        connection.close()
        raise


def _has_news(connection: "Connection") -> bool:
    """Whether the socket has something that the event loop has not seen yet."""
    transport = connection.transport
    if transport is None:
        return False
    sock = transport.get_extra_info("socket")
    try:
        return sock is None or bool(_ready_to_read(sock.fileno()))
    except (OSError, ValueError):
        return True


def _ready_to_read(descriptor: int) -> object:
    if not hasattr(select, "poll"):  # Windows; its select takes any descriptor
        return select.select([descriptor], (), (), 0)[0]
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll(0)


class _Request(aiohttp.ClientRequest):
    """A request with the headers that it was given, and no others, and its body behind them.

    aiohttp would write the body in a task of its own, which on Python 3.11 takes a turn of the
    event loop, a tenth of what a request takes.
    """

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Adds none."""

    def update_expect_continue(self, expect: bool = False) -> None:  # noqa: FBT001, FBT002 - theirs
        """Waits for no leave to send the body, even if a header asks for it (RFC 9110, 10.1.1)."""

    async def send(self, conn: "Connection") -> aiohttp.ClientResponse:
        response = await super().send(conn)
        if (body := _passage.get().body) and conn.transport is not None:
            conn.transport.write(body)
        return response


class _Pool:
    """A session that ends with the event loop it was made in."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.session = _session(_Connector(limit=0))
        self.single_use = _session(_Connector(limit=0, force_close=True))
        self._owner = self._own()

    async def open(self) -> None:
        """Starts the generator, so that the loop knows it and closes it at shutdown."""
        await anext(self._owner)

    async def _own(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.session.close()
            await self.single_use.close()


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        request_class=_Request,
    )


def _joined(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers by lower-case name; several of one name are one list (RFC 9110, 5.3)."""
    joined = {name.lower(): value for name, value in headers.items()}
    if len(joined) == len(headers):
        return joined
    joined = {}
    for name, value in headers.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


class _AiohttpResponse:
    """An `HttpResponse` over aiohttp's."""

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _joined(response.headers)
        self._response = response
        self._url = url
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        self._ended = None if protocol is None else protocol.closed
        if self._ended is not None:  # else the whole body is there
            self._ended.add_done_callback(self._note_end)

    def _note_end(self, closed: "asyncio.Future[None]") -> None:
        """The connection has ended. After broken framing aiohttp itself says nothing of it."""
        if not closed.cancelled():
            closed.exception()  # is told by what is read
        content = self._response.content
        _forget_frames(content.exception())
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())

    async def read(self) -> bytes:
        content = self._response.content
        if content.at_eof() and content.exception() is None:
            return b""
        try:
            return await content.readany()
        except _FOREIGN as error:
            rest = self._kept_back(error)
            failure = _translated(error, self._url)
        if rest:
            return rest
        try:
            raise failure
        finally:
            del failure  # this frame would hold it, and it this frame

    def _kept_back(self, error: Exception) -> bytes:
        """What had come before the connection broke; aiohttp gives no more once it knows that."""
        content = self._response.content
        content.set_exception(None)  # type: ignore[arg-type] # there is no other way to it
        rest = content.read_nowait()
        _forget_frames(error)
        content.set_exception(error)
        return rest

    def close(self) -> None:
        if self._ended is not None:  # the connection may go on, and would hold this for ever
            self._ended.remove_done_callback(self._note_end)
            self._ended = None
        if not self._response.closed:
            self._response.close()


def _forget_frames(error: BaseException | None) -> None:
    """Of an error that aiohttp keeps: they hold the stream, which then outlives its being dropped.

    A stream that is dropped is closed and recorded at once only if nothing holds it.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _translated(error: BaseException, url: str) -> MiniLLMError:
    origin = origin_of_url(url)
    for foreign, ours, what in _ERRORS:
        if isinstance(error, foreign):
            advice = "; is the address right, and is the server up?" if ours is ConnectError else ""
            return ours(f"{what} {origin}{_reason(error)}{advice}")
    raise AssertionError(error)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(cause, socket.gaierror):
        return f" ({os.strerror(number)})"
    reason = getattr(cause, "strerror", None)
    return f" ({reason})" if isinstance(reason, str) and reason else ""
