"""Budgets: limits on the cost of many requests together, with a queue of those that wait."""

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from operator import attrgetter
from typing import NamedTuple, NoReturn

from minillmlib.errors import BudgetExceededError, InvalidParameterError
from minillmlib.json_value import plural
from minillmlib.locks import fork_safe_lock
from minillmlib.types.costs import (
    EXACT,
    ZERO,
    CostEstimate,
    CostOutcome,
    CostResolution,
    equal_shares,
    exact_sum,
    parse_usd,
)
from minillmlib.types.values import check_count, check_kind

Wake = Callable[[], object]

_INFINITE = Decimal("Infinity")


class Budget:
    """A limit in USD on the cost of any number of completions together.

    Before a request is sent, its maximum cost is reserved; once its cost is known, the rest is
    released. A request that does not fit yet waits in line while the requests in progress may
    release enough, at most as long as an answer may take (`timeout_secs`, `deadline_secs`). One
    that cannot fit, or whose maximum cost is unknown, raises `BudgetExceededError` before it is
    sent. If the cost of a request stays unknown, its whole reservation counts as spent. Tasks and
    threads may share a budget.

    Args:
        limit: USD, as a text, a `Decimal` or a whole number.
        parent: Another budget that must cover everything as well.

    Examples:
        >>> generator = GeneratorInfo.openai("gpt-4o-mini").with_token_price(TokenPrice(0.15, 0.60))
        >>> budget = Budget("0.50")
        >>> params = NodeCompletionParameters(budget=budget)
        >>> answer = run(ChatNode.root().chat("Hello", generator, params, max_tokens=100))
        >>> budget.spent == answer.response.cost.cost
        True
    """

    def __init__(self, limit: Decimal | str | int, *, parent: "Budget | None" = None) -> None:
        self.limit: Decimal = parse_usd(
            "a budget such as Budget('0.50')", limit, Decimal | str | int
        )
        check_kind("the parent of a budget", parent, Budget)
        self.parent = parent
        self._account = account = _Account(self.limit)
        self._accounts: tuple[_Account, ...] = (account,)
        self._queue = _Queue()
        if parent is not None:
            self._accounts += parent._accounts  # noqa: SLF001 - another budget
            self._queue = parent._queue  # noqa: SLF001 - as above

    @property
    def spent(self) -> Decimal:
        """The known costs, and the ceilings of the unknown ones."""
        return self._account.sums.spent

    @property
    def reserved(self) -> Decimal:
        """The sum reserved for requests in progress."""
        return self._account.sums.reserved

    @property
    def remaining(self) -> Decimal:
        """The sum that can still be reserved here; a parent may have less.

        Negative if requests cost more than their ceilings.
        """
        with self._queue.lock:
            return self._account.remaining

    def child(self, limit: Decimal | str | int) -> "Budget":
        """Return a smaller budget within this one."""
        return Budget(limit, parent=self)

    def split(self, count: int) -> "list[Budget]":
        """Return so many budgets with equal shares, for processes that spend apart.

        The sum of the shares is exactly the limit. Raises `InvalidParameterError` if anything is
        spent or reserved already, or if there is a parent, which no share could ask.
        """
        check_count(count)
        if self.parent is not None or self._account.sums != _Sums():
            raise InvalidParameterError(
                "only a budget without a parent, of which nothing is spent or reserved yet, can "
                "be split: make a new one of what remains"
            )
        return [Budget(share) for share in equal_shares(self.limit, count)]

    def charge(self, amount: Decimal) -> None:
        """Count an amount that was paid elsewhere as spent, here and in every parent."""
        amount = parse_usd("an amount to charge", amount, Decimal | int)
        with self._queue.lock:
            before = [account.sums for account in self._accounts]
            try:
                for account in self._accounts:
                    account.book(ZERO, amount, 0)
            except BaseException:  # Ctrl-C: all of it, or nothing
                for account, sums in zip(self._accounts, before, strict=True):
                    account.sums = sums
                raise

    def hold(self, ceiling: Decimal) -> "Reservation":
        """Reserve an amount even if it does not fit: for a request that was sent already."""
        reservation = Reservation(self._queue, self._accounts, ceiling, None)
        with self._queue.lock:
            reservation.hold()
        return reservation

    def reserve(self, estimate: CostEstimate) -> "Reservation":
        """Reserve the ceiling at once, here and in every parent, or raise `BudgetExceededError`."""
        with self._queue.lock:
            reservation = self.enqueue(estimate)
            if reservation.is_waiting:
                reservation.settle(None)
        reservation.check()
        return reservation

    def enqueue(self, estimate: CostEstimate, owner: object = None) -> "Reservation":
        """Reserve the ceiling, or queue for it: then the reservation `is_waiting`."""
        reservation = self.new_reservation(estimate, owner)
        reservation.join()
        return reservation

    def new_reservation(self, estimate: CostEstimate, owner: object = None) -> "Reservation":
        """Return a reservation that holds nothing and is not in line: `join` it.

        `owner` is the task that would wait: its own reservations are not released meanwhile.
        Raises `BudgetExceededError` if the ceiling is unknown.
        """
        if estimate.ceiling is None:
            raise BudgetExceededError(
                "a budget needs the maximum cost of a request, and this is missing for it: "
                f"{'; '.join(estimate.missing)}; the request was not sent"
            )
        return Reservation(self._queue, self._accounts, estimate.ceiling, owner)

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a budget cannot be pickled or copied, because its copies would spend the same money "
            "again; parameters that hold it are copied by replace(), and pickled after "
            "replace(budget=None): give each process its share, by budget.split(processes)"
        )

    def __repr__(self) -> str:
        return f"Budget(limit={self.limit}, spent={self.spent}, reserved={self.reserved})"


class Reservation:
    """The sum reserved for one request until its cost is known, or a place in the queue for it.

    The first known cost is final.
    """

    __slots__ = (
        "_is_final", "_is_in_progress", "_queue", "_reserved", "_spent", "_wake", "accounts",
        "ceiling", "error", "is_waiting", "owner",
    )  # fmt: skip

    def __init__(
        self, queue: "_Queue", accounts: "tuple[_Account, ...]", ceiling: Decimal, owner: object
    ) -> None:
        self.accounts = accounts
        self.ceiling = ceiling
        self.owner = owner
        self.error: BudgetExceededError | None = None
        self.is_waiting = True
        self._queue = queue
        self._wake: Wake | None = None
        self._reserved = self._spent = ZERO
        self._is_final = self._is_in_progress = False

    def join(self) -> None:
        """Reserve the ceiling, or queue for it."""
        self._queue.join(self)

    def check(self) -> None:
        """Raise the error with which the reservation was refused."""
        if self.error is not None:
            raise self.error

    def when_decided(self, wake: Wake) -> None:
        """Call `wake`, from any thread, once the reservation no longer waits."""
        with self._queue.lock:
            self._wake = wake
            if not self.is_waiting:
                wake()

    def hold(self) -> None:
        """Take the ceiling from the accounts."""
        before = [account.sums for account in self.accounts]
        try:
            for account in self.accounts:
                account.book(self.ceiling, ZERO, 1)
            self.is_waiting, self._is_in_progress, self._reserved = False, True, self.ceiling
            if self.owner is not None:
                self._queue.held.setdefault(self.owner, set()).add(self)
        except BaseException:  # Ctrl-C: all of it, or nothing
            self._restore(before)
            self.is_waiting, self._is_in_progress, self._reserved = True, False, ZERO
            self._queue.held.get(self.owner, set()).discard(self)
            raise

    def refuse(self) -> None:
        """Leave the queue without a sum; the error lists what is spent and reserved."""
        account = min(self.accounts, key=attrgetter("remaining"))
        count = account.sums.requests
        remaining = f"only {_dollars(account.remaining)}"
        if self.ceiling <= account.remaining:
            remaining = f"others came before it in line, and {_dollars(account.remaining)}"
        self.error = BudgetExceededError(
            f"the request may cost {_dollars(self.ceiling)}, but {remaining} of the budget of "
            f"{_dollars(account.limit)} remain: {_dollars(account.sums.spent)} are spent, and "
            f"{_dollars(account.sums.reserved)} are set aside for {count} "
            f"{plural('request', count)} in progress; it was not sent"
        )
        self.is_waiting, self._is_final = False, True

    def wake(self) -> bool:
        """Wake the task that waits. Return False if its event loop is closed."""
        try:
            if self._wake is not None:
                self._wake()
        except RecursionError:  # a RuntimeError, too
            raise
        except RuntimeError:
            return False
        return True

    def settle(self, cost: CostOutcome | None) -> None:
        """Release the part that was not spent. None stands for a request that cannot be billed.

        An unknown cost keeps the whole ceiling until a later call brings the known one. A
        reservation that waits leaves the queue.
        """
        with self._queue.lock:
            self.release(cost)
            self._queue.serve()

    def release(self, cost: CostOutcome | None = None) -> None:
        """Settle without serving the reservations that wait."""
        if self.is_waiting:
            self.refuse()
            self.wake()
        if self._is_final:
            return
        is_final = cost is None or cost.resolution is CostResolution.RESOLVED
        known = ZERO if cost is None else cost.cost
        spent = known if is_final else self.ceiling
        released = self._reserved.copy_negate()  # a minus sign alone would round
        before = [account.sums for account in self.accounts]
        own = self._is_in_progress, self._reserved, self._spent
        try:
            for account in self.accounts:
                account.book(released, EXACT.subtract(spent, self._spent), -self._is_in_progress)
            self._is_in_progress, self._reserved, self._spent = False, ZERO, spent
            self._is_final = is_final
        except BaseException:  # Ctrl-C: all of it, or nothing
            self._restore(before)
            self._is_in_progress, self._reserved, self._spent = own
            self._is_final = False
            raise
        self._queue.forget(self)

    def _restore(self, sums: "list[_Sums]") -> None:
        for account, before in zip(self.accounts, sums, strict=True):
            account.sums = before


class _Sums(NamedTuple):
    """One value, so that no interrupt changes half of it."""

    spent: Decimal = ZERO
    reserved: Decimal = ZERO
    requests: int = 0  # in progress


class _Account:
    """The sums of one budget. Changed under the lock of its queue only."""

    __slots__ = ("limit", "sums")

    def __init__(self, limit: Decimal) -> None:
        self.limit = limit
        self.sums = _Sums()

    @property
    def remaining(self) -> Decimal:
        return EXACT.subtract(self.limit, EXACT.add(self.sums.spent, self.sums.reserved))

    def book(self, reserved: Decimal, spent: Decimal, requests: int) -> None:
        sums = self.sums
        self.sums = _Sums(
            EXACT.add(sums.spent, spent),
            EXACT.add(sums.reserved, reserved),
            sums.requests + requests,
        )


class _Queue:
    """The reservations that wait for a budget, its parents or its children, first come first."""

    def __init__(self) -> None:
        self.lock = fork_safe_lock()  # guards all of these budgets
        self.held: dict[object, set[Reservation]] = {}  # by the tasks that made them
        self._waiting: deque[Reservation] = deque()

    def join(self, reservation: Reservation) -> None:
        """Decide on a new reservation, or let it wait."""
        with self.lock:
            self._waiting.append(reservation)
            self.serve()

    def serve(self) -> None:
        """Decide on all that can be decided. O(1) while the first one waits for the root."""
        with self.lock:
            while dead := [one for one in self._decide() if not one.wake()]:
                for one in dead:
                    one.release()

    def _decide(self) -> list[Reservation]:
        decided, passed = [], []
        short: set[_Account] = set()  # accounts for which earlier ones wait
        try:
            while self._waiting:
                reservation = self._waiting[0]
                accounts, ceiling = reservation.accounts, reservation.ceiling
                if not reservation.is_waiting:  # it has left
                    self._waiting.popleft()
                    continue
                if any(ceiling > self._available(one, reservation.owner) for one in accounts):
                    reservation.refuse()
                elif short.isdisjoint(accounts) and all(ceiling <= x.remaining for x in accounts):
                    reservation.hold()
                else:
                    passed.append(reservation)
                    self._waiting.popleft()
                    short.update(one for one in accounts if ceiling > one.remaining)
                    if accounts[-1] in short:  # the root, for which all others would wait too
                        break
                    continue
                decided.append(reservation)
                self._waiting.popleft()
        finally:  # also at Ctrl-C, so that none that waits is lost
            self._waiting.extendleft(reversed(passed))
        return decided

    def _available(self, account: _Account, owner: object) -> Decimal:
        """Return the sum that an account has if the requests of all other owners cost nothing."""
        own = (one.ceiling for one in self.held.get(owner, ()) if account in one.accounts)
        return EXACT.subtract(account.limit, exact_sum((account.sums.spent, *own)))

    def forget(self, reservation: Reservation) -> None:
        """Remove a settled reservation from those that its owner holds."""
        owner, reservation.owner = reservation.owner, None
        held = self.held.get(owner, set())
        held.discard(reservation)
        if not held:
            self.held.pop(owner, None)


class LeasedBudget(Budget):
    """A budget whose limit grows as somebody else grants.

    A request that does not fit waits until that one says that no more may come.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self._queue = self._patient = _PatientQueue()

    @property
    def shortfall(self) -> Decimal:
        """USD that the requests in line need beyond what remains; 0 if none waits."""
        with self._queue.lock:
            line = exact_sum(self._patient.ceilings())
            return max(EXACT.subtract(line, self._account.remaining), ZERO) if line else ZERO

    @property
    def unspent(self) -> Decimal:
        """USD that were granted and are not spent."""
        with self._queue.lock:
            return max(EXACT.add(self._account.remaining, self._account.sums.reserved), ZERO)

    def grow(self, amount: Decimal, *, may_come: bool) -> Decimal:
        """Add an amount and serve the line. Return what is of no use to it, and no longer here."""
        with self._queue.lock:
            self._set_limit(EXACT.add(self.limit, amount))
            self._queue.serve()
            unused = self.shrink() if any(self._patient.ceilings()) else ZERO
            self._patient.may_grow = may_come or amount > unused or self._account.sums.requests > 0
            self._queue.serve()
            return unused

    def shrink(self) -> Decimal:
        """Remove what is neither spent nor reserved; return it."""
        with self._queue.lock:
            unused = max(self._account.remaining, ZERO)
            self._set_limit(EXACT.subtract(self.limit, unused))
            return unused

    def _set_limit(self, limit: Decimal) -> None:
        self.limit = self._account.limit = limit


class _PatientQueue(_Queue):
    """A queue in which whatever does not fit waits as long as the limit may grow."""

    may_grow = True

    def ceilings(self) -> list[Decimal]:
        return [one.ceiling for one in self._waiting if one.is_waiting]

    def _available(self, account: _Account, owner: object) -> Decimal:
        return _INFINITE if self.may_grow else super()._available(account, owner)


def _dollars(amount: Decimal) -> str:
    """Return an amount exactly, without zeros at its end."""
    return f"${EXACT.normalize(amount):f}"
