"""The interface between the library and an HTTP engine."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.secret import HIDDEN, Secret
from minillmlib.errors import ConnectError, InvalidParameterError, MiniLLMError
from minillmlib.json_value import JsonValue
from minillmlib.transport.proxy import ENVIRONMENT, ProxySetting
from minillmlib.types.limits import Limits

CONNECT_TIMEOUT_SECS = 10.0

# A pooled connection that was closed before shows it within a round trip. A later failure may
# have been at work already, so sending again could cost twice.
STALE_SECS = 1.0

# An HTTP library's errors, ours, and their texts. The first match counts, so subclasses stand
# before their bases.
ErrorTable = Sequence[
    tuple[type[BaseException] | tuple[type[BaseException], ...], type[MiniLLMError], str]
]
PROXY_AUTHENTICATION_REQUIRED = 407
CHECK_ADDRESS = "is the address right, and is the server up?"


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A complete request with its credential. An error never holds one.

    `method` is `POST` for completions; cost lookups and batches have others, too. If
    `on_new_connection` is set, an engine that pools connections opens a new one. `proxy` is that
    of the generator, and `max_header_bytes` the limit on the headers of the response. `repeats` is
    how often the completion has sent the same before, None if the request is no completion.
    """

    url: str
    headers: tuple[tuple[str, str | Secret], ...]
    body: bytes
    method: str = "POST"
    on_new_connection: bool = False
    proxy: ProxySetting = ENVIRONMENT
    max_header_bytes: int = Limits().header_bytes
    repeats: int | None = None

    def expose_headers(self) -> list[tuple[str, str]]:
        """Return the headers as plain text, secrets included, for the moment of writing them."""
        return [
            (name, value.expose_secret() if isinstance(value, Secret) else value)
            for name, value in self.headers
        ]

    def __repr__(self) -> str:
        return f"HttpRequest(url={self.shown_url!r}, body={len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, JsonValue]]:
        return [("url", self.shown_url), ("headers", self.headers), ("bytes", len(self.body))]

    @property
    def shown_url(self) -> str:
        """The address, with "[hidden]" for what follows a "?"."""
        path, mark, _ = self.url.partition("?")  # some services want their key behind it
        return f"{path}?{HIDDEN}" if mark else path


class HttpResponse(Protocol):
    """The status and headers of a response, and its body piece by piece.

    A response for which nothing was sent, such as that of a cache, says so by an attribute
    `was_sent`, which is False: then nothing is billed. If a response has a method `accept`, it is
    called without arguments once its answer was understood as whole; it must not raise. A
    transport around another hands on both.
    """

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, with names in lower case."""
        ...

    async def read(self) -> bytes:
        """Return the next piece of the body as it arrives, `b""` at its proper end.

        Raises `ReadError` if the connection breaks before that end.
        """
        ...

    def close(self) -> None:
        """Return the connection to its pool if the body was read to its end, else close it.

        Takes effect at once, without a turn of the event loop. Further calls do nothing.
        """
        ...


@runtime_checkable
class Transport(Protocol):
    """Sends a request. An engine has no timeout except on connecting."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send `request` once and return when the response headers have arrived.

        Never follows a redirect, never sends twice. Raises `ConnectError` if nothing was sent,
        `StaleConnectionError` if a pooled connection was already closed, `ReadError` if the
        connection broke otherwise, `ProtocolError` if the response is not HTTP.

        Any other exception counts as raised after sending, and may be billed. If nothing was
        sent, set `was_sent = False` on it, also on `asyncio.CancelledError`.
        """
        ...


def check_transport(transport: object) -> None:
    """Raise `InvalidParameterError` unless this is a transport or None."""
    is_object = isinstance(transport, Transport) and not isinstance(transport, type)
    if transport is not None and not is_object:
        raise InvalidParameterError(
            f"a transport is an object with an async method send(request), not {transport!r:.80}"
        )


def was_sent(error: BaseException) -> bool:
    """Whether the request may have been sent before `error` left an engine's `send`."""
    is_sent: bool = vars(error).get("was_sent", not isinstance(error, ConnectError))
    return is_sent


def note_not_sent(error: BaseException) -> None:
    """Record on `error` that nothing of the request was sent."""
    vars(error)["was_sent"] = False


def translate_error(
    error: BaseException, table: ErrorTable, url: str, reason: object = None, via: str = ""
) -> MiniLLMError:
    """Return our error for one of an HTTP library; it names the server and perhaps a reason.

    `via` is the address of the proxy, if there is one.
    """
    ours, text = next((ours, text) for theirs, ours, text in table if isinstance(error, theirs))
    suffix = f" through the proxy {via}" if via else ""
    suffix += f" ({reason})" if reason else ""
    return ours(f"{text} {origin_of(url)}{suffix}")


def origin_of(url: str) -> str:
    """Return the server of an address, as errors name it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(it cannot be read)"
    return f"{parts.scheme}://{parts.netloc}"


def refuse_by_proxy(status: int, url: str, via: str) -> ConnectError:
    """Return the error for a proxy that answers `status` itself instead of connecting.

    `via` is its address, or `""` if only the caller's client knows it.
    """
    hint = (
        "; give its user name and password, as http://user:password@host:port, in with_proxy "
        "or in the environment"
        if status == PROXY_AUTHENTICATION_REQUIRED
        else ""
    )
    failure = ConnectError(
        f"the proxy {via}{' ' if via else ''}refused to connect to {origin_of(url)} "
        f"(status {status}){hint}"
    )
    failure.is_retryable = status >= 500
    return failure
