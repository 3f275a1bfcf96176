"""Leases of the bank of a job, in one of its processes: for the calls that wait, and no more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from threading import Lock
from typing import TYPE_CHECKING, Any

from minillmlib.bulk.run import BulkRun
from minillmlib.client.pacing import serve_line
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import MiniLLMError
from minillmlib.types.budgets import LeasedBudget
from minillmlib.types.costs import EXACT, ZERO
from minillmlib.types.pace import Pace
from minillmlib.workers.bank import BankLike, Lease

if TYPE_CHECKING:
    from asyncio import Event

POLL_SECS = 0.05
SIGN_SECS = 10.0  # the longest without a call, so that the bank knows that the worker lives
PATIENCE_SECS = 60.0  # with a bank that does not answer: an engine may start it anew


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
        self._bank, self._worker = bank, worker
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
            await asyncio.shield(task)
            self._users -= 1
            if not self._users and self._budget is not None:
                await self._give_back(self._budget, self._budget.shrink())

    async def _keep_up(self, bulk: BulkRun[Any], over: Event) -> None:
        asyncio = asyncio_module()
        while not over.is_set():
            try:
                await self._lease()
            except Exception as error:  # noqa: BLE001 - of a bank in another process
                if not self._is_patient():
                    self.problem = MiniLLMError(
                        f"the bank of the job has not answered for {PATIENCE_SECS:.0f} s "
                        f"({type(error).__name__}); what waited for it was not sent"
                    )
                    await bulk.aclose()
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECS):
                    await over.wait()

    def _is_patient(self) -> bool:
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        return now - self._failing_since < PATIENCE_SECS

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
                asyncio = asyncio_module()
                lease = await asyncio.to_thread(self._bank.lease, self._worker, requests, usd, held)
                self._called_at, self._failing_since = time.monotonic(), None
                await self._use(lease, usd)
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
        with suppress(Exception):  # the bank is gone: then the money is lost to it
            await asyncio_module().to_thread(
                self._bank.give_back, self._worker, usd, budget.unspent
            )
            if usd:
                self._note(usd.copy_negate())

    def _note(self, usd: Decimal) -> None:
        self._granted = EXACT.add(self._granted, usd)
        self._record(self._granted)
