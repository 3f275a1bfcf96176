"""Reads the events of one streamed attempt into chunks, and the chunks into a response."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NoReturn

import msgspec

from minillmlib.client.attempt import PendingAttempt, cost_of_response, unknown_cost
from minillmlib.client.prefill import Prefill
from minillmlib.client.prepare import provider_error
from minillmlib.errors import (
    IncompleteStreamError,
    InvalidParameterError,
    LimitExceededError,
    MalformedResponseError,
    MiniLLMError,
    TransportError,
)
from minillmlib.json_value import decode_json, encode_json, excerpt, plural
from minillmlib.protocols.chat_completions.response import is_error_payload
from minillmlib.protocols.errors import error_from_payload
from minillmlib.streaming.accumulator import ResponseAccumulator, is_plain
from minillmlib.streaming.framing import Decoder
from minillmlib.streaming.sse import SseEvent
from minillmlib.streaming.surrogates import SurrogateJoiner
from minillmlib.transport.timeout import TimeoutBudget
from minillmlib.types.costs import CostOutcome
from minillmlib.types.responses import CompletionResponse, StreamChunk

USAGE_GRACE_SECS = 2.0  # how long to wait for token counts after the finish reason
MAX_READY = 64  # chunks read ahead of the caller
DRAIN_SECS = 0.25  # how long the connection may take to end after the end marker


class StreamReader:
    """Fills `chunks` from one attempt's events, until it returns the response."""

    def __init__(
        self, attempt: PendingAttempt, timeouts: TimeoutBudget, chunks: deque[StreamChunk]
    ) -> None:
        call = attempt.call
        self._attempt = attempt
        self._exchange = attempt.exchange
        self._timeouts = timeouts
        self._chunks = chunks  # read, not yet taken by the caller
        self._provider = call.generator.provider
        try:
            self._parse = self._provider.chunk_reader()
            has_usage = self._provider.emits_stream_usage(requested=call.wants_usage)
        except MiniLLMError:
            raise
        except Exception as error:
            raise provider_error("prepare to read a stream", error) from error
        self._accumulator = ResponseAccumulator(self._provider.billing.merge_usage)
        self._prefill = call.prefill
        self._joiner: SurrogateJoiner | None = None  # from the first escape of a character on
        self._max_chars = call.generator.limits.text_chars
        self._max_bytes = call.generator.limits.stream_bytes
        self._pending: Iterator[SseEvent] = iter(())  # arrived, not yet parsed
        self._grace_secs = USAGE_GRACE_SECS if has_usage else DRAIN_SECS
        self._body_secs = 0.0  # spent waiting for a body that is not known to be a stream

    @property
    def partial(self) -> str:
        """The text so far."""
        return self._accumulator.text + (self._prefill.held if self._prefill else "")

    def redacted_partial(self) -> str:
        """Return the text so far as an error keeps it."""
        return self._attempt.redact(self.partial)

    async def open(self) -> bytes | None:
        """Send the request and wait for the headers. Return the body of an error."""
        exchange, accept = self._exchange, self._provider.capabilities.stream_accept
        await exchange.open(self._timeouts.response_timeout(), (accept, "text/event-stream"))
        # Portkey streams with status 246 what a guardrail has flagged; 204 and 205 have no body.
        is_success = 200 <= (exchange.status or 0) < 300 and exchange.status not in (204, 205)
        if is_success or exchange.is_closed:  # closed while it waited
            return None
        return await exchange.fetch(self._timeouts.response_timeout())

    async def read(self) -> CompletionResponse | bytes | None:
        """Read the next events. Return the response once the stream has ended.

        If what came was no stream, return the whole body.
        """
        # Not much more than the caller takes at once.
        while not (batch := tuple(islice(self._pending, MAX_READY))):
            events = await self._next_events()
            if events is None:
                return (
                    self._finish() if self._exchange.document is None else self._exchange.document
                )
            self._pending = iter(events)
        return self._read_batch(batch)

    def read_all(self, batches: Iterator[list[SseEvent]], decoder: Decoder) -> CompletionResponse:
        """Return the answer in all events of a body."""
        events = chain.from_iterable(batches)
        while batch := tuple(islice(events, MAX_READY)):
            response = self._read_batch(batch)
            if response is not None:
                return response
            self._chunks.clear()
        return self._finish(decoder.unread)

    def record_partial(self) -> None:
        """Remember the stream's id and cost so far, in case it breaks before it ends."""
        attempt = self._attempt
        with contextlib.suppress(Exception):  # the provider may be the caller's own
            attempt.response_id = self._accumulator.id or attempt.response_id
            attempt.cost = self._cost()

    def _read_batch(self, events: Sequence[SseEvent]) -> CompletionResponse | None:
        parse_redacted = self._attempt.parse_redacted
        is_burst = len(events) > 1  # one by itself costs less without the list
        texts: list[StreamChunk] = []  # chunks of text and nothing else, not yet added
        try:
            for event in events:
                parse = self._parse
                if event.event == "error":
                    parse = _raise_error
                elif "\\" in event.data or self._joiner is not None:
                    parse = self._parse_escaped
                chunk = parse_redacted(parse, event.data, is_event=True)
                if chunk is None:
                    continue
                if is_burst and chunk.delta and is_plain(chunk):
                    texts.append(chunk)
                    continue
                if texts:
                    self._add_texts(texts)
                self._add(chunk)
                if chunk.is_end:
                    return self._finish()
                if chunk.delta and chunk.finish_reason is not None:  # it may say so with each chunk
                    self._grace_secs = USAGE_GRACE_SECS
        finally:
            if texts:
                self._add_texts(texts)
        self._accumulator.join_pieces()
        self._check_memory()
        return None

    async def drain(self) -> None:
        """Drain the rest of the body so the connection can be reused, if it is about to end."""
        if self._accumulator.has_ended:
            await self._exchange.drain(DRAIN_SECS)
        else:
            self._exchange.close()

    def close(self) -> None:
        """End the exchange at once; the attempt keeps what the stream reported so far."""
        if not self._exchange.is_closed:
            self.record_partial()
        self._chunks = deque()  # what a pending wait still brings belongs to nobody
        self._pending = iter(())
        self._exchange.close()

    def close_threadsafe(self) -> None:
        """Close the stream soon, from a destructor in any thread."""
        if not self._exchange.is_closed:
            self.record_partial()
        self._exchange.close_threadsafe()

    def _cost(self) -> CostOutcome | None:
        """Return the cost if the final counts have come, else what it cost at least."""
        accumulator = self._accumulator
        if accumulator.usage is not None:
            return cost_of_response(self._attempt.call, self._response())
        if accumulator.partial_usage is None and accumulator.usage_record is None:
            return None
        call = self._attempt.call
        return unknown_cost(call, accumulator.partial_usage, accumulator.usage_record)

    def _response(self) -> CompletionResponse:
        accumulator = self._accumulator
        return self._attempt.with_stated_cost(accumulator.response(), accumulator.last_record)

    async def _next_events(self) -> list[SseEvent] | None:
        """Return the events that arrive next, or None at the end of the stream."""
        timeout, accumulator = self._timeouts.chunk_timeout(), self._accumulator
        if not self._exchange.is_stream:  # a body in one piece must come within one timeout
            timeout = self._timeouts.response_timeout(self._body_secs)
        if accumulator.finish_reason is None or accumulator.is_finish_refuted:
            events = await self._exchange.next_events(timeout)
            # Only our own waiting counts, never the time a caller takes over a chunk.
            self._timeouts.record_wait(self._exchange.waited_secs)
            if not self._exchange.is_stream:
                self._body_secs += self._exchange.waited_secs
            return events
        # The model has finished: only the token counts and the end marker may be missing, or
        # content that proves the reason wrong.
        if timeout.secs is None or timeout.secs > self._grace_secs:
            timeout = timeout._replace(secs=self._grace_secs)
        try:
            return await self._exchange.next_events(timeout)
        except (TransportError, LimitExceededError):
            return None
        finally:
            self._grace_secs = max(0.0, self._grace_secs - self._exchange.waited_secs)

    def _parse_escaped(self, data: str) -> StreamChunk | None:
        if self._joiner is None:
            if "\\u" not in data:  # slower to find than a backslash, which few events have
                return self._parse(data)
            self._joiner = SurrogateJoiner()
        return self._joiner.parse(self._parse, data)

    def _add_texts(self, texts: list[StreamChunk]) -> None:
        """Take chunks of text and nothing else from their list; add them at once if possible."""
        chunks = texts[:]
        texts.clear()  # now: should adding fail, none is added again
        is_prefilled = self._prefill is None or self._prefill.is_done
        if is_prefilled and self._accumulator.add_texts(chunks, self._max_chars):
            self._chunks.extend(chunks)
            return
        for chunk in chunks:
            self._add(chunk)

    def _add(self, chunk: StreamChunk) -> None:
        if self._prefill is not None and not self._prefill.is_done:
            chunk = _with_prefill(self._prefill, chunk)
        accumulator = self._accumulator
        try:
            has_content = accumulator.add(chunk)
        except MalformedResponseError as error:
            error.is_retryable = True
            raise
        if max(accumulator.chars, accumulator.extra_chars) > self._max_chars:
            raise LimitExceededError(
                f"the answer holds more than {self._max_chars:,} "
                f"{plural('character', self._max_chars)}; "
                "raise text_chars of the generator's limits if that is right"
            )
        is_at_end = accumulator.finish_reason is not None
        if has_content or (is_at_end and (chunk.finish_reason or chunk.usage_record is not None)):
            self._chunks.append(chunk)

    def _check_memory(self) -> None:
        if self._accumulator.memory_bytes > self._max_bytes:
            raise LimitExceededError(
                f"the answer takes more than {self._max_bytes:,} bytes of memory; "
                "raise stream_bytes of the generator's limits if that is right"
            )

    def _finish(self, unread: bytes = b"") -> CompletionResponse:
        self._check_memory()
        if not self._accumulator.is_complete:
            self._attempt.parse_redacted(_raise_incomplete, unread or self._exchange.unread)
        cost = self._attempt.parse_redacted(lambda _: self._cost(), "") or CostOutcome.unknown()
        self._attempt.cost = cost
        self._accumulator.check()
        response = self._attempt.with_call_metadata(self._response(), cost)
        try:
            record = encode_json(
                (response.id, response.model, response.usage_record, response.extra)
            )
        except InvalidParameterError:  # the provider may be the caller's own
            return self._attempt.redact_record(response)
        shows_secret = self._attempt.shows_secret(record)
        return self._attempt.redact_record(response) if shows_secret else response


def read_events(
    attempt: PendingAttempt,
    timeouts: TimeoutBudget,
    batches: Iterator[list[SseEvent]],
    decoder: Decoder,
) -> CompletionResponse:
    """Return the answer in the events of a whole body; a failure has the text so far."""
    reader = StreamReader(attempt, timeouts, deque())
    try:
        return reader.read_all(batches, decoder)
    except MiniLLMError as error:
        error.partial = reader.partial + error.partial
        reader.record_partial()
        raise


def _raise_incomplete(unread: bytes) -> NoReturn:
    """Raise the failure that a server reports outside of events, else that the stream was cut."""
    with contextlib.suppress(MalformedResponseError):
        payload = decode_json(unread)
        if is_error_payload(payload):
            raise error_from_payload(payload)
    beside = f"; beside its events it sent: {excerpt(unread)}" if unread else ""
    raise IncompleteStreamError(
        "the stream ended without the wire's end signal, so the answer may be cut; "
        f"`partial` of this error holds the text so far{beside}"
    )


def _raise_error(data: str) -> NoReturn:
    try:
        payload = decode_json(data)
    except MalformedResponseError:
        payload = {"message": excerpt(data)}
    raise error_from_payload(payload)


def _with_prefill(prefill: Prefill, chunk: StreamChunk) -> StreamChunk:
    """Put the forced prefix before the first text, or hold back text that may repeat it."""
    delta = prefill.feed(chunk.delta) if chunk.delta else ""
    if chunk.finish_reason is not None or (chunk.is_end and prefill.held):
        delta += prefill.flush()
    return chunk if delta == chunk.delta else msgspec.structs.replace(chunk, delta=delta)
