"""One exchange with a server under a clock: a whole answer, or events as they come.

Time is bounded here, by a wall clock around each wait. An HTTP library's own time-outs count
per read, so a server that drips bytes outlives them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from minillmlib.errors import RequestTimeoutError, StaleConnectionError, TransportError
from minillmlib.transport.contract import HttpRequest, HttpResponse, Transport
from minillmlib.transport.sse import SseDecoder, SseEvent

if TYPE_CHECKING:
    from asyncio import Timeout

__all__ = ["EventStream", "HttpReply", "exchange", "open_events"]


class HttpReply(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def exchange(
    transport: Transport, request: HttpRequest, timeout_secs: float | None
) -> HttpReply:
    """Sends and reads the whole answer within `timeout_secs` in all (None: no bound)."""
    async with _within(timeout_secs, "the whole answer"):
        response = await _send(transport, request)
        try:
            return HttpReply(response.status, response.headers, await _read_all(response))
        finally:
            response.close()


async def open_events(
    transport: Transport, request: HttpRequest, silence_secs: float | None
) -> EventStream:
    """Sends and waits for the headers, at most `silence_secs`."""
    async with _within(silence_secs, "the first byte of the answer"):
        return EventStream(await _send(transport, request), silence_secs)


class EventStream:
    """The events of one answer. The clock runs only while we wait for the server."""

    __slots__ = ("_decoder", "_response", "_silence_secs", "headers", "status")

    def __init__(self, response: HttpResponse, silence_secs: float | None) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._silence_secs = silence_secs
        self._decoder = SseDecoder()

    async def next_events(self, within_secs: float | None = None) -> list[SseEvent] | None:
        """What the next bytes complete, perhaps nothing; None at the end of the body.

        `within_secs` bounds this wait more tightly than the silence bound of the stream.
        Raises `RequestTimeoutError` when not one byte came in time.
        """
        bounds = [secs for secs in (self._silence_secs, within_secs) if secs is not None]
        async with _within(min(bounds, default=None), "the next piece of the stream"):
            data = await self._response.read()
        return self._decoder.feed(data) if data else None

    async def read_body(self) -> bytes:
        """The body as it is, for an answer that turns out not to be an event stream."""
        async with _within(self._silence_secs, "the whole answer"):
            return await _read_all(self._response)

    async def linger(self, secs: float) -> None:
        """Reads on to the end of the body, so that the connection can serve again, and closes."""
        try:
            async with _clock(secs):
                await _read_all(self._response)
        except (TimeoutError, TransportError):
            pass  # the answer is complete; only the connection is lost
        finally:
            self.close()

    def close(self) -> None:
        """Ends the exchange at once."""
        self._response.close()


async def _send(transport: Transport, request: HttpRequest) -> HttpResponse:
    """Sends, and once more if only a kept connection had been closed under our feet.

    A server may close an idle connection at any moment, also while we write to it, so every
    client that keeps connections meets this.
    """
    try:
        return await transport.send(request)
    except StaleConnectionError:
        return await transport.send(request)


async def _read_all(response: HttpResponse) -> bytes:
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    return b"".join(pieces)


@asynccontextmanager
async def _within(secs: float | None, what: str) -> AsyncIterator[None]:
    """Bounds a wait. Never spans a `yield` to the caller of the library."""
    clock = _clock(secs)
    try:
        async with clock:
            yield
    except TimeoutError:
        if clock.expired():
            raise RequestTimeoutError(
                f"{what} did not come within {secs:g} s; "
                "raise timeout_secs if the model may take longer"
            ) from None
        raise


def _clock(secs: float | None) -> Timeout:
    import asyncio  # noqa: PLC0415 - a third of our import, and a running loop has it already

    return asyncio.timeout(secs)
