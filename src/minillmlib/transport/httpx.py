"""The engine over a caller's `httpx2.AsyncClient`."""

import asyncio
import contextlib
import re
import socket
import time
import weakref
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from minillmlib.errors import (
    ConnectError,
    InvalidParameterError,
    MiniLLMError,
    MissingExtraError,
    ProtocolError,
    ReadError,
    StaleConnectionError,
    TlsError,
)
from minillmlib.json_value import JsonObject
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
from minillmlib.transport.connect_failures import blocked_error, find_tls_failure, tls_error
from minillmlib.transport.guard import check_host
from minillmlib.transport.proxy import ENVIRONMENT, ProxySetting, expose_proxy, parse_proxy

try:
    import httpx2
except ImportError:
    raise MissingExtraError(
        "HttpxTransport needs httpx2: pip install 'minillmlib[httpx]'"
    ) from None

if TYPE_CHECKING:
    import httpcore2

# httpx2 takes a turn of the loop to close, and the loop keeps no reference to these tasks.
_closing: set[asyncio.Task[None]] = set()


class HttpxTransport:
    """Sends through your `httpx2.AsyncClient`, with its connections, proxies and certificates.

    You close the client, and use it in one event loop only. Its timeouts, `auth` and redirects
    are not used: the library has its own timeouts, sends its own credential, and follows no
    redirect. Needs `minillmlib[httpx]`.
    """

    def __init__(self, client: object) -> None:
        if not isinstance(client, httpx2.AsyncClient):
            raise InvalidParameterError(
                f"HttpxTransport takes an httpx2.AsyncClient, not {type(client).__name__}"
            )
        self._client = client
        self._reports_progress = False  # whether the client ever reported its progress
        self._proxied: weakref.WeakValueDictionary[int, _ProxyClients] = (
            weakref.WeakValueDictionary()  # by the ids of their loops, which hold them
        )

    async def send(self, request: HttpRequest) -> "_HttpxResponse":
        """Send `request` once. See `Transport.send`.

        `on_new_connection` is ignored: httpx2 chooses the connection.
        """
        context = _RequestContext(request.url)
        started_at = time.monotonic()
        failure: BaseException
        proxy = None
        try:
            client = self._client
            if request.proxy != ENVIRONMENT:  # which is the client's own affair
                proxy = None if request.proxy is None else parse_proxy(request.proxy)
                client = await self._client_through(request.proxy)
            response = await client.send(
                client.build_request(
                    request.method,
                    request.url,
                    headers=request.expose_headers(),
                    content=request.body or None,
                    timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_SECS),
                    extensions={"trace": context.trace},
                ),
                stream=True,
                auth=None,
                follow_redirects=False,
            )
        except RecursionError as error:  # a RuntimeError, too
            context.abandon()
            failure = error.with_traceback(None)
        except _FOREIGN as error:
            failure = _translate(error, request.url, "" if proxy is None else proxy.url)
            is_kept = context.was_sent and not context.is_on_new_connection
            is_prompt = time.monotonic() < started_at + STALE_SECS
            if is_kept and is_prompt and type(failure) is ReadError:
                failure = StaleConnectionError(str(failure))
        except ImportError as error:  # of a package for SOCKS
            failure = MissingExtraError(f"this proxy cannot be used ({error})")
        except BaseException as error:  # noqa: BLE001 - raised again below
            context.abandon()
            failure = error.with_traceback(None)
        else:
            if response.status_code != PROXY_AUTHENTICATION_REQUIRED:
                return _HttpxResponse(response, request.url)
            await response.aclose()
            via = "" if proxy is None else proxy.url  # the client may have one of its own
            failure = refuse_by_proxy(response.status_code, request.url, via)
            context.was_sent = False
        self._reports_progress = self._reports_progress or context.has_begun
        # A transport that reports no progress, such as a mock, may have sent it.
        if not context.was_sent and (self._reports_progress or type(failure) in _BEFORE_SENDING):
            note_not_sent(failure)
        # Not inside `except`, and without httpx2's frames: those hold the headers in plain text.
        raise failure

    async def _client_through(self, proxy: ProxySetting) -> httpx2.AsyncClient:
        """Return a client of our own for `proxy`, or for none. It is closed with its loop."""
        loop = asyncio.get_running_loop()
        clients = self._proxied.get(id(loop))
        if clients is None:
            clients = self._proxied[id(loop)] = _ProxyClients()
            vars(loop)[f"_minillmlib_clients_{id(clients)}"] = clients
            await anext(clients.closer)
        return clients.get(proxy)

    def __repr__(self) -> str:
        return "HttpxTransport(...)"


class _ProxyClients:
    """The clients of one event loop for the proxies that generators name."""

    def __init__(self) -> None:
        self._clients: dict[str | None, httpx2.AsyncClient] = {}
        self.closer = self._close_at_shutdown()

    def get(self, proxy: ProxySetting) -> httpx2.AsyncClient:
        address = None if proxy is None else expose_proxy(proxy)
        client = self._clients.get(address)
        if client is None:
            transport = httpx2.AsyncHTTPTransport(proxy=address)
            client = self._clients[address] = httpx2.AsyncClient(transport=transport)
        return client

    async def _close_at_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            for client in self._clients.values():
                await client.aclose()


class _RequestContext:
    """The state of the request in progress, as httpx2 reports it."""

    def __init__(self, url: str) -> None:
        self.is_on_new_connection = self.was_sent = self.has_begun = False
        self._url = url
        self._connection: httpcore2.AsyncNetworkStream | None = None

    def abandon(self) -> None:
        """Close a connection in the making, which httpx2 leaves to the garbage collector."""
        if self._connection is not None and not self.was_sent:
            _close_soon(self._connection.aclose())

    async def trace(self, event: str, info: JsonObject) -> None:
        if not self.has_begun:  # a mock never reports, so it is not asked
            self.has_begun = True
            check_host(urlsplit(self._url).hostname)
        if event == "connection.connect_tcp.started":
            self.is_on_new_connection = True
        elif event == "connection.connect_tcp.complete":
            self._connection = info["return_value"]
        elif event.endswith(".send_request_headers.started"):
            self.was_sent = True


class _HttpxResponse:
    """An `HttpResponse` over httpx2's."""

    def __init__(self, response: httpx2.Response, url: str) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self._response = response
        # The response of a mock, or one that a hook has read, is complete already.
        is_read = response.is_stream_consumed
        self._pieces = _yield_once(response.content) if is_read else response.aiter_raw()
        self._is_over = False
        self._url = url

    async def read(self) -> bytes:
        try:
            async for piece in self._pieces:
                if piece:
                    return piece
        except RecursionError:  # a RuntimeError, too
            raise
        except (httpx2.HTTPError, httpx2.StreamError, OSError, RuntimeError) as error:
            failure = _translate(error, self._url, "")
        else:
            self._is_over = True  # httpx2 has returned the connection to its pool
            return b""
        raise failure

    def close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        # The server shall notice now, not when a task gets its turn.
        network = self._response.extensions.get("network_stream")
        connection = network and network.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # it may be gone already
                connection.shutdown(socket.SHUT_RDWR)
        _close_soon(self._response.aclose())


async def _yield_once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


def _close_soon(closing: Coroutine[object, object, None]) -> None:
    task = asyncio.get_running_loop().create_task(closing)
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_BEFORE_SENDING = (ConnectError, TlsError, InvalidParameterError, MissingExtraError)
_STATUS = re.compile(r"[1-5]\d\d")
_BROKEN: ErrorTable = [(Exception, ReadError, "the connection broke:")]
_ERRORS: ErrorTable = [
    (httpx2.ProxyError, ConnectError, "the proxy did not connect to"),
    ((httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout), ConnectError,
     f"could not connect ({CHECK_ADDRESS}) to"),
    (httpx2.RemoteProtocolError, ProtocolError, "not a valid HTTP response from"),
    ((httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL, ValueError),
     InvalidParameterError, "not a usable address or header for"),
    (RuntimeError, ReadError,
     "the httpx2 client is closed or belongs to another event loop; nothing can be sent to"),
    *_BROKEN,
]  # fmt: skip


_FOREIGN = (  # a group comes from anyio, which tries several addresses
    httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError, ExceptionGroup,
)  # fmt: skip


def _translate(error: Exception, url: str, via: str) -> MiniLLMError:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if blocked := blocked_error(error, url):
        return blocked
    if isinstance(error, httpx2.ProxyError) and (status := _STATUS.match(str(error))):
        return refuse_by_proxy(int(status[0]), url, via)
    # The text of other errors may quote what the server sent.
    reason = error if isinstance(error, httpx2.ConnectError) else None
    if reason is not None and (tls := find_tls_failure(error)):
        return tls_error(tls, url, via)
    table = _ERRORS
    if isinstance(error, httpx2.RemoteProtocolError) and _is_disconnect(error):
        table = _BROKEN
    return translate_error(error, table, url, reason and str(reason), via)


def _is_disconnect(error: Exception) -> bool:
    """Whether the server hung up, which httpx2 reports as a protocol error."""
    return "disconnected" in str(error) or "peer closed connection" in str(error)
