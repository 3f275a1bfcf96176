"""Answers of a server by script."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import msgspec

from minillmlib.client.retry import set_default_retries
from minillmlib.errors import InvalidParameterError, ReadError
from minillmlib.json_value import JsonValue
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport
from minillmlib.transport.default import set_default_transport

__all__ = ["ScriptedReply", "ScriptedTransport", "use_transport", "without_retries"]


class ScriptedReply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a server, byte for byte.

    `pieces` arrive one at a time; after the last the body ends, or breaks off with a
    `ReadError` if `breaks_off`.
    """

    pieces: tuple[bytes, ...]
    status: int = 200
    headers: Mapping[str, str] = {}
    breaks_off: bool = False

    def __post_init__(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        msgspec.structs.force_setattr(self, "headers", headers)

    @classmethod
    def json(cls, value: JsonValue, *, status: int = 200) -> Self:
        """A JSON answer; `value` is encoded unless it is bytes already."""
        body = value if isinstance(value, bytes) else msgspec.json.encode(value)
        return cls(pieces=(body,), status=status, headers={"content-type": "application/json"})

    @classmethod
    def events(cls, *pieces: bytes, breaks_off: bool = False) -> Self:
        """A stream of server-sent events, cut where you cut it."""
        headers = {"content-type": "text/event-stream"}
        return cls(pieces=pieces, headers=headers, breaks_off=breaks_off)


class ScriptedTransport:
    """A transport that gives prepared answers in order and keeps the requests it was sent.

    Raises `InvalidParameterError` when it is asked more often than it has answers.
    """

    def __init__(self, replies: Iterable[ScriptedReply]) -> None:
        self.requests: list[HttpRequest] = []
        self._replies = iter(replies)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The next answer."""
        self.requests.append(request)
        reply = next(self._replies, None)
        if reply is None:
            raise InvalidParameterError("the script has no answer for this request")
        return _ScriptedResponse(reply)


@contextmanager
def use_transport(transport: Transport) -> Iterator[None]:
    """Sends every request of this process that names no transport through this one."""
    previous = set_default_transport(transport)
    try:
        yield
    finally:
        set_default_transport(previous)


@contextmanager
def without_retries() -> Iterator[None]:
    """Lets no call of this process try again unless its own settings name a number of retries.

    So that a failure in a script is seen at once, and not after waits and further requests.
    """
    previous = set_default_retries(0)
    try:
        yield
    finally:
        set_default_retries(previous)


class _ScriptedResponse:
    def __init__(self, reply: ScriptedReply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._breaks_off = reply.breaks_off
        self._pieces = iter(reply.pieces)

    async def read(self) -> bytes:
        piece = next((piece for piece in self._pieces if piece), b"")
        if not piece and self._breaks_off:
            raise ReadError("the answer broke off before its end (scripted)")
        return piece

    def close(self) -> None:
        self._pieces = iter(())
