"""One streamed completion: chunks as they come, and at the end the same response as a whole."""

import enum
import time
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Generic, Self, TypeVar

import msgspec

from minillmlib.errors import (
    IncompleteStreamError,
    InvalidParameterError,
    MalformedResponseError,
    MiniLLMError,
    TransportError,
)
from minillmlib.pipeline.encode import Encoded, encode
from minillmlib.pipeline.plan import Call
from minillmlib.pipeline.prefill import Prefill
from minillmlib.pipeline.read import read_reply, read_safely, settle, signed
from minillmlib.providers.failures import error_from_payload, request_id_of
from minillmlib.transport.exchange import EventStream, open_events
from minillmlib.transport.sse import SseEvent
from minillmlib.values.json import JsonValue, decode_json, excerpt
from minillmlib.values.reasoning import ReasoningDelta
from minillmlib.values.responses import CompletionResponse, ResponseFold, StreamChunk
from minillmlib.values.tools import ToolCallDelta

__all__ = ["StreamingCompletion"]

NodeT_co = TypeVar("NodeT_co", covariant=True)

USAGE_GRACE_SECS = 2.0  # how long we wait for token counts after the finish reason
LINGER_SECS = 0.25  # how long the connection may take to end after the end marker


class _Phase(enum.Enum):
    """Where a stream stands. It only ever moves down this list."""

    NEW = enum.auto()
    READING = enum.auto()
    ENDING = enum.auto()  # the answer is complete, its last chunks may wait to be taken
    OVER = enum.auto()


class StreamingCompletion(Generic[NodeT_co]):
    """The chunks of an answer as they come, by `async for`.

    Best used with `async with`, which ends the connection when left early; a stream that is
    dropped in the middle ends its connection too, with a `ResourceWarning`. Once the loop has
    come to its end, `node` is the new assistant node and `response` the whole answer. A stream
    that is left early or fails adds nothing to the tree.

    It belongs to one task and one event loop at a time: `InvalidParameterError` for others.
    """

    def __init__(self, call: Call, keep: Callable[[CompletionResponse], NodeT_co]) -> None:
        self._call = call
        self._keep = keep
        self._phase = _Phase.NEW
        self._is_busy = False
        self._sent: Encoded | None = None
        self._events: EventStream | None = None
        self._prefill = Prefill(call.settings.force_prepend)
        self._fold = ResponseFold()
        self._pending: deque[SseEvent] = deque()  # arrived, not yet read
        self._ready: deque[StreamChunk] = deque()  # read, not yet taken by the caller
        self._grace_secs = USAGE_GRACE_SECS
        self._response: CompletionResponse | None = None
        self._result: tuple[CompletionResponse, NodeT_co] | None = None

    @property
    def response(self) -> CompletionResponse:
        """The whole answer, once the stream was read to its end."""
        return self._finished()[0]

    @property
    def node(self) -> NodeT_co:
        """The assistant's node, once the stream was read to its end."""
        return self._finished()[1]

    def _finished(self) -> tuple[CompletionResponse, NodeT_co]:
        if self._result is None:
            raise InvalidParameterError("the stream has not been read to its end")
        return self._result

    async def __aenter__(self) -> Self:
        if self._phase is _Phase.NEW:
            await self._guarded(self._open)
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
                    await self._guarded(self._open)
                case _Phase.READING:
                    await self._guarded(self._read_more)
                case _Phase.ENDING:
                    await self._guarded(self._finish)
                case _Phase.OVER:
                    raise StopAsyncIteration
        return self._ready.popleft()

    async def _guarded(self, step: Callable[[], Coroutine[None, None, None]]) -> None:
        """Runs one step; whatever goes wrong ends the stream and carries the text so far."""
        if self._is_busy or (self._events is not None and not self._events.is_of_this_loop()):
            raise InvalidParameterError("a stream is read by one task of one event loop at a time")
        self._is_busy = True
        try:
            await step()
        except MiniLLMError as error:
            if self._phase is _Phase.OVER and isinstance(error, TransportError):
                return  # closed by aclose while this step waited
            error.partial = self._fold.text + self._prefill.held + error.partial
            self._close()
            raise
        except BaseException:
            self._close()
            raise
        finally:
            self._is_busy = False

    async def _open(self) -> None:
        call = self._call
        self._phase = _Phase.READING
        sent = self._sent = encode(call)
        events = await open_events(call.transport, sent.request, call.timeout_secs)
        self._events = events
        if self._phase is _Phase.OVER:  # by aclose, while we waited
            self._close()
        elif not _is_event_stream(events):
            await self._take_whole(events, sent)

    async def _take_whole(self, events: EventStream, sent: Encoded) -> None:
        """For an error, and for a server that answers a request for a stream in one piece."""
        body = await events.read_body()
        response = read_reply(self._call, sent, events.status, events.headers, body)
        chunk = StreamChunk(
            id=response.id,
            model=response.model,
            delta=response.content,
            finish_reason=response.finish_reason,
            raw_finish_reason=response.raw_finish_reason,
            refusal=response.refusal,
            tool_calls=tuple(
                ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
                for index, call in enumerate(response.tool_calls)
            ),
            media=response.media,
            reasoning=response.reasoning,
            reasoning_blocks=tuple(
                ReasoningDelta(index=index, fields=block.fields)
                for index, block in enumerate(response.reasoning_blocks)
            ),
            usage=response.usage,
        )
        self._complete(response, chunk)

    async def _read_more(self) -> None:
        """Takes one event at a time, so that an error never overtakes the text before it."""
        events = self._open_events()
        if not self._pending:
            batch = await self._next_batch(events)
            if batch is None:
                self._complete(self._folded(events))
            else:
                self._pending.extend(batch)
            return
        event = self._pending.popleft()
        read = self._read_error if event.event == "error" else self._read_chunk
        chunk = read_safely(self._encoded().auth, events.headers, read, event.data)
        if chunk is not None:
            self._take(chunk)
            if self._is_over():
                self._complete(self._folded(events))

    async def _next_batch(self, events: EventStream) -> list[SseEvent] | None:
        if self._fold.finish_reason is None:
            return await events.next_events()
        # Only our own waiting counts, never the time a caller takes over a chunk.
        started = time.monotonic()
        try:
            return await events.next_events(self._grace_secs)
        except TransportError:
            return None  # the answer was finished; only its token counts are lost
        finally:
            self._grace_secs = max(0.0, self._grace_secs - (time.monotonic() - started))

    def _read_chunk(self, data: str) -> StreamChunk | None:
        return self._call.generator.provider.parse_chunk(data)

    def _read_error(self, data: str) -> StreamChunk | None:
        raise error_from_payload(_error_payload(data))

    def _take(self, chunk: StreamChunk) -> None:
        chunk = self._begun(chunk)
        self._fold.add(chunk)
        says = chunk.delta or chunk.refusal or chunk.tool_calls or chunk.reasoning or chunk.media
        if says or self._fold.finish_reason is not None:
            self._ready.append(chunk)

    def _begun(self, chunk: StreamChunk) -> StreamChunk:
        """The chunk with the forced beginning before the first text, or with text held back."""
        delta = self._prefill.next(chunk.delta) if chunk.delta else ""
        if chunk.finish_reason is not None or (chunk.is_end and self._prefill.held):
            delta += self._prefill.rest()
        return chunk if delta == chunk.delta else msgspec.structs.replace(chunk, delta=delta)

    def _is_over(self) -> bool:
        """Whether nothing that matters can follow."""
        if self._fold.has_ended:
            return True
        if self._fold.finish_reason is None:
            return False
        return not self._call.generator.provider.emits_stream_usage(requested=True)

    def _folded(self, events: EventStream) -> CompletionResponse:
        if not self._fold.is_complete:
            raise IncompleteStreamError(
                "the stream ended without the wire's end signal, so the answer may be cut; "
                "`partial` of this error holds the text so far",
                request_id=request_id_of(events.headers),
            )
        folded = self._fold.response()
        response = read_safely(
            self._encoded().auth, events.headers, lambda _: settle(self._call, folded), ""
        )
        return signed(self._call, response, self._encoded(), events.headers)

    def _complete(self, response: CompletionResponse, *chunks: StreamChunk) -> None:
        if self._phase is not _Phase.OVER:
            self._response = response
            self._ready.extend(chunks)
            self._phase = _Phase.ENDING

    async def _finish(self) -> None:
        """The caller has taken the last chunk: only now the answer is kept."""
        await self._open_events().linger(LINGER_SECS)
        if self._phase is _Phase.OVER or self._response is None:
            return
        self._result = (self._response, self._keep(self._response))
        self._close()

    def _encoded(self) -> Encoded:
        assert self._sent is not None
        return self._sent

    def _open_events(self) -> EventStream:
        assert self._events is not None
        return self._events

    def _close(self) -> None:
        self._phase = _Phase.OVER
        if self._events is not None:
            self._events.close()
            self._events = None

    def __del__(self) -> None:
        events: EventStream | None = getattr(self, "_events", None)
        if events is not None:
            events.close_from_anywhere()
            warnings.warn(
                "a completion stream was dropped before its end; use `async with` to leave early",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        model = self._call.generator.model
        return f"<StreamingCompletion of {model}: {self._phase.name.lower()}>"


def _is_event_stream(events: EventStream) -> bool:
    kind = events.headers.get("content-type", "text/event-stream").partition(";")[0]
    return events.status == 200 and kind.strip().lower() == "text/event-stream"


def _error_payload(data: str) -> JsonValue:
    try:
        return decode_json(data)
    except MalformedResponseError:
        return {"message": excerpt(data)}
