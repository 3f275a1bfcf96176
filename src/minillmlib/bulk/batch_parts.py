"""A row of a provider batch, and the part of a run that one batch holds. No I/O."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from minillmlib.bulk.journal import OpenPart, SubmittedRecord, SubmittingRecord
from minillmlib.client.attempt import PendingAttempt
from minillmlib.client.completion import Completed, Completion
from minillmlib.client.http_request import PreparedRequest, build_http_request
from minillmlib.client.prepare import Call
from minillmlib.client.retry import default_retries
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import (
    BadRequestError,
    BudgetExceededError,
    MalformedResponseError,
    MaxRetriesExceededError,
    MiniLLMError,
    ServerTimeoutError,
)
from minillmlib.json_value import plural
from minillmlib.protocols.batches.base import BatchApi, RowResult
from minillmlib.tree.node import ChatNode
from minillmlib.types.budgets import Reservation
from minillmlib.types.costs import CostOutcome

if TYPE_CHECKING:
    from asyncio import Future


class NotSubmitted(msgspec.Struct, frozen=True):
    """The end of a row whose part never came to the server."""


class Refused(msgspec.Struct, frozen=True):
    """The end of a row whose whole batch the server refused, with its reason. Nothing ran."""

    problem: str


class Missing(msgspec.Struct, frozen=True):
    """The end of a row of which the results of its batch say nothing that can be read."""

    state: str
    unreadable: int


MAX_DIGITS = 10  # of a place

Fate: TypeAlias = RowResult | NotSubmitted | Refused | Missing


class RunProblem(Exception):  # noqa: N818 - carries an error, and is none of ours
    """A failure of the run, and of no single item: it ends the run and is not recorded."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class StrangersError(Exception):
    """The results of a batch have more rows of others than the part has rows."""


class Row:
    """An item on its way through batches.

    Attributes:
        key: The name of the item in the journal.
        completion: Its attempts, and what is asked: perhaps with a correction since the last time.
        add_answer: Function that adds the answer to the tree.
        reservation: What the budget holds for it.
        part: The part that it is in.
    """

    part: Part | None = None
    reservation: Reservation | None = None

    def __init__(self, key: str, call: Call, add_answer: Callable[[Completed], ChatNode]) -> None:
        self.key = key
        self.completion = Completion(call)
        self.add_answer = add_answer

    def finish(self, fate: Fate, api: BatchApi, url: str) -> Completed:
        """Return the answer in a result, recorded and paid, or raise what is wrong with it.

        Raises `RunProblem` if it cannot be read now.
        """
        try:
            prepared = build_http_request(self.completion.call)
        except MiniLLMError as problem:  # the key is gone; the result is at the server
            raise RunProblem(problem) from None
        request = msgspec.structs.replace(prepared.request, url=url)
        prepared = msgspec.structs.replace(prepared, request=request)
        pending = self._start(prepared)
        if isinstance(fate, RowResult) and not fate.was_skipped:
            pending.exchange.status = fate.status
            if fate.request_id is not None:
                pending.exchange.headers = {"x-request-id": fate.request_id}
            pending.is_unbilled = fate.status >= 300 and not api.bills_failures
            return self.completion.finish(fate.body)
        pending.is_unbilled = not isinstance(fate, Missing)
        error = _error_of(fate)
        self.completion.record_failure(error)
        raise error

    def _start(self, prepared: PreparedRequest) -> PendingAttempt:
        assert self.part is not None
        number = len(self.completion.attempts) + 1
        reservation, self.reservation = self.reservation, None
        pending = PendingAttempt(
            number, self.completion.call, prepared, reservation, started_at=self.part.sent_at
        )
        pending.exchange.was_sent = True
        self.completion.pending = pending
        return pending

    def may_retry(self, error: MiniLLMError) -> bool:
        """Whether a further batch may have the row after this error."""
        retry = self.completion.call.settings.retry
        max_retries = default_retries() if retry is None else retry
        return error.is_retryable and len(self.completion.attempts) <= max_retries

    def final_error(self, error: MiniLLMError) -> MiniLLMError:
        """Return the error that the row ends with, with all attempts."""
        attempts = error.attempts = self.completion.attempts
        if self.completion.emitter is not None:
            self.completion.emitter.error = error
        if len(attempts) < 2 or isinstance(error, BudgetExceededError):
            return error
        exceeded = MaxRetriesExceededError(
            f"all {len(attempts)} attempts failed; the last one: {error}", last_error=error
        )
        exceeded.__cause__, exceeded.attempts = error, attempts
        return exceeded

    def release(self) -> None:
        """Settle the reservation of a row that is left behind: it may be billed yet."""
        if self.completion.emitter is not None:
            self.completion.emitter.end(self.completion.attempts)
        reservation, self.reservation = self.reservation, None
        if reservation is not None:
            may_be_billed = self.part is not None and self.part.may_be_submitted
            reservation.settle(CostOutcome.unknown() if may_be_billed else None)


def _error_of(fate: Fate) -> MiniLLMError:
    """Return the error of a row without an answer."""
    match fate:
        case Refused(problem):
            return BadRequestError(f"the server refused the batch: {problem}")
        case Missing(state, unreadable):
            lines = ""
            if unreadable:
                lines = f" ({unreadable} {plural('line', unreadable)} of them cannot be read)"
            return MalformedResponseError(
                f"the batch is {state}, but its results have none for this request{lines}; it may "
                "have been billed"
            )
    return ServerTimeoutError("the batch ended before this request ran")


class Part:
    """The rows of one batch, and what became of each.

    Attributes:
        rows: Its rows while they are gathered.
        count: The final number of its rows.
        lines: The encoded rows, until they are submitted.
        closing: Set when no further rows are awaited.
        batch: The batch that holds it, once that is known.
        is_uncertain: Whether a creation was sent whose fate is not known.
        is_driven: Whether a task takes care of it.
        strangers: The number of results in the last reading that are of none of its rows.
        unreadable: The number of those that could not be read.
        foreign: Batches that looked like this part's and have none of its rows.
        empty: The end of its rows if it has one of those that have no rows at all.
        over: Set when the fate of each row is known.
    """

    def __init__(self, opened: OpenPart | None = None) -> None:
        asyncio = asyncio_module()
        self.opened = opened
        self.tag = os.urandom(8).hex() if opened is None else opened.record.part
        self.rows: list[Row] = []
        self.lines: list[bytes] = []
        self.size = 0
        self.closing, self.over = asyncio.Event(), asyncio.Event()
        self.batch: SubmittedRecord | None = None
        self.is_uncertain = opened is not None
        self.is_driven = False
        self.strangers = self.unreadable = 0
        self.foreign: set[str] = set()
        self.empty: Missing | None = None
        self.sent_at = self.last_sent_at = 0.0
        if opened is not None:
            self.sent_at = self.last_sent_at = opened.record.sent_at
            self.batch = opened.batches[-1] if opened.batches else None
        self._waiting: dict[str, Future[Fate]] = {}
        self._results: dict[str, RowResult] = {}  # of rows whose items were not read yet
        self._seen: set[str] = set()
        self.count = 0 if opened is None else len(opened.record.keys)
        self._rest: Fate | None = None  # of all other rows, when it is over
        self._problem: Exception | None = None

    @property
    def has_all(self) -> bool:
        """Whether each row has a result."""
        return len(self._seen) == self.count

    @property
    def has_any(self) -> bool:
        """Whether some row has a result."""
        return bool(self._seen)

    @property
    def may_be_submitted(self) -> bool:
        """Whether the server may have it."""
        return self.batch is not None or self.is_uncertain

    def custom_id(self, place: int) -> str:
        """Return the name of a row at the server."""
        return f"{self.tag}-{place}"

    def add(self, row: Row, line: bytes) -> int:
        """Add a row; return its place."""
        self.rows.append(row)
        self.lines.append(line)
        self.size += len(line) + 1
        self.count += 1
        return self.count - 1

    def to_record(self, url: str, now: float) -> SubmittingRecord:
        """Return the record of the part, which is about to be submitted."""
        self.sent_at = self.last_sent_at = now
        ceilings = [row.reservation.ceiling for row in self.rows if row.reservation is not None]
        attempts = [row.completion.attempts for row in self.rows]
        return SubmittingRecord(
            part=self.tag,
            url=url,
            sent_at=now,
            keys=tuple(row.key for row in self.rows),
            ceilings=tuple(ceilings),
            attempts=tuple(attempts) if any(attempts) else (),
        )

    async def fate_of(self, place: int) -> Fate:
        """Wait for the fate of a row. Raises `RunProblem`."""
        name = self.custom_id(place)
        if name in self._results:
            return self._results.pop(name)
        if self._problem is not None:
            raise RunProblem(self._problem)
        if self._rest is not None:
            return self._rest
        future = self._waiting[name] = asyncio_module().get_running_loop().create_future()
        fate: Fate = await future
        return fate

    def deliver(self, result: RowResult) -> None:
        """Give a result to its row, once. Raises `StrangersError` for too many others."""
        name = result.custom_id
        if not self._has(name):
            self.strangers += 1
            if self.strangers > self.count:
                raise StrangersError
        elif name not in self._seen:
            self._seen.add(name)
            future = self._waiting.pop(name, None)
            if future is None:
                self._results[name] = result
            elif not future.done():
                future.set_result(result)

    def _has(self, name: str) -> bool:
        tag, _, place = name.rpartition("-")
        is_number = place.isascii() and place.isdecimal() and len(place) < MAX_DIGITS
        if tag != self.tag or not is_number or int(place) >= self.count:
            return False
        return name == self.custom_id(int(place))

    def end(self, rest: Fate) -> None:
        """Note that the other rows have this fate."""
        self._rest = rest
        self._wake(lambda future: future.set_result(rest))

    def fail(self, problem: Exception) -> None:
        """Note that the run ends with a problem before the others have any."""
        self._problem = problem
        self._wake(lambda future: future.set_exception(RunProblem(problem)))

    def _wake(self, settle: Callable[[Future[Fate]], object]) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                settle(future)
        self.rows, self.lines = [], []
        self.over.set()
