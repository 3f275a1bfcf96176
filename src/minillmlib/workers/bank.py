"""The bank of a job: one rate and one budget, leased to workers bit by bit."""

import time
from collections.abc import Callable
from decimal import Decimal
from typing import NoReturn, Protocol

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.locks import fork_safe_lock
from minillmlib.types.costs import EXACT, ZERO, parse_usd
from minillmlib.types.rates import MARGIN, MINUTE_SECS
from minillmlib.types.values import check_number, check_required_number

LEASE_SECS = 1.0  # of the rate in one lease
SILENT_SECS = 60.0  # after which a worker's money is not expected back


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The requests and the money that a bank grants.

    Attributes:
        requests: The number of requests that may go.
        wait_secs: Seconds until the first of them.
        interval_secs: Seconds between two of them.
        usd: The money, all or a part of what was asked for.
        may_come: Whether other workers hold money that may come back.
    """

    requests: int = 0
    wait_secs: float = 0.0
    interval_secs: float = 0.0
    usd: Decimal = ZERO
    may_come: bool = False

    def __post_init__(self) -> None:
        _check_amount("the requests of a lease", self.requests, is_whole=True)
        for name in ("wait_secs", "interval_secs"):
            _check_amount(f"the {name} of a lease", getattr(self, name))
        parse_usd("the usd of a lease", self.usd, Decimal)


def _check_amount(name: str, value: object, *, is_whole: bool = False) -> None:
    check_required_number(name, value, minimum=0, is_whole=is_whole)


class BankLike(Protocol):
    """A bank, also one of the caller's own or in another process. Its methods may block."""

    def lease(self, worker: str, requests: int, usd: Decimal, held: Decimal) -> Lease:
        """Grant what a worker may send and spend. See `Bank.lease`."""

    def give_back(self, worker: str, usd: Decimal, held: Decimal) -> None:
        """Take back money that a worker did not spend. See `Bank.give_back`."""


def _check_worker(worker: object, usd: object, held: object) -> None:
    if not isinstance(worker, str):
        raise InvalidParameterError(
            f"the name of a worker must be a text, not {type(worker).__name__}"
        )
    parse_usd("the usd of a worker", usd, Decimal)
    parse_usd("the held USD of a worker", held, Decimal)


class Bank:
    """One rate and one budget for any number of workers, who lease what they need.

    One process holds it, as an actor of the data engine or behind a manager of `multiprocessing`;
    `Bulk.bank` makes it. Requests are granted as times on one schedule, 98 % of the rate for all
    workers together. Money is granted once: what a worker that dies had leased is lost to this
    bank, at most the maximum cost of the requests that it had in line and in flight.

    Args:
        requests_per_minute: The most requests of all workers together.
        usd: The most that they may spend together.
        clock: Returns seconds; for tests.

    Examples:
        >>> bank = Bank(requests_per_minute=6000, usd="0.50")
        >>> lease = bank.lease("worker 1", 10, bank.remaining)
        >>> lease.requests, lease.usd, bank.remaining
        (10, Decimal('0.50'), Decimal('0.00'))
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        usd: Decimal | str | int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_number("requests_per_minute", requests_per_minute, minimum=1, is_whole=True)
        self._interval = 0.0
        if requests_per_minute is not None:
            self._interval = MINUTE_SECS / (MARGIN * requests_per_minute)
        self._next_at = -float("inf")
        self._free = None if usd is None else parse_usd("a bank's usd", usd, Decimal | str | int)
        self._held: dict[str, Decimal] = {}
        self._seen_at: dict[str, float] = {}
        self._clock = clock
        self._lock = fork_safe_lock()

    @property
    def remaining(self) -> Decimal | None:
        """USD that nobody has leased, or None without a budget."""
        return self._free

    def lease(self, worker: str, requests: int, usd: Decimal, held: Decimal = ZERO) -> Lease:
        """Grant as many requests as fit into a second, and as much of the money as there is.

        Args:
            worker: The name of the worker, which no other has.
            requests: The number of requests that wait.
            usd: The money that they need.
            held: The money of earlier leases that the worker has not spent. The rest is spent.

        Raises `InvalidParameterError` for anything else, and grants nothing then.
        """
        _check_amount("the requests that a worker leases", requests, is_whole=True)
        _check_worker(worker, usd, held)
        with self._lock:
            now = self._clock()
            self._seen_at[worker] = now
            granted, wait_secs = self._take_slots(requests, now)
            return Lease(
                requests=granted,
                wait_secs=wait_secs,
                interval_secs=self._interval,
                usd=self._take_money(worker, usd, held),
                may_come=self._may_come(worker, now),
            )

    def give_back(self, worker: str, usd: Decimal, held: Decimal = ZERO) -> None:
        """Take back money that a worker did not spend; never more than it has leased.

        Args:
            worker: The name of the worker.
            usd: What it gives back.
            held: What it has not spent beside that. The rest is spent.

        Raises `InvalidParameterError` for anything else.
        """
        _check_worker(worker, usd, held)
        with self._lock:
            known = self._held.get(worker, ZERO)
            if self._free is not None and known:
                returned = min(usd, known)
                self._held[worker] = min(held, EXACT.subtract(known, returned))
                self._free = EXACT.add(self._free, returned)

    def _take_slots(self, requests: int, now: float) -> tuple[int, float]:
        if requests < 1 or not self._interval:
            return requests, 0.0
        granted = min(requests, max(1, int(LEASE_SECS / self._interval)))
        start_at = max(self._next_at, now)
        self._next_at = start_at + granted * self._interval
        return granted, start_at - now

    def _take_money(self, worker: str, usd: Decimal, held: Decimal) -> Decimal:
        if self._free is None:
            return usd
        known = self._held.get(worker, ZERO)
        # What it holds of a bank before this one is not free.
        unknown = min(max(EXACT.subtract(held, known), ZERO), self._free)
        free = EXACT.subtract(self._free, unknown)
        granted = min(usd, free)
        self._free = EXACT.subtract(free, granted)
        self._held[worker] = EXACT.add(min(held, EXACT.add(known, unknown)), granted)
        return granted

    def _may_come(self, worker: str, now: float) -> bool:
        return any(
            amount > 0 and other != worker and now - self._seen_at[other] < SILENT_SECS
            for other, amount in self._held.items()
        )

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a bank cannot be pickled or copied, because its copies would grant the same money "
            "again: hold it in one process, and send a handle with its two methods"
        )
