"""An engine over an `httpx2.AsyncClient` of the caller's."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

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
from minillmlib.transport.base import Departure, HttpRequest
from minillmlib.transport.origin import origin_of_url

try:
    import httpx2
except ImportError:
    raise MissingExtraError(
        "HttpxTransport needs httpx2: pip install 'minillmlib[httpx]'"
    ) from None

if TYPE_CHECKING:
    import httpcore2

__all__ = ["HttpxTransport"]

CONNECT_TIMEOUT_SECS = 10.0
STALE_SECS = 1.0  # as in the aiohttp engine
EARLY_BYTES = 64 * 1024  # of an answer, read while the request is still being sent

# Closing takes a turn of the loop here; the loop itself would forget these tasks.
_closing: set[asyncio.Task[None]] = set()


class HttpxTransport:
    """Sends through your `httpx2.AsyncClient`, with its connections, proxies and certificates.

    The client stays yours: it belongs to one event loop, and you close it. Its time-outs, its
    `auth` and its redirects are not used, since the library has its own clocks, sends its own
    credential, and follows no redirect. Needs `minillmlib[httpx]`.
    """

    def __init__(self, client: object) -> None:
        if not isinstance(client, httpx2.AsyncClient):
            raise InvalidParameterError(
                f"HttpxTransport takes an httpx2.AsyncClient, not {type(client).__name__}"
            )
        self._client = client

    async def send(self, request: HttpRequest) -> "_HttpxResponse":
        """Sends `request` once. See `Transport.send`.

        httpx2 keeps its pool to itself, so `on_new_connection` is left to its own choice.
        """
        passage = _Passage(request.departure)
        started = time.monotonic()
        try:
            outgoing = self._client.build_request(
                request.method,
                request.url,
                headers=list(request.headers),
                content=request.body or None,
                timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_SECS),
                extensions={"trace": passage.trace},
            )
            response = await self._client.send(
                outgoing, stream=True, auth=None, follow_redirects=False
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError) as error:
            failure = _translated(error, request.url)
            is_kept = passage.may_have_left and not passage.has_own_connection
            if is_kept and type(failure) is ReadError and time.monotonic() < started + STALE_SECS:
                failure = StaleConnectionError(str(failure))
        except asyncio.CancelledError as error:
            passage.give_up()
            # The frames of httpx2 hold the headers, so they stay out of tracebacks.
            raise error.with_traceback(None) from None
        else:
            return _HttpxResponse(response, request.url)
        # Raised here, since the foreign error may hold the request's headers.
        raise failure

    def __repr__(self) -> str:
        return "HttpxTransport(...)"


class _Passage:
    """What httpx2 tells of the request at work."""

    def __init__(self, departure: Departure) -> None:
        self._departure = departure
        self.has_own_connection = False
        self._connecting: httpcore2.AsyncNetworkStream | None = None
        self._early: _EarlyAnswer | None = None
        departure.may_have_left = False

    @property
    def may_have_left(self) -> bool:
        return self._departure.may_have_left

    def give_up(self) -> None:
        """Closes a connection that is being made: httpx2 leaves it to the garbage collector."""
        if self._connecting is not None and not self.may_have_left:
            _close_soon(self._connecting.aclose())

    async def trace(self, event: str, info: JsonObject) -> None:
        if event == "connection.connect_tcp.started":
            self.has_own_connection = True
        elif event == "connection.connect_tcp.complete":
            self._connecting = info["return_value"]
        elif event.endswith(".send_request_headers.started"):
            self._departure.may_have_left = True
        elif event == "http11.send_request_body.started":
            self._early = _EarlyAnswer.on(self._connecting)
        elif event == "http11.send_request_body.complete" and self._early is not None:
            self._early.end()


class _EarlyAnswer(asyncio.Protocol):
    """Reads while a request is being sent, which anyio does not.

    A server that refuses a large request answers and hangs up before it has all of it, and the
    end of the connection would take its answer along. What is more than such an answer waits.
    """

    @classmethod
    def on(cls, network: "httpcore2.AsyncNetworkStream | None") -> "_EarlyAnswer | None":
        """Begins, if this is a new connection of asyncio's; there is no public way to it."""
        transport = getattr(getattr(network, "_stream", None), "_transport", None)
        return cls(transport) if isinstance(transport, asyncio.Transport) else None

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._bytes_left = EARLY_BYTES
        self._inner: Any = transport.get_protocol()
        transport.set_protocol(self)
        transport.resume_reading()

    def end(self) -> None:
        """The request has left: from here on anyio reads for itself."""
        self._transport.pause_reading()
        self._transport.set_protocol(self._inner)

    def data_received(self, data: bytes) -> None:
        self._bytes_left -= len(data)
        if self._bytes_left <= 0:
            self._transport.pause_reading()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        is_kept_open: bool | None = self._inner.eof_received()
        return is_kept_open

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class _HttpxResponse:
    """An `HttpResponse` over httpx2's."""

    def __init__(self, response: httpx2.Response, url: str) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self._response = response
        self._pieces = response.aiter_raw()
        self._is_over = False
        self._url = url

    async def read(self) -> bytes:
        try:
            async for piece in self._pieces:
                if piece:
                    return piece
        except (httpx2.HTTPError, httpx2.StreamError, OSError, RuntimeError) as error:
            failure = _translated(error, self._url)
        else:
            self._is_over = True  # httpx2 has put the connection back
            return b""
        raise failure

    def close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        # The server shall hear it now, not when a task gets its turn.
        network = self._response.extensions.get("network_stream")
        connection = network and network.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # it may be gone already
                connection.shutdown(socket.SHUT_RDWR)
        _close_soon(self._response.aclose())


def _close_soon(closing: Coroutine[object, object, None]) -> None:
    task = asyncio.get_running_loop().create_task(closing)
    _closing.add(task)
    task.add_done_callback(_closing.discard)


# First match wins, so subclasses stand before their bases.
_ERRORS: tuple[tuple[tuple[type[Exception], ...], type[MiniLLMError], str], ...] = (
    ((httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout), ConnectError,
     "could not connect (is the address right, and is the server up?) to"),
    ((httpx2.RemoteProtocolError,), ProtocolError, "no valid HTTP answer from"),
    ((httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL, ValueError),
     InvalidParameterError, "not a usable address or header for"),
    ((RuntimeError,), ReadError,
     "the httpx2 client is closed or belongs to another event loop; nothing can be sent to"),
    ((Exception,), ReadError, "the connection broke:"),
)  # fmt: skip


def _translated(error: Exception, url: str) -> MiniLLMError:
    where = origin_of_url(url)
    # Of other errors the text may quote what the server sent.
    reason = f" ({error})" if isinstance(error, httpx2.ConnectError) and str(error) else ""
    if isinstance(error, httpx2.ConnectError) and _is_about_tls(error):
        return TlsError(f"no valid TLS (is it an http address?) at {where}{reason}")
    if isinstance(error, httpx2.RemoteProtocolError) and _is_about_an_end(error):
        return ReadError(f"the connection broke: {where}{reason}")
    ours, what = next((ours, what) for kinds, ours, what in _ERRORS if isinstance(error, kinds))
    return ours(f"{what} {where}{reason}")


def _is_about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_about_an_end(error: Exception) -> bool:
    """Whether the server hung up, which httpx2 counts among the breaches of the protocol."""
    return "disconnected" in str(error) or "peer closed connection" in str(error)
