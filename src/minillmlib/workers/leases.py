"""Leases of the bank of a job, in one of its processes: for the calls that wait, and no more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from decimal import Decimal
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from minillmlib.bulk.run import BulkRun
from minillmlib.client.pacing import serve_line
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import MiniLLMError, StorageError
from minillmlib.types.budgets import LeasedBudget
from minillmlib.types.costs import EXACT, ZERO
from minillmlib.types.pace import Pace
from minillmlib.workers.bank import BankLike, Lease

if TYPE_CHECKING:
    from asyncio import Event, Future

POLL_SECS = 0.05
SIGN_SECS = 10.0  # the longest without a call, so that the bank knows that the worker lives
PATIENCE_SECS = 60.0  # with a bank that does not answer: an engine may start it anew
LAST_SECS = 1.0  # for a call after that


class Leases:
    """Leases the requests and the money for the calls of a process that wait for them.

    `record` gets the money that was leased, less what was given back.
    """

    problem: MiniLLMError | None = None

    def __init__(
        self,
        bank: BankLike,
        worker: str,
        pace: Pace,
        budget: LeasedBudget | None,
        record: Callable[[Decimal], None],
    ) -> None:
        self.bank = bank
        self._worker = worker
        self._pace, self._budget = pace, budget
        self._record = record
        self._granted = ZERO
        self._called_at = time.monotonic()
        self._failing_since: float | None = None
        self._users = 0
        self._is_leasing = Lock()  # parts in several event loops take turns

    @asynccontextmanager
    async def during(self, bulk: BulkRun[Any]) -> AsyncIterator[None]:
        """Lease what the calls of a run need, and in the end give back what is not spent."""
        asyncio = asyncio_module()
        over = asyncio.Event()
        self._users += 1
        task = asyncio.ensure_future(self._keep_up(bulk, over))
        try:
            yield
        finally:
            over.set()  # and no cancellation: a grant would be lost
            try:
                await asyncio.shield(task)
            finally:
                self._users -= 1
            if not self._users and self._budget is not None:
                await self._give_back(self._budget, self._budget.shrink())

    async def _keep_up(self, bulk: BulkRun[Any], over: Event) -> None:
        asyncio = asyncio_module()
        while not over.is_set():
            try:
                await self._lease()
            except (_NoReplyError, StorageError) as error:
                self._failing_since = self._failing_since or time.monotonic()
                if self._remaining_patience() <= 0:
                    self.problem = MiniLLMError(
                        f"the bank of the job has not answered for {PATIENCE_SECS:.0f} s "
                        f"({error}); what waited for it was not sent"
                    )
                    await bulk.aclose()
                    return
            except BaseException:  # else the calls would wait for ever
                await bulk.aclose()
                raise
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECS):
                    await over.wait()

    def _remaining_patience(self) -> float:
        if self._failing_since is None:
            return PATIENCE_SECS
        return PATIENCE_SECS - (time.monotonic() - self._failing_since)

    async def _call(self, method: Callable[..., object], *arguments: object) -> object:
        """Call the bank, and wait for its reply as long as the patience lasts.

        What it grants later is lost to it, like the money of a worker that died. Raises
        `_NoReplyError`.
        """
        asyncio = asyncio_module()
        loop = asyncio.get_running_loop()
        outcome: Future[tuple[object, BaseException | None]] = loop.create_future()

        def settle(reply: object, problem: BaseException | None) -> None:
            if not outcome.done():  # else nobody waits any more
                outcome.set_result((reply, problem))

        def call() -> None:
            reply, problem = None, None
            try:
                reply = method(*arguments)
            except BaseException as error:  # noqa: BLE001 - of a bank of the caller's own
                problem = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, reply, problem)

        began_at = time.monotonic()
        # A daemon: neither the event loop nor the process waits for it in the end.
        run = copy_context().run  # an engine may keep there in which worker it is
        Thread(target=run, args=(call,), name="bank of a job", daemon=True).start()
        try:
            async with asyncio.timeout(max(self._remaining_patience(), LAST_SECS)):
                reply, problem = await outcome
        except TimeoutError:
            self._failing_since = self._failing_since or began_at
            raise _NoReplyError("it does not return") from None
        if problem is not None:
            raise _NoReplyError(type(problem).__name__) from problem
        return reply

    async def _lease(self) -> None:
        """Lease what is wanted now, if anything is."""
        if not self._is_leasing.acquire(blocking=False):
            return
        try:
            requests = self._pace.shortfall
            usd, held = ZERO, ZERO
            if self._budget is not None:
                usd, held = self._budget.shortfall, self._budget.unspent
            now = time.monotonic()
            if requests or usd or now - self._called_at >= SIGN_SECS:
                reply = await self._call(self.bank.lease, self._worker, requests, usd, held)
                self._called_at = time.monotonic()
                await self._use(_check_reply(reply, requests, usd), usd)
                self._failing_since = None
        finally:
            self._is_leasing.release()

    async def _use(self, lease: Lease, usd: Decimal) -> None:
        if lease.requests:
            start_at = asyncio_module().get_running_loop().time() + lease.wait_secs
            self._pace.grant(lease.requests, start_at, lease.interval_secs)
            serve_line(self._pace)
        if self._budget is not None and usd:  # else the bank has not refused any
            if lease.usd:
                self._note(lease.usd)
            unused = self._budget.grow(lease.usd, may_come=lease.may_come)
            if unused:
                await self._give_back(self._budget, unused)

    async def _give_back(self, budget: LeasedBudget, usd: Decimal) -> None:
        with suppress(_NoReplyError, StorageError):  # then the money is lost to the bank
            await self._call(self.bank.give_back, self._worker, usd, budget.unspent)
            if usd:
                self._note(usd.copy_negate())

    def _note(self, usd: Decimal) -> None:
        self._granted = EXACT.add(self._granted, usd)
        self._record(self._granted)


class _NoReplyError(Exception):
    """Why there is no reply of the bank that can be used."""


def _check_reply(reply: object, requests: int, usd: Decimal) -> Lease:
    if not isinstance(reply, Lease):
        raise _NoReplyError(f"the bank returned {type(reply).__name__}, not a Lease")
    if reply.requests > requests or reply.usd > usd:
        raise _NoReplyError("the bank returned a Lease of more than was asked for")
    return reply
