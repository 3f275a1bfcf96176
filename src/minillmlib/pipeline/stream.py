"""One streamed completion: chunks as they come, and at the end the same response as a whole."""

from __future__ import annotations

import enum
import time
import warnings
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Self

import msgspec

from minillmlib.errors import (
    IncompleteStreamError,
    InvalidParameterError,
    MalformedResponseError,
    MiniLLMError,
    TransportError,
)
from minillmlib.pipeline.encode import encode
from minillmlib.pipeline.plan import Call
from minillmlib.pipeline.read import read_reply, reading, settle, transport_of
from minillmlib.providers.failures import error_from_payload, request_id_of
from minillmlib.transport.exchange import EventStream, open_events
from minillmlib.transport.sse import SseEvent
from minillmlib.values.auth import Auth
from minillmlib.values.json import JsonValue, decode_json, excerpt
from minillmlib.values.responses import CompletionResponse, ResponseFold, StreamChunk

__all__ = ["CompletionStream"]

USAGE_GRACE_SECS = 2.0  # how long token counts may come after the finish reason
LINGER_SECS = 0.25  # how long the connection may take to end after the end marker


class _Phase(enum.Enum):
    """Where a stream stands. It only ever moves down this list."""

    NEW = enum.auto()
    READING = enum.auto()
    ENDING = enum.auto()  # the answer is complete, its last chunks may wait to be taken
    OVER = enum.auto()


class CompletionStream:
    """The chunks of one answer, by `async for`.

    A class and not an asynchronous generator, so that dropping it in the middle of a loop
    ends the connection at once.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._phase = _Phase.NEW
        self._auth = Auth.none()
        self._events: EventStream | None = None
        self._fold = ResponseFold()
        self._pending: deque[SseEvent] = deque()  # arrived, not yet read
        self._ready: deque[StreamChunk] = deque()  # read, not yet taken by the caller
        self._grace_ends = 0.0
        self._response: CompletionResponse | None = None
        self._is_delivered = False

    @property
    def response(self) -> CompletionResponse:
        """The whole answer, once the stream was read to its end."""
        if self._response is None or not self._is_delivered:
            raise InvalidParameterError("the stream has not been read to its end")
        return self._response

    async def __aenter__(self) -> Self:
        if self._phase is _Phase.NEW:
            await self._guarded(self._open())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the stream and its connection at once. May be called again."""
        self._ready.clear()
        self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamChunk:
        while not self._ready:
            match self._phase:
                case _Phase.NEW:
                    await self._guarded(self._open())
                case _Phase.READING:
                    await self._guarded(self._read_more())
                case _Phase.ENDING:
                    await self._guarded(self._finish())
                case _Phase.OVER:
                    raise StopAsyncIteration
        return self._ready.popleft()

    async def _guarded(self, step: Coroutine[None, None, None]) -> None:
        """Runs one step; whatever goes wrong ends the stream and carries the text so far."""
        try:
            await step
        except MiniLLMError as error:
            error.partial = self._fold.text + error.partial
            self._close()
            raise
        except BaseException:
            self._close()
            raise

    async def _open(self) -> None:
        call = self._call
        self._phase = _Phase.READING
        self._auth = call.generator.credential.resolve()
        request = encode(call, self._auth)
        self._events = await open_events(transport_of(call), request, call.timeout_secs)
        if not _is_event_stream(self._events):
            with reading(self._auth, self._events.headers):
                await self._take_whole(self._events)

    async def _take_whole(self, events: EventStream) -> None:
        """For an error, and for a server that answers a request for a stream in one piece."""
        body = await events.read_body()
        response = read_reply(self._call, events.status, events.headers, body)
        self._response = response
        self._ready.append(
            StreamChunk(
                id=response.id,
                model=response.model,
                delta=response.content,
                finish_reason=response.finish_reason,
                raw_finish_reason=response.raw_finish_reason,
                refusal=response.refusal,
                usage=response.usage,
            )
        )
        self._phase = _Phase.ENDING

    async def _read_more(self) -> None:
        """Takes one event at a time, so that an error never overtakes the text before it."""
        events = self._open_events()
        with reading(self._auth, events.headers):
            if self._pending:
                self._take(self._pending.popleft())
                if self._is_over():
                    self._complete()
                return
            batch = await self._next_batch(events)
            if batch is None:
                self._complete()
            else:
                self._pending.extend(batch)

    async def _next_batch(self, events: EventStream) -> list[SseEvent] | None:
        if self._fold.finish_reason is None:
            return await events.next_events()
        try:
            return await events.next_events(max(0.0, self._grace_ends - time.monotonic()))
        except TransportError:
            return None  # the answer was finished; only its token counts are lost

    def _take(self, event: SseEvent) -> None:
        if event.event == "error":
            raise error_from_payload(_error_payload(event.data))
        chunk = self._call.generator.provider.parse_chunk(event.data)
        if chunk is None:
            return
        had_finished = self._fold.finish_reason is not None
        self._fold.add(chunk)
        if self._fold.finish_reason is not None and not had_finished:
            self._grace_ends = time.monotonic() + USAGE_GRACE_SECS
        if chunk.delta or chunk.refusal or self._fold.finish_reason is not None:
            self._ready.append(chunk)

    def _is_over(self) -> bool:
        """Whether nothing that matters can follow."""
        if self._fold.has_ended:
            return True
        if self._fold.finish_reason is None:
            return False
        return not self._call.generator.provider.emits_stream_usage(requested=True)

    def _complete(self) -> None:
        if not self._fold.is_complete:
            raise IncompleteStreamError(
                "the stream ended without the wire's end signal, so the answer may be cut; "
                "`partial` of this error holds the text so far"
            )
        self._response = self._fold.response()
        self._phase = _Phase.ENDING

    async def _finish(self) -> None:
        events, response = self._open_events(), self._response
        assert response is not None
        await events.linger(LINGER_SECS)
        request_id = request_id_of(events.headers)
        response = msgspec.structs.replace(response, request_id=request_id)
        self._response = settle(self._call, response)
        self._is_delivered = True
        self._close()
        self._deliver(self._response)

    def _deliver(self, response: CompletionResponse) -> None:
        """Called once, when the last chunk was taken. For classes that keep the answer."""

    def _open_events(self) -> EventStream:
        assert self._events is not None
        return self._events

    def _close(self) -> None:
        self._phase = _Phase.OVER
        if self._events is not None:
            self._events.close()
            self._events = None

    def __del__(self) -> None:
        if getattr(self, "_events", None) is not None:
            warnings.warn(
                "a completion stream was dropped before its end; use `async with` to leave early",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


def _is_event_stream(events: EventStream) -> bool:
    kind = events.headers.get("content-type", "text/event-stream").partition(";")[0]
    return events.status == 200 and kind.strip().lower() == "text/event-stream"


def _error_payload(data: str) -> JsonValue:
    try:
        return decode_json(data)
    except MalformedResponseError:
        return {"message": excerpt(data)}
