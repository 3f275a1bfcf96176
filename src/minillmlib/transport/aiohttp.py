"""The aiohttp engine."""

import asyncio
import contextlib
import inspect
import io
import os
import select
import socket
import sys
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict
from yarl import URL

from minillmlib import locks
from minillmlib.errors import (
    ConnectError,
    InvalidParameterError,
    MiniLLMError,
    ProtocolError,
    ReadError,
    StaleConnectionError,
)
from minillmlib.streaming.sse import limit_error
from minillmlib.transport.base import (
    CHECK_ADDRESS,
    CONNECT_TIMEOUT_SECS,
    PROXY_AUTHENTICATION_REQUIRED,
    STALE_SECS,
    ErrorTable,
    HttpRequest,
    note_not_sent,
    refuse_by_proxy,
    translate_error,
)
from minillmlib.transport.connect_failures import (
    blocked_error,
    describe_tls_failure,
    find_tls_failure,
    tls_error,
)
from minillmlib.transport.guard import check_host
from minillmlib.transport.proxy import ENVIRONMENT, Proxy, find_environment_proxy, parse_proxy

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

LARGE_BYTES = 1024 * 1024  # larger bodies are written in pieces, so that the loop goes on meanwhile

# aiohttp limits each header, not all together: this bounds what it holds.
MAX_HEADERS = 512

CLOSE_SECS = 1.0  # at most, to close the connections of a loop that ends

# The most that a read asks for. asyncio's own 256 KiB, of which an answer fills a few, are so many
# that glibc maps them from the system for each read, and unmaps them: up to a seventh of a call.
# With TLS, asyncio reads into one buffer.
READ_BYTES = 64 * 1024


class _RequestContext(msgspec.Struct):
    """The state of the request in progress, for the subclasses of aiohttp's parts."""

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
    (
        (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError),
        InvalidParameterError,
        "not a usable address:",
    ),
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
    `asyncio.run` and every other well-behaved runner shuts down. It belongs to its loop, so that
    one that is dropped without a shutdown is collected, with its connections.
    """

    def __init__(self) -> None:
        # By the ids of their loops, which hold them.
        self._pools: weakref.WeakValueDictionary[int, _Pool] = weakref.WeakValueDictionary()
        weakref.finalize(self, _abandon_pools, self._pools)  # at the latest when Python ends

    async def send(self, request: HttpRequest) -> "_AiohttpResponse":
        """Send `request` once. See `Transport.send`."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(id(loop))
        if pool is None or pool.fork_count != locks.fork_count or pool.session.closed:
            pool = await self._new_pool(loop)
        session = pool.single_use if request.on_new_connection else pool.session
        proxy = None if request.proxy is None else _find_proxy(request)
        context = _RequestContext()
        _context.set(context)
        started_at = time.monotonic()
        failure: BaseException
        try:
            if (
                proxy is None
                and pool.is_plain
                and type(session)._request is _OWN_REQUEST  # noqa: SLF001 - see there
                and request.method == "POST"
                and 0 < len(request.body) < LARGE_BYTES
                and "@" not in request.url  # the session sees to a user name and password
            ):
                response = await _post(request, session, loop)
            else:
                # The whole request is in the ordinary arguments, where recorders and mocks look.
                # They replace this method, which the public one only wraps for `async with`.
                response = await session._request(  # noqa: SLF001 - see above
                    request.method,
                    request.url,
                    headers=_expose_headers(request, proxy),
                    data=request.body or None,
                    allow_redirects=False,
                    max_line_size=request.max_header_bytes,
                    max_field_size=request.max_header_bytes,
                    **({} if proxy is None else _proxy_options(request, proxy)),
                )
        except RecursionError as error:  # a RuntimeError, too
            failure = error.with_traceback(None)
        except _FOREIGN as error:
            failure = _explain(error, request, proxy)
            is_kept = context.was_sent and not context.is_on_new_connection
            if is_kept and _is_stale(error) and time.monotonic() < started_at + STALE_SECS:
                failure = StaleConnectionError(str(failure))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure = error.with_traceback(None)
        else:
            if proxy is None or response.status != PROXY_AUTHENTICATION_REQUIRED:
                return _AiohttpResponse(response, request.url)
            response.close()
            failure = refuse_by_proxy(response.status, request.url, proxy.url)
            context.was_sent = False
        if not context.was_sent:
            note_not_sent(failure)
        # Not inside `except`, and without aiohttp's frames: those hold the headers in plain text.
        raise failure

    async def _new_pool(self, loop: asyncio.AbstractEventLoop) -> "_Pool":
        pool = self._pools[id(loop)] = _Pool(loop)
        _LoopClose.of(loop).pools.append(pool)
        await _start(pool.closer)  # which the loop, now that it has started, ends at shutdown
        return pool


def _start(generator: AsyncGenerator[None, None]) -> Awaitable[None]:
    """Start a generator. If its loop is dropped, nothing ends it: its end would never be awaited.

    Python 3.13 warns of that.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=_do_nothing)
    try:
        return anext(generator)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _abandon_pools(pools: "weakref.WeakValueDictionary[int, _Pool]") -> None:
    """Close the pools of loops that do not run, and log nothing."""
    for reference in pools.valuerefs():
        pool = reference()
        if pool is not None and not pool.loop.is_running():
            pool.abandon()


class _LoopClose:
    """The `close` of an event loop with pools: closes them, too.

    It is what holds the pools. Connections refer to their loop, so whatever else held them would
    keep a loop alive that was dropped without being closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._close = loop.close
        self.pools: list[_Pool] = []

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "_LoopClose":
        """Return the one of `loop`, put in place of its method on the first call."""
        close = vars(loop).get("close")
        if not isinstance(close, cls):
            close = vars(loop)["close"] = cls(loop)
        close.pools = [pool for pool in close.pools if not pool.session.closed]
        return close

    def __call__(self) -> None:
        self._close()
        pools, self.pools = self.pools, []
        for pool in pools:
            pool.abandon()


def _find_proxy(request: HttpRequest) -> Proxy | None:
    """Return the proxy that `request` goes through, if any."""
    assert request.proxy is not None
    try:
        if request.proxy == ENVIRONMENT:
            proxy = find_environment_proxy(request.url)
        else:
            proxy = parse_proxy(request.proxy)
        if proxy is not None:
            _refuse_socks(proxy)
    except InvalidParameterError as error:
        note_not_sent(error)
        raise
    return proxy


def _refuse_socks(proxy: Proxy) -> None:
    if proxy.scheme not in ("http", "https"):
        raise InvalidParameterError(
            f"the proxy {proxy.url} speaks SOCKS, which the built-in engine does not; name an http "
            "proxy, go without by with_proxy(None) or NO_PROXY, or send through "
            "minillmlib.httpx.HttpxTransport with a client of httpx2[socks]"
        )


def _is_tunnelled(request: HttpRequest) -> bool:
    """Whether a proxy cannot read `request`; its header then goes with the CONNECT."""
    return request.url.startswith("https:")


def _expose_headers(request: HttpRequest, proxy: Proxy | None) -> list[tuple[str, str]]:
    headers = request.expose_headers()
    if proxy is not None and not _is_tunnelled(request):
        headers.extend(proxy.expose_headers().items())
    return headers


def _proxy_options(request: HttpRequest, proxy: Proxy) -> dict[str, Any]:
    return {
        "proxy": proxy.url,
        "proxy_headers": proxy.expose_headers() if _is_tunnelled(request) else None,
    }


def _is_own(method: object) -> bool:
    """Whether a method of the session is aiohttp's own, and not of a recorder or a mock.

    Those may pass for it in all but their type or their code.
    """
    return type(method) is FunctionType and method.__code__.co_filename == aiohttp.client.__file__


# None if something stands in its place just now; then no request goes past the session.
_REQUEST: object = aiohttp.ClientSession._request  # noqa: SLF001 - as they do
_OWN_REQUEST = _REQUEST if _is_own(_REQUEST) else None


async def _post(
    request: HttpRequest, session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop
) -> aiohttp.ClientResponse:
    """Do what aiohttp's session does for a plain request.

    The session also sees to redirects, cookies, repeated sending, proxies, tracing and timeouts of
    its own. None of it is used here, and together it takes a twentieth of the time of a call.
    """
    try:
        url = URL(request.url)
    except ValueError as error:
        raise aiohttp.InvalidURL(request.url) from error
    if url.scheme not in ("http", "https"):
        raise aiohttp.NonHttpUrlClientError(request.url)
    sent = _Request(
        request.method,
        url,
        headers=CIMultiDict(request.expose_headers()),
        data=request.body,
        loop=loop,
        session=session,
    )
    connector = session.connector
    if connector is None:
        raise RuntimeError("the session is closed")
    try:
        connection = await connector.connect(sent, [], session.timeout)
    except TimeoutError as error:
        raise aiohttp.ConnectionTimeoutError from error
    response = None
    try:
        assert connection.protocol is not None
        connection.protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=request.max_header_bytes,
            max_field_size=request.max_header_bytes,
            **_MAX_HEADERS,
        )
        response = await sent.send(connection)
        await response.start(connection)
    except BaseException:
        if response is not None:
            response.close()
        connection.close()
        raise
    return response


def _is_stale(error: BaseException) -> bool:
    """Whether a pooled connection may have been closed before we wrote to it."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else it holds the start of a response
    unconnected = (aiohttp.ClientConnectorError, TimeoutError)
    return isinstance(error, OSError) and not isinstance(error, unconnected)


class _Protocol(ResponseHandler):
    """Notifies the response in progress when its connection ends.

    aiohttp's own future for that logs the end of a kept connection, if nobody awaited it.
    """

    response: "_AiohttpResponse | None" = None
    has_input: Callable[[], object]  # whether the socket has some that the loop has not processed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # as those of asyncio have that read from a socket
            transport.max_size = READ_BYTES
        self.has_input = _input_test(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.response is not None:
            self.response.end()


class _Connector(aiohttp.TCPConnector):
    """Records on the request in progress when it has a connection, and whether that is new."""

    def __init__(
        self, loop: "weakref.ref[asyncio.AbstractEventLoop]", *, force_close: bool
    ) -> None:
        self._fork_count = locks.fork_count
        self._loop_reference = loop
        # The system's resolver knows its hosts file, VPN and containers. aiohttp would prefer
        # aiodns where that is installed.
        resolver = aiohttp.ThreadedResolver()
        super().__init__(limit=0, force_close=force_close, resolver=resolver)
        # aiohttp has no public way to set it.
        self._factory = partial(_Protocol, loop=self._loop)  # type: ignore[assignment]

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of the base class
    ) -> "Connection":
        check_host(req.url.host)
        context = _context.get()
        connection = await super().connect(req, traces, timeout)
        while not context.is_on_new_connection:
            protocol = connection.protocol
            if isinstance(protocol, _Protocol) and protocol.has_input():
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
        self, key: "ConnectionKey", protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        if should_close or protocol.should_close:
            protocol.abort()  # at once: a close would wait until the server has taken every byte
        super()._release(key, protocol, should_close=should_close)

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of the base class
    ) -> ResponseHandler:
        _context.get().is_on_new_connection = True
        return await super()._create_connection(req, traces, timeout)

    def __del__(self, *_: object) -> None:
        """Close what is open; aiohttp would log it. The loop is being collected, too."""
        if (
            self._fork_count == locks.fork_count
        ):  # in a forked child, the connections are the parent's
            self.abandon()

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent. Then the destructor of the session logs nothing."""
        return self._closed or self._loop_reference() is None

    def abandon(self) -> None:
        """Close what is open, after the loop has ended."""
        kept = [protocol for each in self._conns.values() for protocol, *_ in each]
        for protocol in (*kept, *self._acquired):
            transport, protocol.transport = protocol.transport, None
            if transport is not None:
                _close_without_loop(transport)
        self._conns.clear()
        self._acquired.clear()
        self._close()


def _close_without_loop(transport: asyncio.Transport) -> None:
    """Close a transport at once: asyncio's own way needs a running loop."""
    tls = getattr(transport, "_ssl_protocol", None)
    bottom = transport if tls is None else getattr(tls, "_transport", None)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        transport.abort()
    finish = getattr(bottom, "_call_connection_lost", None)  # those of uvloop close with their loop
    if finish is not None:
        with contextlib.suppress(RuntimeError, AttributeError):
            finish(None)


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


def _input_test(transport: asyncio.BaseTransport) -> Callable[[], object]:
    """Return a function that says whether a socket has input. A closed one may have some."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return bool
    if not hasattr(select, "poll"):  # Windows
        return partial(_select_input, sock)
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return partial(poll.poll, 0)


def _select_input(sock: socket.socket) -> bool:
    try:
        return bool(select.select([sock.fileno()], (), (), 0)[0])
    except (OSError, ValueError):
        return True


class _Request(aiohttp.ClientRequest):
    """A request with the given headers and no others, and its body written right behind them.

    aiohttp would write the body in a task, which on Python 3.11 takes a turn of the event loop, a
    tenth of the time of a request.
    """

    own_body = b""  # the body that we write; empty if aiohttp does

    def update_headers(self, headers: Any) -> None:
        """Take the headers, all at once unless one of them is the host's."""
        host = self.url.host_port_subcomponent
        if host is not None and type(headers) is CIMultiDict and hdrs.HOST not in headers:
            self.headers = CIMultiDict(((hdrs.HOST, host),))
            self.headers.extend(headers)
        else:
            super().update_headers(headers)

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add none."""

    def update_expect_continue(self, expect: bool = False) -> None:  # noqa: FBT001, FBT002 - theirs
        """Send the body without waiting, even if a header asks to (RFC 9110, 10.1.1)."""

    def update_body_from_data(self, body: object, _stacklevel: int = 3) -> None:
        """Take the body. We write a small one ourselves; aiohttp writes a large one in pieces."""
        if isinstance(body, bytes) and 0 < len(body) < LARGE_BYTES:
            self.own_body = body
            self.headers["Content-Length"] = str(len(body))
        else:
            super().update_body_from_data(io.BytesIO(body) if isinstance(body, bytes) else body)

    async def send(self, conn: "Connection") -> aiohttp.ClientResponse:
        protocol, body = conn.protocol, self.own_body
        assert protocol is not None
        transport = protocol.transport
        if body and transport is not None:
            head: Any = _HeldTransport(transport)
            protocol.transport = head
            try:
                response = await super().send(conn)
            finally:
                if protocol.transport is head:  # else the connection ended meanwhile
                    protocol.transport = transport
            if self._traces:
                await self._on_chunk_request_sent(self.method, self.url, body)
            transport.write(head.written + body)  # in one packet, since each takes a system call
        else:
            response = await super().send(conn)
        self.headers.clear()  # written; the response would keep their plain text
        return response


class _HeldTransport:
    """Holds back what aiohttp writes to a transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_closing = transport.is_closing
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def _do_nothing(*_: object) -> None:
    pass


class _Pool:
    """A session that ends with the event loop it was made in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.fork_count = locks.fork_count
        self.loop = loop
        # With a function to call, it is dead before any destructor of what is collected with it.
        reference = weakref.ref(loop, _do_nothing)
        self.session = _new_session(_Connector(reference, force_close=False))
        self.single_use = _new_session(_Connector(reference, force_close=True))
        # Instrumentation gives sessions more than we do as they are made: headers, middlewares.
        init = type(self.session).__init__
        self.is_plain = not self.session.trace_configs and _is_own(init)
        self.closer = self._close_at_shutdown()

    def abandon(self) -> None:
        """Close everything after the loop has ended."""
        if self.fork_count != locks.fork_count:
            return  # a forked child: the connections are the parent's
        for session in (self.session, self.single_use):
            connector = session.connector
            session.detach()  # it would warn of an open connector
            if isinstance(connector, _Connector):
                connector.abandon()

    async def _close_at_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            # At once, but for a transport whose own `close` a RecursionError broke: it never ends.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECS):
                    await asyncio.gather(self.session.close(), self.single_use.close())


_MAX_HEADERS: dict[str, Any] = (  # older versions of aiohttp count none
    {"max_headers": MAX_HEADERS}
    if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters
    else {}
)


def _new_session(connector: _Connector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        request_class=_Request,
        **_MAX_HEADERS,
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
        self._protocol = protocol if isinstance(protocol, _Protocol) else None
        if self._protocol is not None:  # else the whole body has arrived
            self._protocol.response = self

    def end(self) -> None:
        """End the body with the connection: after broken framing aiohttp itself does not."""
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())

    async def read(self) -> bytes:
        content = self._response.content
        if content.at_eof() and content.exception() is None:
            return b""
        try:
            return await content.readany()
        except RecursionError:  # a RuntimeError, too
            raise
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
        protocol, self._protocol = self._protocol, None
        if protocol is not None and protocol.response is self:
            protocol.response = None  # a kept connection would hold this response
        if not self._response.closed:
            self._response.close()


def _explain(error: BaseException, request: HttpRequest, proxy: Proxy | None) -> MiniLLMError:
    """Return our error for a failure before the headers of the response."""
    via = "" if proxy is None else proxy.url
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return refuse_by_proxy(error.status, request.url, via)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LineTooLong):
            return limit_error("headers", request.max_header_bytes, "header_bytes")
        cause = cause.__cause__
    return _translate(error, request.url, via)


def _translate(error: BaseException, url: str, via: str = "") -> MiniLLMError:
    if blocked := blocked_error(error, url):
        return blocked
    if tls := find_tls_failure(error):
        if isinstance(error, aiohttp.ClientSSLError):
            return tls_error(tls, url, via)
        return translate_error(error, _ERRORS, url, describe_tls_failure(tls), via)
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(cause, socket.gaierror):
        reason: object = os.strerror(number)
    else:
        reason = getattr(cause, "strerror", None)
    return translate_error(error, _ERRORS, url, reason, via)
