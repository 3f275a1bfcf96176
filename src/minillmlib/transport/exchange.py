"""One exchange with a server under a clock: a whole answer, or events as they come.

Time is bounded here, by a wall clock around each wait. An HTTP library's own time-outs count
per read, so a server that drips bytes outlives them.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from minillmlib.errors import (
    MalformedResponseError,
    ReadError,
    RequestTimeoutError,
    StaleConnectionError,
    TransportError,
)
from minillmlib.transport.contract import HttpRequest, HttpResponse, Transport
from minillmlib.transport.sse import SseDecoder, SseEvent
from minillmlib.values.json import excerpt

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Timeout

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
) -> "EventStream":
    """Sends and waits for the headers, at most `silence_secs`."""
    async with _within(silence_secs, "the first byte of the answer"):
        return EventStream(await _send(transport, request), silence_secs)


class EventStream:
    """The events of one answer. The clock runs only while we wait for the server."""

    __slots__ = ("_decoder", "_loop", "_response", "_silence_secs", "headers", "status")

    def __init__(self, response: HttpResponse, silence_secs: float | None) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._silence_secs = silence_secs
        self._decoder = SseDecoder()
        self._loop = _running_loop()

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

    def close_from_anywhere(self) -> None:
        """Ends the exchange soon, also from a destructor in another thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._response.close)

    def is_of_this_loop(self) -> bool:
        """Whether the event loop that runs is the one that opened the exchange."""
        return self._loop is _running_loop()


async def _send(transport: Transport, request: HttpRequest) -> HttpResponse:
    """Sends, and once more if only a kept connection had been closed under our feet.

    A server may close an idle connection at any moment, also while we write to it, so every
    client that keeps connections meets this.
    """
    try:
        response = await transport.send(request)
    except StaleConnectionError:
        anew = msgspec.structs.replace(request, on_new_connection=True)
        response = await transport.send(anew)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        response.close()
        raise MalformedResponseError(
            f"the server compressed its answer ({excerpt(encoding)}) though it was asked not to; "
            "switch compression off there or at the gateway before it"
        )
    return response


async def _read_all(response: HttpResponse) -> bytes:
    """The whole body; of an error's body also a part, since its status says the most."""
    pieces = []
    try:
        while piece := await response.read():
            pieces.append(piece)
    except ReadError:
        if response.status < 400:
            raise
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


# asyncio is a third of our import, and a program with a running loop has it already.
def _clock(secs: float | None) -> "Timeout":
    import asyncio  # noqa: PLC0415

    return asyncio.timeout(secs)


def _running_loop() -> "AbstractEventLoop":
    import asyncio  # noqa: PLC0415

    return asyncio.get_running_loop()
