"""A transport with scripted responses."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import msgspec

from minillmlib.client.retry import set_default_retries
from minillmlib.errors import InvalidParameterError, ReadError
from minillmlib.json_value import JsonValue
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport
from minillmlib.transport.default import set_default_transport


class ScriptedReply(msgspec.Struct, frozen=True, kw_only=True):
    """One response, byte for byte.

    `pieces` arrive one at a time. After the last one the body ends, or raises `ReadError` if
    `breaks_off` is set.
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
        """Return a JSON response; `value` is encoded unless it is bytes already."""
        body = value if isinstance(value, bytes) else msgspec.json.encode(value)
        return cls(pieces=(body,), status=status, headers={"content-type": "application/json"})

    @classmethod
    def events(cls, *pieces: bytes, breaks_off: bool = False) -> Self:
        """Return a stream of server-sent events that arrives in these pieces."""
        headers = {"content-type": "text/event-stream"}
        return cls(pieces=pieces, headers=headers, breaks_off=breaks_off)


class ScriptedTransport:
    """Returns prepared responses in order and records the `requests` it is sent.

    Raises `InvalidParameterError` for more requests than it has responses.

    Examples:
        >>> message = {"message": {"content": "Paris."}, "finish_reason": "stop"}
        >>> transport = ScriptedTransport([ScriptedReply.json({"choices": [message]})])
        >>> generator = GeneratorInfo.custom("mine", "https://llm.example/v1", "m")
        >>> run(ChatNode.root().chat("Hello", generator.with_transport(transport))).text
        'Paris.'
        >>> len(transport.requests)
        1
    """

    def __init__(self, replies: Iterable[ScriptedReply]) -> None:
        self.requests: list[HttpRequest] = []
        self._replies = iter(replies)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Record `request` and return the next response."""
        self.requests.append(request)
        reply = next(self._replies, None)
        if reply is None:
            raise InvalidParameterError(
                "the script has no response for this request; give ScriptedTransport one more reply"
            )
        return _ScriptedResponse(reply)


@contextmanager
def use_transport(transport: Transport) -> Iterator[None]:
    """Send the requests of all generators without a transport of their own through this one.

    Examples:
        >>> with use_transport(ScriptedTransport([ScriptedReply.json({"error": "x"}, status=400)])):
        ...     run(ChatNode.root().chat("Hello", GeneratorInfo.openai("gpt-4o-mini")))
        Traceback (most recent call last):
        ...
        minillmlib.BadRequestError: ...
    """
    previous = set_default_transport(transport)
    try:
        yield
    finally:
        set_default_transport(previous)


@contextmanager
def without_retries() -> Iterator[None]:
    """Retry nothing in this process, unless a call's settings have `retry`.

    A scripted failure is then raised at once, not after waits and further requests.
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
            raise ReadError("the response broke off before its end (scripted)")
        return piece

    def close(self) -> None:
        self._pieces = iter(())
