"""One exchange with a server under a clock: a whole answer, or events as they come.

Time is bounded here, by a wall clock around each wait. An HTTP library's own time-outs count
per read, so a server that drips bytes outlives them.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from minillmlib.errors import (
    LimitExceededError,
    MalformedResponseError,
    ReadError,
    RequestTimeoutError,
    TransportError,
)
from minillmlib.json_value import exceeds_value_count
from minillmlib.streaming.sse import SseDecoder, SseEvent
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport
from minillmlib.transport.timeout import Bound, Watchdog, running_loop
from minillmlib.types.limits import Limits

__all__ = ["EventStream", "HttpReply", "exchange", "open_events"]


class HttpReply(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Heard: TypeAlias = Callable[[int, Mapping[str, str]], Mapping[str, str]]


async def exchange(
    transport: Transport, request: HttpRequest, bound: Bound, limits: Limits, heard: Heard
) -> HttpReply:
    """Sends and reads the whole answer, within `bound` in all.

    `heard` is told of its beginning, and gives the headers as they may be kept.
    """
    response: HttpResponse | None = None
    headers: Mapping[str, str] = {}
    body = bytearray()
    try:
        with Watchdog().within(bound):
            response = await transport.send(request)
            headers = _hear(response, limits, heard)
            await _read_into(body, response, limits.body_bytes)
    except (ReadError, RequestTimeoutError):
        if response is None or response.status < 400:
            raise
    finally:
        if response is not None:
            response.close()
    return HttpReply(response.status, headers, _checked(body, limits))


async def open_events(
    transport: Transport, request: HttpRequest, bound: Bound, limits: Limits, heard: Heard
) -> "EventStream":
    """Sends and waits for the headers, of which `heard` is told as in `exchange`."""
    response: HttpResponse | None = None
    watchdog = Watchdog()
    try:
        with watchdog.within(bound):
            response = await transport.send(request)
            headers = _hear(response, limits, heard)
    except BaseException:
        if response is not None:  # too large, or the clock ran out in that very moment
            response.close()
        raise
    return EventStream(response, headers, limits, watchdog)


class EventStream:
    """The events of one answer. The clock runs only while we wait for the server."""

    __slots__ = (
        "_bytes_left", "_decoder", "_limits", "_loop", "_response", "headers", "status", "watchdog"
    )  # fmt: skip

    def __init__(
        self,
        response: HttpResponse,
        headers: Mapping[str, str],
        limits: Limits,
        watchdog: Watchdog,
    ) -> None:
        self.status = response.status
        self.headers = headers
        self._response = response
        self._limits = limits
        self.watchdog = watchdog
        self._bytes_left = limits.stream_bytes
        self._decoder = SseDecoder(limits.event_bytes)
        self._loop = running_loop()

    async def next_events(self, bound: Bound) -> list[SseEvent] | None:
        """What the next bytes complete, perhaps nothing; None at the end of the body."""
        if self._bytes_left < 0 or self._decoder.too_much is not None:
            self._refuse_excess()
        with self.watchdog.within(bound):
            data = await self._response.read()
        if not data:
            return None
        self._bytes_left -= len(data)
        events = self._decoder.feed(data)
        if not events:
            self._refuse_excess()
        most = self._limits.json_values
        for event in events:
            if len(event.data) > most and exceeds_value_count(event.data, most):
                raise _too_many_values("an event", most)
        return events

    def _refuse_excess(self) -> None:
        """Raises if too much has come, once all that came before it has been taken."""
        if self._bytes_left < 0:
            raise _too_much("a stream", self._limits.stream_bytes, "stream_bytes")
        self._decoder.feed(b"")

    async def read_body(self, bound: Bound) -> bytes:
        """The body as it is, for an answer that turns out not to be an event stream."""
        body = bytearray()
        try:
            with self.watchdog.within(bound):
                await _read_into(body, self._response, self._limits.body_bytes)
        except (ReadError, RequestTimeoutError):
            if self.status < 400:
                raise
        return _checked(body, self._limits)

    async def linger(self, secs: float) -> None:
        """Reads on to the end of the body, so that the connection can serve again, and closes."""
        try:
            with self.watchdog.within(Bound(secs, "silence")):
                await _read_into(bytearray(), self._response, self._limits.event_bytes)
        except (TransportError, LimitExceededError):
            pass  # the answer is complete; only the connection is lost
        finally:
            self.close()

    def close(self) -> None:
        """Ends the exchange at once."""
        self._response.close()

    def close_from_anywhere(self) -> None:
        """Ends the exchange soon, also from a destructor in another thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)


def _hear(response: HttpResponse, limits: Limits, heard: Heard) -> Mapping[str, str]:
    headers = response.headers
    kept = heard(response.status, headers)
    if sum(map(len, headers)) + sum(map(len, headers.values())) > limits.header_bytes:
        raise _too_much("headers", limits.header_bytes, "header_bytes")
    if response.status < 300 and _is_compressed(headers):
        raise MalformedResponseError(
            "the server compressed its answer though it was asked not to; "
            "switch compression off there or at the gateway before it"
        )
    return kept


def _is_compressed(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "").strip().lower() not in ("", "identity")


def _checked(body: bytearray, limits: Limits) -> bytes:
    whole = bytes(body)
    if exceeds_value_count(whole, limits.json_values):
        raise _too_many_values("an answer", limits.json_values)
    return whole


async def _read_into(body: bytearray, response: HttpResponse, most_bytes: int) -> None:
    """Reads the whole body. Of an error's, a part or nothing is enough: its status says the most.

    `body` is one block that grows; joined pieces would stay in the heap beside it.
    """
    if response.status >= 300 and _is_compressed(response.headers):  # others are refused before
        return
    while piece := await response.read():
        if len(body) + len(piece) > most_bytes:
            raise _too_much("an answer", most_bytes, "body_bytes")
        body += piece


def _too_much(what: str, limit: int, name: str) -> LimitExceededError:
    return LimitExceededError(
        f"the server sends {what} of more than {limit:,} bytes; "
        f"raise {name} of the generator's limits if that is right"
    )


def _too_many_values(what: str, limit: int) -> LimitExceededError:
    return LimitExceededError(
        f"the server sends {what} of more than {limit:,} values; "
        "raise json_values of the generator's limits if that is right"
    )
