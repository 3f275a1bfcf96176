"""The aiohttp engine."""

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
import msgspec

from minillmlib.errors import (
    ConnectError,
    InvalidParameterError,
    MiniLLMError,
    ProtocolError,
    ReadError,
    StaleConnectionError,
)
from minillmlib.transport.base import (
    CHECK_ADDRESS,
    CONNECT_TIMEOUT_SECS,
    STALE_SECS,
    ErrorTable,
    HttpRequest,
    note_not_sent,
    translate_error,
)
from minillmlib.transport.connect_failures import (
    blocked_error,
    describe_tls_failure,
    find_tls_failure,
    tls_error,
)

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

LARGE_BYTES = 1024 * 1024  # larger bodies are written in pieces, so that the loop goes on meanwhile


class _RequestContext(msgspec.Struct):
    """The request in progress, for the subclasses of aiohttp's parts.

    `body` is written behind the headers by us; it is empty if aiohttp writes it.
    """

    body: bytes
    is_on_new_connection: bool = False
    was_sent: bool = False  # whether aiohttp may have begun to write


_context: ContextVar[_RequestContext] = ContextVar("_context")

_ERRORS: ErrorTable = (
    (aiohttp.ClientConnectorError, ConnectError, f"could not connect ({CHECK_ADDRESS}) to"),
    (
        aiohttp.ConnectionTimeoutError,
        ConnectError,
        f"no connection within {CONNECT_TIMEOUT_SECS:g} s ({CHECK_ADDRESS}) to",
    ),
    (aiohttp.InvalidURL, InvalidParameterError, "not a usable address:"),
    (aiohttp.ClientResponseError, ProtocolError, "not a valid HTTP response from"),
    (aiohttp.ServerDisconnectedError, ReadError, "the connection closed without a response:"),
    (aiohttp.ClientPayloadError, ReadError, "the connection closed before the response ended:"),
    (aiohttp.ClientError, ReadError, "the connection broke:"),
    (OSError, ReadError, "the connection broke:"),
    (ValueError, InvalidParameterError, "not a usable address or header for"),
    (RuntimeError, ReadError, "the event loop is shutting down; nothing can be sent to"),
)
_FOREIGN = (aiohttp.ClientError, OSError, ValueError, RuntimeError)


class AiohttpTransport:
    """Sends through aiohttp, with one connection pool per event loop and process.

    A pool needs no closing: it ends with the asynchronous generators of its loop, which
    `asyncio.run` and every other well-behaved runner shuts down.
    """

    def __init__(self) -> None:
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def send(self, request: HttpRequest) -> "_AiohttpResponse":
        """Send `request` once. See `Transport.send`."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None or pool.process_id != os.getpid() or pool.session.closed:
            pool = await self._new_pool(loop)
        session = pool.single_use if request.on_new_connection else pool.session
        body = request.body
        is_large = len(body) >= LARGE_BYTES
        context = _RequestContext(b"" if is_large else body)
        _context.set(context)
        started_at = time.monotonic()
        failure: BaseException
        try:
            response = await session.request(
                request.method,
                request.url,
                headers=_headers_with_length(request),
                data=io.BytesIO(body) if is_large else None,
                allow_redirects=False,
            )
        except _FOREIGN as error:
            failure = _translate(error, request.url)
            is_kept = not context.is_on_new_connection
            if is_kept and _is_stale(error) and time.monotonic() < started_at + STALE_SECS:
                failure = StaleConnectionError(str(failure))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure = error.with_traceback(None)
        else:
            return _AiohttpResponse(response, request.url)
        if not context.was_sent:
            note_not_sent(failure)
        # Not inside `except`, and without aiohttp's frames: those hold the headers in plain text.
        raise failure

    async def _new_pool(self, loop: asyncio.AbstractEventLoop) -> "_Pool":
        for other in list(self._pools):
            if other.is_closed():
                self._pools.pop(other, None)
        pool = self._pools[loop] = _Pool()
        await anext(pool.closer)  # which the loop, now that it has started, ends at shutdown
        return pool


def _headers_with_length(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the headers as plain text, with the length of a body that we write ourselves."""
    headers = request.expose_headers()
    if 0 < len(request.body) < LARGE_BYTES:
        headers.append(("Content-Length", str(len(request.body))))
    return headers


def _is_stale(error: BaseException) -> bool:
    """Whether a pooled connection may have been closed before we wrote to it."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else it holds the start of a response
    return isinstance(error, aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )


class _Connector(aiohttp.TCPConnector):
    """Records on the request in progress when it has a connection, and whether that is new."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of the base class
    ) -> "Connection":
        context = _context.get()
        connection = await super().connect(req, traces, timeout)
        while not context.is_on_new_connection:
            if _has_pending_input(connection):
                try:
                    await asyncio.sleep(0)  # lets the event loop process the input
                except BaseException:
                    connection.close()
                    raise
            if not _is_unusable(connection):
                break
            connection.close()
            connection = await super().connect(req, traces, timeout)
        context.was_sent = True  # next, aiohttp writes to the connection
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
        _context.get().is_on_new_connection = True
        return await super()._create_connection(req, traces, timeout)


def _is_unusable(connection: "Connection") -> bool:
    """Whether a pooled connection is closed, or holds data that would pass for our response.

    Also if it has not written an earlier request completely, whose response came before the end.
    """
    protocol = connection.protocol
    return (
        protocol is None
        or not protocol.is_connected()
        or protocol.should_close
        or protocol.writing_paused
    )


def _has_pending_input(connection: "Connection") -> bool:
    """Whether the socket has input that the event loop has not processed."""
    transport = connection.transport
    if transport is None:
        return False
    sock = transport.get_extra_info("socket")
    try:
        return sock is None or _is_readable(sock.fileno())
    except (OSError, ValueError):
        return True


def _is_readable(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows; its select takes any descriptor
        return bool(select.select([descriptor], (), (), 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class _Request(aiohttp.ClientRequest):
    """A request with the given headers and no others, and its body written right behind them.

    aiohttp would write the body in a task, which on Python 3.11 takes a turn of the event loop, a
    tenth of the time of a request.
    """

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add none."""

    def update_expect_continue(self, expect: bool = False) -> None:  # noqa: FBT001, FBT002 - theirs
        """Send the body without waiting, even if a header asks to (RFC 9110, 10.1.1)."""

    async def send(self, conn: "Connection") -> aiohttp.ClientResponse:
        response = await super().send(conn)
        self.headers.clear()  # written; the response would keep their plain text
        if (body := _context.get().body) and conn.transport is not None:
            conn.transport.write(body)
        return response


class _Pool:
    """A session that ends with the event loop it was made in."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.session = _new_session(_Connector(limit=0))
        self.single_use = _new_session(_Connector(limit=0, force_close=True))
        self.closer = self._close_at_shutdown()

    async def _close_at_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.session.close()
            await self.single_use.close()


def _new_session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        request_class=_Request,
    )


def _merge_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers by lower-case name; repeated ones become one list (RFC 9110, 5.3)."""
    merged = {name.lower(): value for name, value in headers.items()}
    if len(merged) == len(headers):  # as in most responses
        return merged
    merged = {}
    for name, value in headers.items():
        key = name.lower()
        merged[key] = f"{merged[key]}, {value}" if key in merged else value
    return merged


class _AiohttpResponse:
    """An `HttpResponse` over aiohttp's."""

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _merge_headers(response.headers)
        self._response = response
        self._url = url
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        self._closed = None if protocol is None else protocol.closed
        if self._closed is not None:  # else the whole body has arrived
            self._closed.add_done_callback(self._on_connection_closed)

    def _on_connection_closed(self, closed: "asyncio.Future[None]") -> None:
        """End the body: after broken framing aiohttp itself does not."""
        if not closed.cancelled():
            closed.exception()  # retrieved, so that asyncio does not log it; `read` raises it
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())

    async def read(self) -> bytes:
        content = self._response.content
        if content.at_eof() and content.exception() is None:
            return b""
        try:
            return await content.readany()
        except _FOREIGN as error:
            error.__traceback__ = None  # aiohttp keeps one such error for ever, and so this frame
            if rest := self._take_buffered(error):
                return rest
            failure = _translate(error, self._url)
        try:
            raise failure
        finally:
            del failure  # it references this frame: a cycle would keep a dropped stream alive

    def _take_buffered(self, error: Exception) -> bytes:
        """Return what arrived before the connection broke, which aiohttp then withholds."""
        content = self._response.content
        content.set_exception(None)  # type: ignore[arg-type] # there is no other way to it
        rest = content.read_nowait()
        content.set_exception(error)
        return rest

    def close(self) -> None:
        if self._closed is not None:  # the connection may live on, and would hold this for ever
            self._closed.remove_done_callback(self._on_connection_closed)
            self._closed = None
        if not self._response.closed:
            self._response.close()


def _translate(error: BaseException, url: str) -> MiniLLMError:
    if blocked := blocked_error(error, url):
        return blocked
    if tls := find_tls_failure(error):
        if isinstance(error, aiohttp.ClientSSLError):
            return tls_error(tls, url)
        return translate_error(error, _ERRORS, url, describe_tls_failure(tls))
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(cause, socket.gaierror):
        reason: object = os.strerror(number)
    else:
        reason = getattr(cause, "strerror", None)
    return translate_error(error, _ERRORS, url, reason)
