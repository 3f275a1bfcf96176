"""What the rest of the library needs of an HTTP engine, and nothing more."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

__all__ = ["Departure", "HttpRequest", "HttpResponse", "Transport"]


class Departure:
    """Whether a request may have left this machine, for the record of what may be billed.

    An engine that knows says False when it begins and True before it hands over the first byte;
    of one that says nothing, the worst is assumed.
    """

    may_have_left = True


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One POST with a JSON body, complete with its credential. Never kept on an error.

    `method` is `GET`, and the body empty, for a question about a request of before.

    An engine that keeps connections opens one of its own if `on_new_connection`, and tells
    `departure` what it knows.
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    method: str = "POST"
    on_new_connection: bool = False
    departure: Departure = msgspec.field(default_factory=Departure)

    def __repr__(self) -> str:
        return f"HttpRequest(url={self.url!r}, body={len(self.body)} bytes)"


class HttpResponse(Protocol):
    """The status and headers of an answer, and its body piece by piece."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, with names in lower case."""
        ...

    async def read(self) -> bytes:
        """The next piece of the body as it arrives, `b""` at its proper end.

        Raises `ReadError` if the connection breaks before that end.
        """
        ...

    def close(self) -> None:
        """Gives the connection back if the body was read to its end, else closes it.

        Takes effect at once, without a turn of the event loop; calling it again does nothing.
        """
        ...


@runtime_checkable
class Transport(Protocol):
    """Sends a request. An engine keeps no clock beyond a bound on connecting."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends `request` once and returns when the headers of the answer are there.

        Never follows a redirect, never sends twice. Raises `ConnectError` when nothing was
        sent, `StaleConnectionError` when a connection kept from before was already closed,
        `ReadError` when the connection broke otherwise, `ProtocolError` when what came is no
        HTTP.
        """
        ...
