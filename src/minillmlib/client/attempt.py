"""One attempt: a request under way, what its answer says, and the record it leaves."""

from __future__ import annotations

<<<<<<< HEAD
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar
=======
import contextlib
from collections import deque
from collections.abc import Mapping
>>>>>>> transport

import msgspec

from minillmlib.client.http_request import PreparedRequest
from minillmlib.client.prefill import Prefill
from minillmlib.client.prepare import Call, model_key, price_of
from minillmlib.errors import (
    ApiError,
    BadRequestError,
    ConnectError,
    MalformedResponseError,
    MiniLLMError,
)
<<<<<<< HEAD
from minillmlib.json_value import decode_json, excerpt
from minillmlib.protocols.errors import error_from_reply, request_id_of
from minillmlib.transport.exchange import Exchange
from minillmlib.types.attempts import Attempt, AttemptOutcome
from minillmlib.types.budget import Reservation
=======
from minillmlib.json_value import JsonValue, decode_json, excerpt
from minillmlib.protocols.errors import error_from_payload
from minillmlib.streaming.sse import SseEvent
from minillmlib.transport.exchange import Exchange
>>>>>>> transport
from minillmlib.types.costs import CostOutcome
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.usage import Usage

__all__ = ["PendingAttempt", "cost_of_response", "cost_of_usage"]

# A 5xx that says no before any work is done, like the 4xx; and the 4xx that may come after it.
BEFORE_WORK = (503, 529)
MAYBE_WORKED = (408,)

T = TypeVar("T")
TextT = TypeVar("TextT", str, bytes)


class PendingAttempt:
    """An attempt that has not ended. Holds what came of the request, never the request itself."""

<<<<<<< HEAD
    response_id = ""
    cost: CostOutcome | None = None
=======
    def __init__(self, run: Run, ready: deque[StreamChunk]) -> None:
        self._ready = ready  # read, not yet taken by the caller
        self.answer: Accepted | None = None
        self.events: Exchange | None = None
        self._run = run
        self._call = run.call
        self._provider = run.call.generator.provider
        self._redactor = Redactor()
        self._receipt: RequestReport | None = None
        self._is_closed = False
        self._headers: Mapping[str, str] = {}
        self._prefill = Prefill(run.call.settings.force_prepend)
        self._fold = ResponseAccumulator(self._provider.merge_usage)
        self._most_chars = run.call.generator.limits.text_chars
        self._pending: deque[SseEvent] = deque()  # arrived, not yet read
        self._held_back: MiniLLMError | None = None
        self._grace_secs = USAGE_GRACE_SECS
>>>>>>> transport

    def __init__(
        self, number: int, call: Call, prepared: PreparedRequest, reservation: Reservation | None
    ) -> None:
        request = prepared.request
        self.exchange = Exchange(call.transport, request, call.generator.limits)
        self.prefix = prepared.prefix
        self.reservation = reservation
        self._redactor = prepared.redactor
        self._report = prepared.report
        self._call = call
        self._number = number
        self._url = request.url
        self._sent_bytes = len(request.body)
        self._started_at = time.time()
        self._started = time.monotonic()

    def parse(self, body: bytes) -> CompletionResponse:
        """Return the response in a whole answer, or raise what the answer says went wrong."""
        return self.parse_redacted(self._parse, body)

<<<<<<< HEAD
    def _parse(self, body: bytes) -> CompletionResponse:
        status, call = self.exchange.status or 0, self._call
        if status < 200:
            raise MalformedResponseError(f"the server answered with status {status} and no answer")
        if status >= 300:
            headers = self._redactor.redact_all(self.exchange.headers)
            raise _explain(call, error_from_reply(status, headers, body))
        if not body or body.isspace():
            raise MalformedResponseError(f"the server answered with status {status} and no text")
        response = call.generator.provider.parse_response(decode_json(body))
        if call.settings.force_prepend:
            response = _with_prefill(call.settings.force_prepend, response)
        return self.with_call_metadata(response, cost_of_response(call, response))

    def with_call_metadata(
        self, response: CompletionResponse, cost: CostOutcome
    ) -> CompletionResponse:
        """Return the response with its cost, the model that answered and the request's report."""
        origin = model_key(self._call.generator)
        return msgspec.structs.replace(
            response, cost=cost, origin=origin, request_report=self._report
        )

    def parse_redacted(self, parse: Callable[[TextT], T], text: TextT) -> T:
        """Return `parse(text)`, in which every failure is one of our errors without a secret.

        A provider may be the caller's own, so whatever it raises over an unexpected shape is a
        `MalformedResponseError` too. Servers echo keys in what they report: a failure over such a
        text is raised anew from the text without the key, so that no error ever holds it.
        """
        try:
            try:
                return parse(text)
            except Exception:
                redacted = self._redactor.redact(text)
                if redacted == text:
                    raise
            return parse(redacted)
        except (MiniLLMError, MemoryError):
=======
    async def open(self) -> None:
        """Sends the request and waits for the beginning of the answer."""
        run = self._run
        sent, events = run.begin()
        self.events = events
        self._redactor, self._receipt = sent.redactor, sent.request_report  # never the request
        await events.open(run.clocks.first_wait())
        self._headers = run.headers
        if not self._is_closed and not _is_event_stream(events):
            await self._take_whole(events, sent)

    async def _take_whole(self, events: Exchange, sent: Encoded) -> None:
        """For an error, and for a server that answers a request for a stream in one piece."""
        body = await events.read_body(self._run.clocks.first_wait())
        assert events.status is not None
        try:
            response = read_reply(self._call, sent, events.status, self._headers, body)
        except MiniLLMError as error:
            self._run.failed(error, cost_in(self._call, body))
>>>>>>> transport
            raise
        except Exception as error:
            raise MalformedResponseError(
                f"the provider could not read the server's answer ({type(error).__name__}: {error})"
            ) from error

    def cost_of_failed(self, body: bytes) -> CostOutcome | None:
        """Return the cost of a failed answer, if its body has usable token counts."""
        try:
<<<<<<< HEAD
            usage = self._call.generator.provider.parse_usage(decode_json(body))
            if usage is None or not usage.is_complete:
                return None
            return cost_of_usage(self._call, usage)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a failed answer may have any shape, and the provider any code
            return None
=======
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
        headers = self._headers
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
            await self.events.drain(LINGER_SECS)
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
            self.events.close_threadsafe()

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
        clocks.waited(events.waited_secs)
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
            self._grace_secs = max(0.0, self._grace_secs - events.waited_secs)
>>>>>>> transport

    def record_failure(self, error: MiniLLMError, cost: CostOutcome | None) -> Attempt:
        """Return the record of an attempt that failed; set the request id of its error."""
        outcome = _outcome_of(error, self.exchange)
        cost = cost or self.cost
        if cost is None and outcome is AttemptOutcome.FAILED:
            cost = CostOutcome.unknown()
        attempt = self.record(outcome, cost, error)
        if attempt.request_id is not None:
            request_id = self._redactor.redact(attempt.request_id)
            attempt = msgspec.structs.replace(attempt, request_id=request_id)
        named = error.request_id
        error.request_id = attempt.request_id if named is None else self._redactor.redact(named)
        return attempt

    def record_abandoned(self) -> Attempt:
        """Return the record of an attempt whose caller is gone."""
        if self.exchange.was_sent:
            return self.record(AttemptOutcome.ABANDONED, self.cost or CostOutcome.unknown())
        return self.record(AttemptOutcome.NOT_SENT, None)

<<<<<<< HEAD
    def record(
        self,
        outcome: AttemptOutcome,
        cost: CostOutcome | None,
        error: MiniLLMError | None = None,
        response_id: str = "",
    ) -> Attempt:
        """Return the record of the attempt."""
        headers = self._redactor.redact_plain(self.exchange.headers)
        generation_id = headers.get("x-generation-id")
        return Attempt(
            number=self._number,
            url=self._url,
            model=self._call.generator.model,
            sent_bytes=self._sent_bytes,
            started_at=self._started_at,
            elapsed_secs=time.monotonic() - self._started,
            outcome=outcome,
            status=self.exchange.status,
            request_id=request_id_of(headers),
            response_id=response_id or self.response_id or excerpt(generation_id or ""),
            error=None if error is None else type(error).__name__,
            cost=cost,
        )
=======
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
        headers = self._headers
        cost = read_safely(self._redactor, headers, lambda _: self._cost(), "")
        cost = cost or CostOutcome.unknown()
        assert self._receipt is not None
        return signed(self._call, self._fold.response(), cost, self._receipt)

    def _complete(self, response: CompletionResponse) -> None:
        self.answer = self._run.answered(response)

    def _opened(self) -> Exchange:
        assert self.events is not None
        return self.events
>>>>>>> transport


def cost_of_usage(call: Call, usage: Usage) -> CostOutcome:
    """Return the cost of the counts at the price of the call or of its generator."""
    return call.generator.provider.cost_of(usage, price_of(call))


def cost_of_response(call: Call, response: CompletionResponse) -> CostOutcome:
    """Return the cost of a whole answer. Without usage it is unknown, never zero."""
    if response.usage is None:
        return CostOutcome.unknown(record=response.usage_record)
    if not call.generator.provider.billing.is_billed(response):
        return CostOutcome.resolved(Decimal(0), response.usage)
    return cost_of_usage(call, response.usage)


def _outcome_of(error: MiniLLMError, exchange: Exchange) -> AttemptOutcome:
    if isinstance(error, ConnectError) or not exchange.was_sent:
        return AttemptOutcome.NOT_SENT
    status = exchange.status or 0
    if isinstance(error, ApiError) and (status in BEFORE_WORK or 300 <= status < 500):
        return AttemptOutcome.FAILED if status in MAYBE_WORKED else AttemptOutcome.DENIED
    return AttemptOutcome.FAILED


def _explain(call: Call, error: ApiError) -> ApiError:
    """Append what is known about the model to the server's own refusal of the parameters."""
    if isinstance(error, BadRequestError):
        hint = call.generator.provider.capabilities.explain_refusal(
            call.generator.model, call.settings.params
        )
        if hint is not None:
            error.args = (f"{error}; {hint}",)
    return error


def _with_prefill(text: str, response: CompletionResponse) -> CompletionResponse:
    """Put the forced prefix in front of the response unless the server already repeated it."""
    content = Prefill(text).prepend(response.content)
    added = len(content) - len(response.content)
    blocks = tuple(
        msgspec.structs.replace(block, text_before=block.text_before + added)
        if block.text_before
        else block
        for block in response.reasoning_blocks
    )
<<<<<<< HEAD
    return msgspec.structs.replace(response, content=content, reasoning_blocks=blocks)
=======


def _is_event_stream(events: Exchange) -> bool:
    kind = events.headers.get("content-type", "text/event-stream").partition(";")[0]
    return events.status == 200 and kind.strip().lower() == "text/event-stream"


def _error_payload(data: str) -> JsonValue:
    try:
        return decode_json(data)
    except MalformedResponseError:
        return {"message": excerpt(data)}
>>>>>>> transport
