"""One completion on its way: its attempts, its clocks, its right to try again, its report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import NoReturn
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.secret import Auth
from minillmlib.client.cost_reporting import (
    Reporting,
    log_attempt,
    report,
    report_later,
    waited_for,
)
from minillmlib.client.deferred_cost import has_late_cost, with_late_costs
from minillmlib.client.estimate import estimated
from minillmlib.client.http_request import Encoded, encode
from minillmlib.client.prepare import Call
from minillmlib.client.retry import default_retries, retry_quota, wait_secs
from minillmlib.client.timeouts import Clocks, sleep
from minillmlib.client.validate import Accepted, accept, corrected
from minillmlib.errors import (
    ApiError,
    AuthenticationError,
    BudgetExceededError,
    ConnectError,
    MaxRetriesExceededError,
    MiniLLMError,
    RejectedResponseError,
    StaleConnectionError,
)
from minillmlib.event_loop import running_loop
from minillmlib.json_value import excerpt
from minillmlib.protocols.errors import request_id_of
from minillmlib.transport.exchange import Exchange
from minillmlib.types.attempts import Attempt, AttemptOutcome, CostInfo
from minillmlib.types.budget import Reservation
from minillmlib.types.costs import CostOutcome
from minillmlib.types.responses import CompletionResponse

__all__ = ["Run"]

# A 5xx that says no before any work is done, like the 4xx; and the 4xx that may come after it.
BEFORE_WORK = (503, 529)
MAYBE_WORKED = (408,)


class Run:
    """One completion, from its first attempt to its one report.

    Every attempt is settled exactly once, and no settling ever waits: the record is there before
    control leaves, whatever makes it leave.
    """

    attempts: tuple[Attempt, ...] = ()
    _open: _OpenAttempt | None = None
    _auth: Auth | None = None
    _retries = 0
    _taken = 0  # from the quota, by the last retry
    _was_resent = False
    _was_renewed = False
    _is_reported = False
    _is_late = False  # whether the report waits for what the provider tells later
    _reporting: Reporting = None
    _reservations: tuple[Reservation, ...] = ()

    def __init__(self, call: Call) -> None:
        self.call = call  # with what is wrong with the last answer, if it is asked for again
        self._asked = call
        self.clocks = Clocks(call.settings, stream=call.stream)
        self._loop = running_loop()

    def begin(self) -> tuple[Encoded, Exchange]:
        """The next request. From here on it counts as an attempt."""
        sent = encode(self.call)
        if self._was_resent:
            anew = msgspec.structs.replace(sent.request, on_new_connection=True)
            sent = msgspec.structs.replace(sent, request=anew)
        self._auth = sent.auth
        reservation = self._reserved()
        exchange = Exchange(self.call.transport, sent.request, self.call.generator.limits)
        self._open = _OpenAttempt(len(self.attempts) + 1, self.call, sent, exchange, reservation)
        return sent, exchange

    def _reserved(self) -> Reservation | None:
        """The most that an attempt may cost, set aside in the call's budget."""
        call = self.call
        if call.settings.budget is None:
            return None
        return call.settings.budget.reserve(estimated(call))

    @property
    def headers(self) -> Mapping[str, str]:
        """The response headers of the open attempt, with secrets redacted."""
        return {} if self._open is None else self._open.headers

    def answered(self, response: CompletionResponse) -> Accepted:
        """The whole answer is there and paid for; gives it with the record of all attempts.

        Raises what the settings refuse it with.
        """
        try:
            response, parsed = accept(self.call, response)
        except RejectedResponseError as error:
            self._settle(AttemptOutcome.REJECTED, response.cost, error, response_id=response.id)
            self.call = corrected(self._asked, response, error) or self.call
            raise
        self._settle(AttemptOutcome.ANSWERED, response.cost, response_id=response.id)
        if not retry_quota.is_full:
            retry_quota.give_back(self._server(), self._taken)
        request_id = self.attempts[-1].request_id
        whole = msgspec.structs.replace(response, request_id=request_id, attempts=self.attempts)
        return whole, parsed

    def told(self, response_id: str, cost: CostOutcome | None) -> None:
        """What a stream has told of itself so far, in case that it does not come to its end."""
        if self._open is not None:
            self._open.response_id = response_id or self._open.response_id
            self._open.cost = cost

    def failed(self, error: MiniLLMError, cost: CostOutcome | None = None) -> None:
        """The attempt came to nothing. `cost` is what its counts tell, if there were any."""
        if self._open is None:
            return
        outcome = _outcome_of(error, self._open)
        cost = cost or self._open.cost
        if cost is None and outcome is AttemptOutcome.FAILED:
            cost = CostOutcome.unknown()
        _ = self._open.headers  # which brings the request id
        redact, of_attempt = self._open.redactor.redact, self._open.request_id
        self._open.request_id = None if of_attempt is None else redact(of_attempt)
        told = error.request_id
        error.request_id = self._open.request_id if told is None else redact(told)
        self._settle(outcome, cost, error)

    async def recover(self, error: MiniLLMError) -> None:
        """Returns when the next attempt may begin; raises what ends the completion if none may."""
        self.failed(error)
        left = self.clocks.left()
        if left is not None and left <= 0:
            self.give_up(error)
        if isinstance(error, StaleConnectionError) and not self._was_resent:
            self._was_resent = True  # not a retry: the server had closed an idle connection
        elif not self._has_new_credential(error):
            delay = self._delay(error)
            if delay is None:
                self.give_up(error)
            self._retries += 1
            await sleep(delay)

    def give_up(self, error: MiniLLMError) -> NoReturn:
        """Raises what ends the completion, with the record of all attempts."""
        self.failed(error)
        error.attempts = self.attempts
        _forget_frames(error)
        if self._retries == 0 or isinstance(error, BudgetExceededError):
            raise error
        exceeded = MaxRetriesExceededError(
            f"all {len(self.attempts)} attempts failed; the last one: {error}", last_error=error
        )
        exceeded.attempts = self.attempts
        raise exceeded from error

    async def end(self) -> None:
        """The completion has come to its end, good or bad; waits for the callback, if it must."""
        reporting = self._report()
        if reporting is not None and not self._is_late:
            await waited_for(reporting)

    async def settled(self) -> CostInfo:
        """Waits until everything has been told that can be; what the completion cost."""
        await waited_for(self._report() or self._reporting)
        return CostInfo.of(self.attempts)

    def leave(self) -> None:
        """The caller goes away: settles what is open, and reports, without waiting."""
        self._report()

    def leave_from_anywhere(self) -> None:
        """The same, soon, from a destructor in any thread."""
        try:
            self._loop.call_soon_threadsafe(self.leave)
        except RuntimeError:  # the loop is closed
            self.leave()

    def _report(self) -> Reporting:
        if self._open is not None:
            was_sent = self._open.exchange.was_sent
            cost = self._open.cost or CostOutcome.unknown()
            self._settle(
                AttemptOutcome.ABANDONED if was_sent else AttemptOutcome.NOT_SENT,
                cost if was_sent else None,
            )
        settings = self.call.settings
        callback = settings.cost_callback if settings.cost_tracking else None
        if self._is_reported or (callback is None and settings.budget is None):
            return None
        self._is_reported = True
        callback = callback or _nobody
        self._is_late = any(has_late_cost(self.call, attempt) for attempt in self.attempts)
        if self._is_late:
            self._reporting = report_later(callback, self._late_info, self._info)
        else:
            self._reporting = report(callback, self._info())
        return self._reporting

    def _info(self) -> CostInfo:
        return CostInfo.of(self.attempts)

    async def _late_info(self) -> CostInfo:
        self.attempts = await with_late_costs(self.call, self.attempts)
        for reservation, attempt in zip(self._reservations, self.attempts, strict=False):
            reservation.settle(attempt.cost)
        return self._info()

    def _settle(
        self,
        outcome: AttemptOutcome,
        cost: CostOutcome | None,
        error: MiniLLMError | None = None,
        *,
        response_id: str = "",
    ) -> None:
        if self._open is None:  # settled before: the first outcome stands
            return
        attempt = self._open.settled(outcome, cost, error, response_id)
        if self._open.reservation is not None:
            self._open.reservation.settle(cost)
            self._reservations += (self._open.reservation,)
        self._open = None
        self.attempts += (attempt,)
        log_attempt(attempt)

    def _has_new_credential(self, error: MiniLLMError) -> bool:
        """Whether a refused credential has been replaced since, as a file's may be; asked once."""
        is_refused = isinstance(error, AuthenticationError) and error.status == 401
        if not is_refused or self._was_renewed:
            return False
        self._was_renewed = True
        try:
            return self.call.generator.credential.resolve() != self._auth
        except MiniLLMError:
            return False

    def _delay(self, error: MiniLLMError) -> float | None:
        """Seconds to wait before the next attempt, or None if there shall be none."""
        settings = self.call.settings
        most = default_retries() if settings.retry is None else settings.retry
        if not error.is_retryable or self._retries >= most:
            return None
        if self.call.result_type is not None and isinstance(error, RejectedResponseError):
            return 0.0  # the server is well, and no waiting makes a wrong answer right
        delay = wait_secs(settings, error, self._retries)
        left = self.clocks.left()
        if delay is None or (left is not None and delay >= left):
            return None
        taken = retry_quota.take(self._server(), error)
        if taken is None:
            return None
        self._taken = taken
        return delay

    def _server(self) -> str:
        return _server_of(self.call.generator.base_url)


@lru_cache(maxsize=64)
def _server_of(base_url: str) -> str:
    """A server's address as the quota knows it, however it was written."""
    parts = urlsplit(base_url)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    return f"{parts.hostname}:{port}"


def _nobody(_info: CostInfo) -> None:
    """Is told what a completion cost that has only a budget."""


class _OpenAttempt:
    """An attempt that has not ended."""

    response_id = ""
    request_id: str | None = None
    _headers: Mapping[str, str] | None = None
    cost: CostOutcome | None = None

    def __init__(
        self,
        number: int,
        call: Call,
        sent: Encoded,
        exchange: Exchange,
        reservation: Reservation | None,
    ) -> None:
        self.reservation = reservation
        self.redactor = sent.redactor
        self._number = number
        self._model = call.generator.model
        self._url = sent.request.url
        self._sent_bytes = len(sent.request.body)
        self.exchange = exchange
        self._started_at = time.time()
        self._started = time.monotonic()

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            self._headers = self.redactor.redact_plain(self.exchange.headers)
            self.request_id = request_id_of(self._headers)
        return self._headers

    def settled(
        self,
        outcome: AttemptOutcome,
        cost: CostOutcome | None,
        error: MiniLLMError | None,
        response_id: str,
    ) -> Attempt:
        headers = self.headers
        return Attempt(
            number=self._number,
            url=self._url,
            model=self._model,
            sent_bytes=self._sent_bytes,
            started_at=self._started_at,
            elapsed_secs=time.monotonic() - self._started,
            outcome=outcome,
            status=self.exchange.status,
            request_id=self.request_id,
            response_id=response_id
            or self.response_id
            or excerpt(headers.get("x-generation-id", "")),
            error=None if error is None else type(error).__name__,
            cost=cost,
        )


def _forget_frames(error: BaseException) -> None:
    """Cuts off where an error was: those frames hold what was sent and what a server echoed."""
    error.__traceback__ = None
    if error.__cause__ is None:
        error.__context__ = None
    else:
        _forget_frames(error.__cause__)


def _outcome_of(error: MiniLLMError, attempt: _OpenAttempt) -> AttemptOutcome:
    if isinstance(error, ConnectError) or not attempt.exchange.was_sent:
        return AttemptOutcome.NOT_SENT
    status = attempt.exchange.status or 0
    if isinstance(error, ApiError) and (status in BEFORE_WORK or 300 <= status < 500):
        return AttemptOutcome.FAILED if status in MAYBE_WORKED else AttemptOutcome.DENIED
    return AttemptOutcome.FAILED
