"""One exchange with a server under timeouts: a whole response, or events as they arrive.

Each wait is limited by a wall clock. An HTTP library's read timeout restarts with every byte, so
a server that drips bytes would outlive it.
"""

from collections.abc import Awaitable, Callable, Container, Mapping
from types import MappingProxyType

from minillmlib.errors import (
    LimitExceededError,
    MalformedResponseError,
    ReadError,
    RequestTimeoutError,
    TransportError,
)
from minillmlib.json_value import exceeds_value_count
from minillmlib.streaming.framing import Decoder, JsonDecoder, choose_decoder, trim_start
from minillmlib.streaming.sse import SseEvent, limit_error
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport, was_sent
from minillmlib.transport.timeout import Timeout, TimeoutScope
from minillmlib.types.limits import Limits

STREAM_TYPES = ("text/event-stream",)


class Exchange:
    """One request and its response: `fetch` it whole, or `open` it and read on.

    The attributes stay readable however the exchange ends.

    Attributes:
        status: The HTTP status, or None until the headers have arrived.
        headers: The response headers by lower-case name, not redacted.
        accept: The `accept` of the response, if it has one, to be called for a whole answer.
        was_sent: Whether the request may have reached the server. True while it is being sent.
        is_closed: Whether `close` was called.
        is_stream: Whether the content type or the first bytes say that a stream comes.
        document: The whole body of an opened exchange that turned out to be no stream.
    """

    status: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    accept: Callable[[], object] | None = None
    was_sent = is_closed = is_stream = False
    document: bytes | None = None
    _response: HttpResponse | None = None
    _decoder: Decoder | None = None  # None until the first bytes show the framing
    _start = b""
    _remaining_bytes: int
    _read: Callable[[], Awaitable[bytes]]

    def __init__(self, transport: Transport, request: HttpRequest, limits: Limits) -> None:
        self._transport = transport
        self._request: HttpRequest | None = request
        self._limits = limits
        self._scope = TimeoutScope()

    def wrap_transport(self, wrap: Callable[[Transport], Transport]) -> None:
        """Send through what `wrap` makes of the transport."""
        self._transport = wrap(self._transport)

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
        data = bytes(body)
        body.clear()  # what follows takes memory of its own
        self._check_value_count(data, "a response")
        return data

    async def open(self, max_wait: Timeout, stream_types: Container[str] = STREAM_TYPES) -> None:
        """Send the request and wait for the headers.

        `stream_types` are the content types that declare a stream; the first bytes outrank them.
        """
        try:
            with self._scope.within(max_wait):
                await self._send()
        except BaseException:  # headers too large, or time is up at the very moment they arrive
            self.close()
            raise
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.is_stream = kind in stream_types
        self._remaining_bytes = self._limits.stream_bytes

    async def next_piece(self, max_wait: Timeout) -> bytes:
        """Return the next bytes of an opened exchange, `b""` at the end of its body."""
        with self._scope.within(max_wait):
            return await self._read()

    async def next_events(self, max_wait: Timeout) -> list[SseEvent] | None:
        """Return the events that the next bytes complete, maybe none; None at the end of the body.

        Events that arrived before a limit was exceeded are returned first. If the body is no
        stream, there are none, and at its end it is the `document`.
        """
        decoder = self._decoder
        if self._remaining_bytes < 0 or (decoder is not None and decoder.limit_error is not None):
            self._refuse_excess()
        with self._scope.within(max_wait):
            data = await self._read()
        if not data:
            return self._finish()
        self._remaining_bytes -= len(data)
        if decoder is None:
            data = trim_start(self._start + data)
            decoder = choose_decoder(data, self._limits, is_declared=self.is_stream)
            self._decoder, self._start = decoder, b"" if decoder else data
        events: list[SseEvent] = []
        if decoder is not None:
            events = decoder.feed(data)
            self.is_stream = decoder.is_stream
        if not events:
            self._refuse_excess()
        limits = self._limits
        if limits.stream_bytes - self._remaining_bytes > limits.json_values:
            for event in events:
                if len(event.data) > limits.json_values:
                    self._check_value_count(event.data, "an event")
        return events

    def _finish(self) -> list[SseEvent] | None:
        """Return the events that the end of the body completes, or None if there are none."""
        if self._read is _read_nothing:
            return None
        self._read = _read_nothing
        if self._decoder is None:  # too short to have shown its framing
            if self.is_stream:
                return None
            self._decoder = JsonDecoder(self._limits, is_document=True)
            self._decoder.feed(self._start)
        events = self._decoder.finish()
        if isinstance(self._decoder, JsonDecoder):
            self.document = self._decoder.document
            self._check_value_count(self.document or b"", "a response")
        for event in events:
            self._check_value_count(event.data, "an event")
        return events or None

    @property
    def unread(self) -> bytes:
        """The start of the text that the stream sent beside its events."""
        return b"" if self._decoder is None else self._decoder.unread

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
        self.was_sent = getattr(response, "was_sent", True)
        self.accept = getattr(response, "accept", None)
        self.status = response.status
        if self.is_closed:
            response.close()
        headers, limit = response.headers, self._limits.header_bytes
        if sum(map(len, headers)) + sum(map(len, headers.values())) > limit:
            raise limit_error("headers", limit, "header_bytes")
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
                raise limit_error("a response", max_bytes, "body_bytes")
            body += piece

    def _refuse_excess(self) -> None:
        """Raise if too much has arrived."""
        if self._remaining_bytes < 0:
            raise limit_error("a stream", self._limits.stream_bytes, "stream_bytes")
        if self._decoder is not None:
            self._decoder.feed(b"")

    def _check_value_count(self, data: bytes | str, what: str) -> None:
        max_values = self._limits.json_values
        if exceeds_value_count(data, max_values):
            raise limit_error(what, max_values, "json_values", "values")


async def _read_nothing() -> bytes:
    return b""


def _is_compressed(headers: Mapping[str, str]) -> bool:
    encoding = headers.get("content-encoding")
    return encoding is not None and encoding.strip().lower() not in ("", "identity")
