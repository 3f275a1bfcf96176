"""One completion: its attempts, its deadline, its right to retry, and its one report."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NoReturn
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.credentials import token_credential
from minillmlib.auth.secret import Auth
from minillmlib.client.attempt import PendingAttempt, unsent_attempt
from minillmlib.client.cost_reporting import DONE, Report, report, report_deferred
from minillmlib.client.deferred_cost import fetch_deferred_costs, lookup_url
from minillmlib.client.estimate import estimate_call
from minillmlib.client.http_request import PreparedRequest, build_http_request
from minillmlib.client.observation import CompletionEmitter, observed_everywhere, observed_here
from minillmlib.client.pacing import Turn, shared_pace
from minillmlib.client.prefix_cache import EncodedPrefix
from minillmlib.client.prepare import Call
from minillmlib.client.retry import default_retries, retry_delay, retry_quota
from minillmlib.client.sent_prompts import MIN_RECORDED_TOKENS, record_prompt
from minillmlib.client.stream_reader import read_events
from minillmlib.client.validate import NOT_PARSED, validate, with_correction
from minillmlib.deferred_imports import asyncio_module, logger, no_loop_error
from minillmlib.errors import (
    AuthenticationError,
    BudgetExceededError,
    InvalidParameterError,
    MalformedResponseError,
    MaxRetriesExceededError,
    MiniLLMError,
    RateLimitError,
    RejectedResponseError,
    RequestTimeoutError,
    StaleConnectionError,
)
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue, excerpt
from minillmlib.streaming.framing import events_of
from minillmlib.transport.timeout import TimeoutBudget, TimeoutScope
from minillmlib.types.budgets import Budget, Reservation
from minillmlib.types.costs import Attempt, AttemptOutcome, CostEstimate, CostInfo, CostOutcome
from minillmlib.types.pace import Pace
from minillmlib.types.responses import CompletionResponse, FinishReason

# Such an answer may be another one the next time. One of max_tokens is as long as was asked for.
BROKEN_OFF = (FinishReason.CONTENT_FILTER, FinishReason.ERROR, FinishReason.UNKNOWN)
FRESH_SECS = 60.0  # after a longer wait a request is built anew: its token or signature ages

# The threads that wait for tasks, as those that call `run`: theirs is what the tasks reserve.
threads_of_tasks: dict[object, threading.Thread] = {}


class Completed(msgspec.Struct, frozen=True):
    """A whole answer that the settings accept, and the value of its type if one is expected.

    `prefix` is what the next call of this conversation need not encode again.
    """

    response: CompletionResponse
    parsed: JsonValue = NOT_PARSED
    prefix: EncodedPrefix | None = None


async def complete(call: Call) -> Completed:
    """Return the whole answer to `call`, after as many attempts as its settings allow."""
    completion = Completion(call)
    try:
        while True:
            try:
                return completion.finish(await completion.send())
            except MiniLLMError as error:
                await completion.retry_or_raise(error)
    except BaseException as error:
        if not isinstance(error, MiniLLMError):
            completion.abandon()
            hide_frames(error)
        raise
    finally:  # settles and reports on every way out
        if (report := completion.close()).ends:
            await report


class Completion:
    """One completion, from its first attempt to its one report.

    Every attempt is settled exactly once, and settling never waits: the record is there before
    control leaves, whatever makes it leave.
    """

    attempts: tuple[Attempt, ...] = ()
    pending: PendingAttempt | None = None
    _retries = 0
    _repeats = 0  # of the same request
    _quota_taken = 0  # by the last retry
    _auth: Auth | None = None  # of the last attempt; None before the first
    _is_resending = False
    _has_renewed = False
    _failures: tuple[str, ...] = ()  # of the generators that were given up
    _is_deferred = False  # whether the report waits for costs that come later
    _report: Report | None = None
    _origins: tuple[tuple[Call, Reservation | None], ...] = ()  # of the attempts
    _reservation: Reservation | None = None  # of the attempt that is being started
    _turn: Turn | None = None  # with a pace
    emitter: CompletionEmitter | None = None  # if anybody observes it

    def __init__(self, call: Call) -> None:
        self.call = call  # with a correction turn, if an answer was rejected
        self._original = call
        self._generator = call.generator  # whose call it is, or could not be prepared
        self._fallbacks: Sequence[GeneratorInfo] = call.generator.fallbacks
        try:
            self.loop = asyncio_module().get_running_loop()
        except RuntimeError as error:
            raise no_loop_error(error) from None
        self.timeouts = TimeoutBudget(call.settings, self.loop, stream=call.stream)
        if observed_everywhere or observed_here.get() or call.generator.observers:
            self.emitter = CompletionEmitter(call)

    async def start_attempt(self) -> PendingAttempt:
        """Build the next request, wait for the pace, and reserve its cost.

        After that it counts as an attempt.
        """
        call = self.call
        try:
            if token_credential(call.generator.credential) is not None:
                await self._renew_token()
            prepared = build_http_request(
                call, on_new_connection=self._is_resending, repeats=self._repeats
            )
        except MiniLLMError as error:
            if self._auth is None:
                self._record_unasked(error)
            raise
        pace = call.settings.pace
        if pace is not None and await self._wait_in_line(pace, prepared) > FRESH_SECS:
            await self._renew_token()
            prepared = build_http_request(
                call, on_new_connection=self._is_resending, repeats=self._repeats
            )
        budget, reservation = call.settings.budget, None
        if budget is not None:
            estimate = estimate_call(call, prepared.body, prepared.request.body)
            reservation = await self._reserve(budget, estimate)
        self._auth = prepared.auth
        number = len(self.attempts) + 1
        self.pending = PendingAttempt(number, call, prepared, reservation)
        self._reservation = None
        if self.emitter is not None:
            self.emitter.start_attempt(self.pending, prepared)
        return self.pending

    async def _wait_in_line(self, pace: Pace, prepared: PreparedRequest) -> float:
        """Wait until the pace lets the request go. Return the seconds that this took."""
        if self._turn is None:
            if self._failures:  # the pace of the settings is that of the first generator
                pace = shared_pace(self._generator)
            self._turn = Turn(pace, self.call, self.loop)
        waited = await self._turn.wait(prepared, self.timeouts.deadline_timeout())
        self._check_open()
        return waited

    async def _renew_token(self, refused: Auth | None = None) -> None:
        """Get a new token if the credential needs one, within the time that an answer may take."""
        token = token_credential(self.call.generator.credential)
        if token is None:
            return
        try:
            with TimeoutScope().within(self.timeouts.response_timeout()):
                await token.renew(refused)
        except RequestTimeoutError as error:
            late = RequestTimeoutError(f"the token provider is late: {error}", clock=error.clock)
            late.was_sent = False
            raise late from None

    async def _reserve(self, budget: Budget, estimate: CostEstimate) -> Reservation:
        """Reserve the ceiling of a request, or queue for it as long as an answer may take."""
        asyncio = asyncio_module()
        task = asyncio.current_task()
        reservation = budget.new_reservation(estimate, threads_of_tasks.get(task, task))
        self._reservation = reservation  # before it holds anything, so that no way out forgets it
        reservation.join()
        if reservation.is_waiting:
            decided, secs = asyncio.Event(), self.timeouts.response_timeout().secs
            reservation.when_decided(partial(self.loop.call_soon_threadsafe, decided.set))
            try:
                async with asyncio.timeout(secs):
                    await decided.wait()
            except TimeoutError:
                if reservation.is_waiting:
                    reservation.settle(None)
        reservation.check()
        try:
            self._check_open()
        except InvalidParameterError:  # closed just when the money was there
            reservation.settle(None)
            raise
        return reservation

    def _check_open(self) -> None:
        if self._report is not None:
            raise InvalidParameterError("the stream was closed before its request was sent")

    async def send(self) -> bytes:
        """Make an attempt; return the whole body of its answer."""
        attempt = await self.start_attempt()
        return await attempt.exchange.fetch(self.timeouts.response_timeout())

    def finish(self, body: bytes) -> Completed:
        """Parse, price, validate and record the answer in `body`."""
        pending = self.pending
        assert pending is not None
        try:
            response = self._parse(pending, body)
        except MiniLLMError as error:
            hide_frames(error)  # they hold the decoded body, which is decoded once more
            self.record_failure(error, pending.cost_of_failed(body))
            raise
        return self.accept(response)

    def _parse(self, pending: PendingAttempt, body: bytes) -> CompletionResponse:
        """Parse a whole answer, or the events of a stream that came though none was asked for."""
        try:
            return pending.parse(body)
        except MalformedResponseError:
            found = events_of(body, self.call.generator.limits)
            if found is None or pending.exchange.status != 200:
                raise
        return read_events(pending, self.timeouts, *found)

    def accept(self, response: CompletionResponse) -> Completed:
        """Validate and record a whole answer; raise what the settings reject it with."""
        call, pending = self.call, self.pending
        assert pending is not None
        accept = pending.exchange.accept
        if accept is not None and response.finish_reason not in BROKEN_OFF:
            accept()
        parsed: JsonValue = NOT_PARSED
        if call.needs_validation:
            try:
                response, parsed = validate(call, response)
            except RejectedResponseError as error:
                outcome = AttemptOutcome.REJECTED
                self._settle(pending.record(outcome, response.cost, error, response.id))
                self.call = with_correction(self._original, response, error) or call
                raise
        self._settle(pending.record(AttemptOutcome.ANSWERED, response.cost, None, response.id))
        if retry_quota.is_used:
            retry_quota.give_back(_server_of(self.call.generator.base_url), self._quota_taken)
        request_id = self.attempts[-1].request_id
        msgspec.structs.force_setattr(response, "request_id", request_id)
        msgspec.structs.force_setattr(response, "attempts", self.attempts)
        if self.emitter is not None:
            self.emitter.response = response
        prefix = pending.prefix
        if response.usage is not None and response.usage.prompt_tokens >= MIN_RECORDED_TOKENS:
            prefix = record_prompt(call, self._auth, response, prefix)
        return Completed(response, parsed, prefix)

    def record_failure(self, error: MiniLLMError, cost: CostOutcome | None = None) -> None:
        """Record that the attempt came to nothing; `cost` is what its token counts say."""
        if self.pending is not None:
            self._settle(self.pending.record_failure(error, cost), error)

    async def retry_or_raise(self, error: MiniLLMError) -> None:
        """Return when the next attempt may begin, or raise what ends the completion."""
        self.record_failure(error)
        if self.timeouts.remaining() <= 0:
            self.give_up(error)
        if isinstance(error, StaleConnectionError) and not self._is_resending:
            self._is_resending = True  # not a retry: the server had closed an idle connection
        elif self._turn is not None and isinstance(error, RateLimitError):
            if not self._turn.may_wait(self.timeouts.remaining()):
                self._fall_back(error)
        elif not await self._has_new_credential(error):
            delay = self._retry_delay(error)
            if delay is None:
                self._fall_back(error)
            else:
                self._retries += 1
                self._repeats = self._repeats + 1 if self.call is self._original else 0
                await asyncio_module().sleep(delay)

    def _fall_back(self, error: MiniLLMError) -> None:
        """Go on with the next generator that can be asked, or raise what ends the completion."""
        while self._fallbacks and error.allows_fallback:
            self._failures += (self._describe(error),)
            self._generator, *self._fallbacks = self._fallbacks
            try:
                self._begin(self._original.with_generator(self._generator))
            except MiniLLMError as problem:
                self._record_unasked(problem)
                error = problem
            else:
                return
        self.give_up(error)

    def _begin(self, call: Call) -> None:
        """Begin with the call of a fallback, of which nothing was sent or retried yet."""
        self.call = self._original = call
        self._retries = self._repeats = self._quota_taken = 0
        self._auth = self._turn = None
        self._is_resending = self._has_renewed = False

    def _record_unasked(self, error: MiniLLMError) -> None:
        """Record that no request can be made to a fallback, in place of which the next is asked.

        Of the first generator that is a mistake to tell at once, which a fallback would hide.
        """
        error.allows_fallback = bool(self._failures)
        if self._failures:
            self._append(unsent_attempt(len(self.attempts) + 1, self._generator, error))

    def _describe(self, error: MiniLLMError) -> str:
        return f"{self._generator.label}: {excerpt(str(error))}"

    def give_up(self, error: MiniLLMError) -> NoReturn:
        """Raise what ends the completion, with the record of all attempts."""
        self.record_failure(error)
        if self.emitter is not None:
            self.emitter.error = error
        error.attempts = self.attempts
        hide_frames(error)
        if isinstance(error, BudgetExceededError) or not (self._retries or self._failures):
            raise error
        problem = f"all {len(self.attempts)} attempts failed; the last one: {error}"
        if self._failures:
            failures = "; ".join((*self._failures, self._describe(error)))
            problem = f"all {len(self.attempts)} attempts failed; {failures}"
        exceeded = MaxRetriesExceededError(problem, last_error=error)
        exceeded.attempts = self.attempts
        raise exceeded from error

    def close(self) -> Report:
        """Report the completion, good or bad, once.

        What this returns has no `ends` unless a callback is to be waited for.
        """
        is_first = self._report is None
        report = self.abandon()
        return report if is_first and not self._is_deferred else DONE

    async def settled_cost(self) -> CostInfo:
        """Wait until everything was reported that can be; return what the completion cost."""
        await self.abandon()
        return CostInfo.of(self.attempts)

    def abandon(self) -> Report:
        """Settle the open attempt and report, once, without waiting."""
        self._settle_open()
        if self._report is None:
            self._auth = None  # a task or an error may keep this completion
            self._report = DONE  # so that a callback which leads here again is not called again
            self._report = self._start_report()
            if self.emitter is not None:
                self.emitter.end(self.attempts)
        return self._report

    def _settle_open(self) -> None:
        if self._reservation is not None:
            self._reservation.settle(None)
            self._reservation = None
        if self.pending is not None:
            self._settle(self.pending.record_abandoned())
        elif self._turn is not None:
            self._turn.leave()

    def abandon_threadsafe(self) -> None:
        """Abandon the completion soon, from a destructor in any thread."""
        if not self.loop.is_running():  # and it may not run again
            self._settle_open()
        try:
            self.loop.call_soon_threadsafe(self.abandon)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            self.abandon()

    def _settle(self, attempt: Attempt, error: MiniLLMError | None = None) -> None:
        assert self.pending is not None
        if self._turn is not None:
            self._turn.settle(attempt, self.pending.exchange.headers, error)
        reservation = self.pending.reservation
        if reservation is not None:
            reservation.settle(attempt.cost)
        self.pending = None
        self._append(attempt, reservation)

    def add_earlier(self, attempts: tuple[Attempt, ...]) -> None:
        """Count the attempts that an earlier process made."""
        self.attempts += attempts
        self._origins += ((self.call, None),) * len(attempts)

    def _append(self, attempt: Attempt, reservation: Reservation | None = None) -> None:
        origin = (self.call, reservation)  # both at once: no signal comes in between
        self.attempts, self._origins = (*self.attempts, attempt), (*self._origins, origin)
        _log(attempt)
        if self.emitter is not None:
            self.emitter.end_attempt(attempt)

    def _start_report(self) -> Report:
        settings = self.call.settings
        callback = settings.cost_callback if settings.cost_tracking else None
        if callback is None and settings.budget is None:
            return DONE
        self._is_deferred = any(
            lookup_url(call, attempt)
            for (call, _), attempt in zip(self._origins, self.attempts, strict=True)
        )
        known = CostInfo.of(self.attempts)
        if self._is_deferred:
            return report_deferred(callback, self._fetch_deferred_costs, known)
        return DONE if callback is None else report(callback, known)

    async def _fetch_deferred_costs(self) -> CostInfo:
        calls, known = [call for call, _ in self._origins], self.attempts
        self.attempts = await fetch_deferred_costs(calls, known)
        if self.emitter is not None:
            self.emitter.update_costs(known, self.attempts)
        for (_, reservation), attempt in zip(self._origins, self.attempts, strict=True):
            if reservation is not None:
                reservation.settle(attempt.cost)
        return CostInfo.of(self.attempts)

    async def _has_new_credential(self, error: MiniLLMError) -> bool:
        """Whether a refused credential was replaced since, as a file's may be. Checked once."""
        is_refused = isinstance(error, AuthenticationError) and error.status == 401
        if not is_refused or self._has_renewed:
            return False
        self._has_renewed = True
        try:
            await self._renew_token(self._auth)
            return self.call.generator.credential.resolve() != self._auth
        except MiniLLMError:
            return False

    def _retry_delay(self, error: MiniLLMError) -> float | None:
        """Return the seconds to wait before the next attempt, or None if there is none."""
        settings = self.call.settings
        max_retries = default_retries() if settings.retry is None else settings.retry
        if not error.is_retryable or self._retries >= max_retries:
            return None
        if self.call.result_type is not None and isinstance(error, RejectedResponseError):
            return 0.0  # the server is well, and no waiting makes a wrong answer right
        delay = retry_delay(settings, error, self._retries)
        if delay is None or delay >= self.timeouts.remaining():
            return None
        taken = retry_quota.take(_server_of(self.call.generator.base_url), error)
        self._quota_taken = taken or 0
        return None if taken is None else delay


@lru_cache(maxsize=64)
def _server_of(base_url: str) -> str:
    """Return a server's key in the quota, however its address was written."""
    parts = urlsplit(base_url)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    return f"{parts.hostname}:{port}"


def hide_frames(error: BaseException) -> None:
    """Drop the traceback: its frames hold what the server sent, which may echo a secret.

    A user's own exception keeps its traceback, also as the cause of one of our errors.
    """
    if isinstance(error, MiniLLMError) or not isinstance(error, Exception):
        error.__traceback__ = None
        if error.__cause__ is None:
            error.__context__ = None


def _log(attempt: Attempt) -> None:
    """Log one line at level DEBUG: never a body, a header or anything else that could be secret."""
    if sys.is_finalizing():  # a stream outlives its program; nothing can be imported now
        return
    log = logger()
    if log.isEnabledFor(10):
        url = urlsplit(attempt.url)
        log.debug(
            "POST %s%s: %s, status %s, %d bytes sent, %.3f s, request %s",
            url.netloc, url.path, attempt.outcome.value, attempt.status, attempt.sent_bytes,
            attempt.elapsed_secs, attempt.request_id,
        )  # fmt: skip
