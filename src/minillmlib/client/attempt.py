"""One attempt at a streamed answer: from its request to the response that its chunks add up to."""

from __future__ import annotations

import contextlib
from collections import deque

import msgspec

from minillmlib.auth.redaction import Redactor
from minillmlib.client.completion import Run
from minillmlib.client.http_request import Encoded
from minillmlib.client.parse import cost_in, cost_of_answer, read_reply, read_safely, signed
from minillmlib.client.prefill import Prefill
from minillmlib.client.validate import Accepted
from minillmlib.errors import (
    IncompleteStreamError,
    LimitExceededError,
    MalformedResponseError,
    MiniLLMError,
    TransportError,
)
from minillmlib.json_value import JsonValue, decode_json, excerpt
from minillmlib.protocols.errors import error_from_payload
from minillmlib.streaming.sse import SseEvent
from minillmlib.transport.exchange import EventStream, open_events
from minillmlib.types.costs import CostOutcome
from minillmlib.types.reasoning import ReasoningDelta
from minillmlib.types.responses import (
    CompletionResponse,
    RequestReport,
    ResponseAccumulator,
    StreamChunk,
)
from minillmlib.types.tools import ToolCallDelta

__all__ = ["StreamAttempt"]

USAGE_GRACE_SECS = 2.0  # how long we wait for token counts after the finish reason
MOST_READY = 64  # chunks that are read ahead of the caller
LINGER_SECS = 0.25  # how long the connection may take to end after the end marker


class StreamAttempt:
    """Fills `ready` with chunks until `answer` is there. Raises what goes wrong."""

    def __init__(self, run: Run, ready: deque[StreamChunk]) -> None:
        self._ready = ready  # read, not yet taken by the caller
        self.answer: Accepted | None = None
        self.events: EventStream | None = None
        self._run = run
        self._call = run.call
        self._provider = run.call.generator.provider
        self._redactor = Redactor()
        self._receipt: RequestReport | None = None
        self._is_closed = False
        self._prefill = Prefill(run.call.settings.force_prepend)
        self._fold = ResponseAccumulator(self._provider.billing.merge_usage)
        self._parse_chunk = self._provider.chunk_reader()
        self._most_chars = run.call.generator.limits.text_chars
        self._pending: deque[SseEvent] = deque()  # arrived, not yet read
        self._held_back: MiniLLMError | None = None
        self._grace_secs = USAGE_GRACE_SECS

    @property
    def partial(self) -> str:
        """The text so far."""
        return self._fold.text + self._prefill.held

    def _cost(self) -> CostOutcome | None:
        """What the answer cost, if its final counts have come, or what it cost at least."""
        fold = self._fold
        if fold.usage is not None:
            return cost_of_answer(self._call, fold.response())
        if fold.partial_usage is None and fold.usage_record is None:
            return None
        return CostOutcome.unknown(minimum_usage=fold.partial_usage, record=fold.usage_record)

    async def open(self) -> None:
        """Sends the request and waits for the beginning of the answer."""
        run, call = self._run, self._call
        sent = run.begin()
        self._redactor, self._receipt = sent.redactor, sent.request_report  # never the request
        bound, limits = run.clocks.first_wait(), call.generator.limits
        events = self.events = await open_events(
            call.transport, sent.request, bound, limits, run.heard
        )
        if self._is_closed:  # while we waited
            events.close()
        elif not _is_event_stream(events):
            await self._take_whole(events, sent)

    async def _take_whole(self, events: EventStream, sent: Encoded) -> None:
        """For an error, and for a server that answers a request for a stream in one piece."""
        body = await events.read_body(self._run.clocks.first_wait())
        try:
            response = read_reply(self._call, sent, events.status, events.headers, body)
        except MiniLLMError as error:
            self._run.failed(error, cost_in(self._call, body))
            raise
        self._complete(response)
        self._ready.append(_as_chunk(response))

    async def read_more(self) -> None:
        """Takes in what comes next. An error waits until the chunks before it were taken."""
        if self._held_back is not None:
            raise self._held_back
        try:
            while not self._pending:
                batch = await self._next_batch()
                if batch is None:
                    self._complete(self._folded())
                    return
                self._pending.extend(batch)
            self._read_pending()
        except MiniLLMError as error:
            if not self._ready:
                raise
            self._held_back = error.with_traceback(None)
        if self._ready:
            self._run.clocks.progressed()

    def _read_pending(self) -> None:
        """Reads what has arrived, but not much more than the caller takes at once."""
        headers = self._opened().headers
        for _ in range(min(len(self._pending), MOST_READY)):
            event = self._pending.popleft()
            read = self._read_error if event.event == "error" else self._read_chunk
            chunk = read_safely(self._redactor, headers, read, event.data)
            if chunk is None:
                continue
            self._take(chunk)
            if (chunk.is_end or chunk.finish_reason is not None) and self._is_over():
                self._complete(self._folded())
                return

    async def linger(self) -> None:
        """Lets the connection end properly, so that it can serve again, if an end is in sight."""
        if self.events is None:
            return
        if self._is_over():
            await self.events.linger(LINGER_SECS)
        else:
            self.events.close()

    def close(self) -> None:
        """Ends the exchange at once; what it has told so far is on the record."""
        self._tell()
        self._is_closed = True
        self._ready = deque()  # what a wait that is not over brings is nobody's
        if self.events is not None:
            self.events.close()

    def close_from_anywhere(self) -> None:
        """The same, soon, from a destructor in any thread."""
        self._tell()
        if self.events is not None:
            self.events.close_from_anywhere()

    def _tell(self) -> None:
        if not self._is_closed:
            with contextlib.suppress(Exception):  # the provider may be the caller's own
                self._run.told(self._fold.id, self._cost())

    async def _next_batch(self) -> list[SseEvent] | None:
        """The events that arrive next, or None at the end of the stream."""
        if self._fold.finish_reason is not None:
            return await self._next_after_finish()
        clocks, events = self._run.clocks, self._opened()
        batch = await events.next_events(clocks.next_piece())
        # Only our own waiting counts, never the time a caller takes over a chunk.
        clocks.waited(events.watchdog.waited_secs)
        return batch

    async def _next_after_finish(self) -> list[SseEvent] | None:
        """The same once the model has finished: only the token counts may be missing."""
        bound, events = self._run.clocks.next_piece(), self._opened()
        if bound.secs is None or bound.secs > self._grace_secs:
            bound = bound._replace(secs=self._grace_secs)
        try:
            return await events.next_events(bound)
        except (TransportError, LimitExceededError):
            return None
        finally:
            self._grace_secs = max(0.0, self._grace_secs - events.watchdog.waited_secs)

    def _read_chunk(self, data: str) -> StreamChunk | None:
        try:
            return self._parse_chunk(data)
        except MalformedResponseError as error:
            error.is_retryable = True  # the stream is broken, not the server's idea of one
            raise

    def _read_error(self, data: str) -> StreamChunk | None:
        raise error_from_payload(_error_payload(data))

    def _take(self, chunk: StreamChunk) -> None:
        if not self._prefill.is_over:
            chunk = self._begun(chunk)
        fold = self._fold
        fold.add(chunk)
        if chunk.delta or chunk.refusal or chunk.tool_calls or chunk.reasoning or chunk.media:
            if fold.chars > self._most_chars:
                raise LimitExceededError(
                    f"the model writes more than {self._most_chars:,} characters; "
                    "raise text_chars of the generator's limits if that is right"
                )
            self._ready.append(chunk)
        elif fold.finish_reason is not None:
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
        return not self._provider.emits_stream_usage(requested=self._call.wants_usage)

    def _folded(self) -> CompletionResponse:
        if not self._fold.is_complete:
            raise IncompleteStreamError(
                "the stream ended without the wire's end signal, so the answer may be cut; "
                "`partial` of this error holds the text so far"
            )
        headers = self._opened().headers
        cost = read_safely(self._redactor, headers, lambda _: self._cost(), "")
        cost = cost or CostOutcome.unknown()
        assert self._receipt is not None
        return signed(self._call, self._fold.response(), cost, self._receipt)

    def _complete(self, response: CompletionResponse) -> None:
        self.answer = self._run.answered(response)

    def _opened(self) -> EventStream:
        assert self.events is not None
        return self.events


def _as_chunk(response: CompletionResponse) -> StreamChunk:
    return StreamChunk(
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


def _is_event_stream(events: EventStream) -> bool:
    kind = events.headers.get("content-type", "text/event-stream").partition(";")[0]
    return events.status == 200 and kind.strip().lower() == "text/event-stream"


def _error_payload(data: str) -> JsonValue:
    try:
        return decode_json(data)
    except MalformedResponseError:
        return {"message": excerpt(data)}
