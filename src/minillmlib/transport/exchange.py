"""One exchange with a server under timeouts: a whole response, or events as they arrive.

Each wait is limited by a wall clock. An HTTP library's read timeout restarts with every byte, so
a server that drips bytes would outlive it.
"""

from collections.abc import Awaitable, Callable, Mapping

from minillmlib.errors import (
    LimitExceededError,
    MalformedResponseError,
    ReadError,
    RequestTimeoutError,
    TransportError,
)
from minillmlib.json_value import exceeds_value_count
from minillmlib.streaming.sse import SseDecoder, SseEvent
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport, was_sent
from minillmlib.transport.timeout import Timeout, TimeoutScope
from minillmlib.types.limits import Limits


class Exchange:
    """One request and its response: `fetch` it whole, or `open` it and read on.

    The attributes stay readable however the exchange ends.

    Attributes:
        status: The HTTP status, or None until the headers have arrived.
        headers: The response headers by lower-case name, not redacted.
        was_sent: Whether the request may have reached the server. True while it is being sent.
        is_closed: Whether `close` was called.
    """

    __slots__ = (
        "_decoder", "_limits", "_read", "_remaining_bytes", "_request", "_response", "_scope",
        "_transport", "headers", "is_closed", "status", "was_sent",
    )  # fmt: skip
    _decoder: SseDecoder
    _remaining_bytes: int
    _read: Callable[[], Awaitable[bytes]]

    def __init__(self, transport: Transport, request: HttpRequest, limits: Limits) -> None:
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.was_sent = self.is_closed = False
        self._transport = transport
        self._request: HttpRequest | None = request
        self._response: HttpResponse | None = None
        self._limits = limits
        self._scope = TimeoutScope()

    @property
    def waited_secs(self) -> float:
        """The duration of the last wait."""
        return self._scope.waited_secs

    async def fetch(self, max_wait: Timeout) -> bytes:
        """Send the request unless it is open, and return the whole body, all within one timeout."""
        body = bytearray()
        try:
            with self._scope.within(max_wait):
                if self.status is None:
                    await self._send()
                await self._read_into(body, self._limits.body_bytes)
        except (ReadError, RequestTimeoutError):
            if (self.status or 0) < 400:  # an error's status says enough without the whole body
                raise
        finally:
            self.close()
        data, max_values = bytes(body), self._limits.json_values
        if exceeds_value_count(data, max_values):
            raise _limit_error("a response", max_values, "json_values", "values")
        return data

    async def open(self, max_wait: Timeout) -> None:
        """Send the request and wait for the response headers."""
        try:
            with self._scope.within(max_wait):
                await self._send()
        except BaseException:  # headers too large, or time is up at the very moment they arrive
            self.close()
            raise
        self._decoder = SseDecoder(self._limits.event_bytes)
        self._remaining_bytes = self._limits.stream_bytes

    async def next_events(self, max_wait: Timeout) -> list[SseEvent] | None:
        """Return the events that the next bytes complete, maybe none; None at the end of the body.

        Events that arrived before a limit was exceeded are returned first.
        """
        if self._remaining_bytes < 0 or self._decoder.limit_error is not None:
            self._refuse_excess()
        with self._scope.within(max_wait):
            data = await self._read()
        if not data:
            return None
        self._remaining_bytes -= len(data)
        events = self._decoder.feed(data)
        if not events:
            self._refuse_excess()
        max_values = self._limits.json_values
        for event in events:
            if len(event.data) > max_values and exceeds_value_count(event.data, max_values):
                raise _limit_error("an event", max_values, "json_values", "values")
        return events

    async def drain(self, secs: float) -> None:
        """Read to the end of the body so that the connection can be reused, then close."""
        try:
            with self._scope.within(Timeout(secs, "silence")):
                await self._read_into(bytearray(), self._limits.event_bytes)
        except (TransportError, LimitExceededError):
            pass  # the response is complete; only the connection is lost
        finally:
            self.close()

    def close(self) -> None:
        """End the exchange at once, also while it is being opened."""
        self.is_closed = True
        response, self._response = self._response, None
        self._read = _read_nothing
        if response is not None:
            response.close()

    def close_threadsafe(self) -> None:
        """Schedule `close`, from any thread, also in a destructor."""
        if not self._scope.loop.is_closed():
            self._scope.loop.call_soon_threadsafe(self.close)

    async def _send(self) -> None:
        request, self._request = self._request, None  # a stream need not keep the body
        assert request is not None
        self.was_sent = True
        try:
            response = self._response = await self._transport.send(request)
        except BaseException as error:
            self.was_sent = was_sent(error)
            raise
        self._read, self.headers = response.read, response.headers
        self.status = response.status
        if self.is_closed:
            response.close()
        headers, limit = response.headers, self._limits.header_bytes
        if sum(map(len, headers)) + sum(map(len, headers.values())) > limit:
            raise _limit_error("headers", limit, "header_bytes")
        if response.status < 300 and _is_compressed(headers):
            raise MalformedResponseError(
                "the server compressed its response although the request forbids it; "
                "switch compression off there or at the gateway in front of it"
            )

    async def _read_into(self, body: bytearray, max_bytes: int) -> None:
        """Read the whole body; of a compressed error body nothing, as the status is enough.

        `body` is one block that grows: pieces to be concatenated would stay in the heap beside it.
        """
        if (self.status or 0) >= 300 and _is_compressed(self.headers):
            return
        while piece := await self._read():
            if len(body) + len(piece) > max_bytes:
                raise _limit_error("a response", max_bytes, "body_bytes")
            body += piece

    def _refuse_excess(self) -> None:
        """Raise if too much has arrived."""
        if self._remaining_bytes < 0:
            raise _limit_error("a stream", self._limits.stream_bytes, "stream_bytes")
        self._decoder.feed(b"")


async def _read_nothing() -> bytes:
    return b""


def _is_compressed(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "").strip().lower() not in ("", "identity")


def _limit_error(what: str, limit: int, name: str, unit: str = "bytes") -> LimitExceededError:
    return LimitExceededError(
        f"the server sends {what} of more than {limit:,} {unit}; "
        f"raise {name} of the generator's limits if that is right"
    )
