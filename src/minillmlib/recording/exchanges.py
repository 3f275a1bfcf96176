"""Records an exchange while it goes on, and plays one back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from minillmlib.deferred_imports import asyncio_module, logger
from minillmlib.errors import MiniLLMError, ReadError, StorageError
from minillmlib.recording.records import (
    Body,
    End,
    RecordedExchange,
    RecordedRequest,
    record_error,
    redact_headers,
    redact_request,
    redactor_for,
)
from minillmlib.transport.base import (
    HttpRequest,
    HttpResponse,
    Transport,
    note_not_sent,
    was_sent,
)

if TYPE_CHECKING:
    from asyncio import Future

OnEnd = Callable[[RecordedExchange], None]


def _ignore() -> None:
    pass


class ExchangeRecorder:
    """Sends one request and gives `on_end` the exchange, once, however it ends.

    `on_accept` is called when the answer was understood as whole, before or after its end.
    """

    def __init__(
        self, request: HttpRequest, on_end: OnEnd, on_accept: Callable[[], None] = _ignore
    ) -> None:
        self.on_accept = on_accept
        self._redactor = redactor_for(request)
        self.request: RecordedRequest = redact_request(request, self._redactor)
        self._on_end: OnEnd | None = on_end
        self._started_at, self._started = time.time(), time.monotonic()
        self._pieces: list[bytes] = []
        self._times: list[float] = []
        self._response: HttpResponse | None = None
        self._headers_secs = 0.0

    async def send(self, request: HttpRequest, transport: Transport) -> HttpResponse:
        """Send the request; return the response, whose reading is recorded."""
        try:
            self._response = await transport.send(request)
        except BaseException as error:
            self.fail(error, was_sent=was_sent(error))
            raise
        self._headers_secs = self._secs()
        return _RecordedResponse(self._response, self)

    def _secs(self) -> float:
        return round(time.monotonic() - self._started, 6)

    def add(self, piece: bytes) -> None:
        """Record a piece of the body."""
        self._pieces.append(piece)
        self._times.append(self._secs())

    def fail(self, error: BaseException, *, was_sent: bool = True) -> None:
        """Record that the transport raised, and log if that cannot be written."""
        try:
            if isinstance(error, Exception):
                self.end("failed", error, was_sent=was_sent)
            else:
                self.end("cancelled", was_sent=was_sent)
        except StorageError as problem:
            logger().error("an exchange was not recorded: %s", problem)

    def end(self, end: End, error: BaseException | None = None, *, was_sent: bool = True) -> None:
        """Hand over the exchange, unless that was done."""
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        response, redactor = self._response, self._redactor
        headers = {} if response is None else dict(response.headers)
        pieces = redactor.redact_pieces(self._pieces)
        self._pieces.clear()  # they may hold a secret, and frames of a user's error this
        times = zip(self._times, pieces, strict=True)
        exchange = RecordedExchange(
            started_at=self._started_at,
            request=self.request,
            was_sent=was_sent and getattr(response, "was_sent", True),
            status=None if response is None else response.status,
            headers=redact_headers(headers, redactor),
            headers_secs=self._headers_secs,
            body=Body.of(b"".join(pieces)),
            pieces=tuple((secs, len(piece)) for secs, piece in times if piece),
            ended=end,
            error=None if error is None else record_error(error, redactor),
        )
        on_end(exchange)


class _RecordedResponse:
    """A response of a server, which is recorded as it is read."""

    def __init__(self, response: HttpResponse, recorder: ExchangeRecorder) -> None:
        self._response = response
        self._recorder = recorder
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.was_sent: bool = getattr(response, "was_sent", True)

    async def read(self) -> bytes:
        try:
            piece = await self._response.read()
        except BaseException as error:
            self._recorder.fail(error)
            raise
        if piece:
            self._recorder.add(piece)
        else:
            self._recorder.end("whole")
        return piece

    def accept(self) -> None:
        accept = getattr(self._response, "accept", None)
        if accept is not None:
            accept()
        self._recorder.on_accept()

    def close(self) -> None:
        self._response.close()
        try:
            self._recorder.end("left")
        except StorageError as problem:
            logger().error("an exchange was not recorded: %s", problem)


async def replay(
    exchange: RecordedExchange, *, keeps_timing: bool = False, was_sent: bool = True
) -> HttpResponse:
    """Return the recorded response, or raise, or wait for ever, as the transport did."""
    response = ReplayedResponse(exchange, keeps_timing=keeps_timing, was_sent=was_sent)
    await response.wait(exchange.headers_secs)
    if exchange.status is None:
        await response.end()
    return response


class ReplayedResponse:
    """A recorded response: the same pieces, and the same end.

    If the reader was cancelled, there is no more to come and no end either, until the reader of
    this one is cancelled, too.
    """

    _waiting: Future[None] | None = None  # for an end that does not come

    def __init__(self, exchange: RecordedExchange, *, keeps_timing: bool, was_sent: bool) -> None:
        self.status = exchange.status or 0
        self.headers: Mapping[str, str] = exchange.headers
        self.was_sent = was_sent and exchange.was_sent
        if not was_sent:  # the limits were those of another time
            self.headers = {k: v for k, v in self.headers.items() if "ratelimit" not in k}
        self._exchange = exchange
        self._started = time.monotonic() if keeps_timing else None
        self._data = exchange.body.data
        ends = accumulate(size for _, size in exchange.pieces)
        pieces = zip(exchange.pieces, ends, strict=True)
        self._pieces = iter([(secs, end - size, end) for (secs, size), end in pieces])
        self._is_closed = False

    async def read(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is None:
            return await self.end()
        secs, start, end = piece
        await self.wait(secs)
        return self._data[start:end]

    def close(self) -> None:
        self._pieces = iter(())
        self._is_closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, secs: float) -> None:
        """Wait until so many seconds after the start, or for one turn of the event loop."""
        due = 0.0 if self._started is None else self._started + secs - time.monotonic()
        await asyncio_module().sleep(max(due, 0.0))

    async def end(self) -> bytes:
        """Return the proper end of the body, or end as the exchange ended."""
        exchange = self._exchange
        if self._is_closed or exchange.ended == "whole":
            return b""
        error: MiniLLMError = ReadError(
            "the recording ends here, because its reader left; record it anew, and read on"
        )
        if exchange.ended == "cancelled":
            await self._wait_to_be_cancelled()
            error = ReadError("the response was closed while it was read")
        elif exchange.error is not None:
            error = exchange.error.to_error()
        if not exchange.was_sent:
            note_not_sent(error)
        raise error

    async def _wait_to_be_cancelled(self) -> None:
        asyncio = asyncio_module()
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        except asyncio.CancelledError as error:
            if not self._exchange.was_sent:
                note_not_sent(error)
            raise
