"""Budgets: money is reserved before it can be spent."""

import threading
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

import msgspec

from minillmlib.errors import BudgetExceededError, InvalidParameterError
from minillmlib.types.costs import CostOutcome, CostResolution
from minillmlib.types.money import EXACT

__all__ = ["Budget", "CostEstimate", "Reservation"]


class CostEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The maximum cost of a request in USD, or the facts that are missing to compute it.

    `ceiling` is None if anything is missing. It is deliberately high: every byte of text counts
    as a token, and the answer has its maximum length.
    """

    ceiling: Decimal | None = None
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ceiling: object = self.ceiling
        if ceiling is not None and not (
            isinstance(ceiling, Decimal) and ceiling.is_finite() and ceiling >= 0
        ):
            raise InvalidParameterError(
                f"a ceiling is a Decimal of USD, finite and not negative, not {self.ceiling!r}"
            )


class Budget:
    """A limit in USD on the cost of any number of completions together.

    Before a request is sent, its maximum cost is reserved; once its cost is known, the rest is
    released. A request that does not fit, or whose maximum cost is unknown, raises
    `BudgetExceededError` before it is sent. If the cost of a request stays unknown, its whole
    reservation counts as spent. Tasks and threads may share a budget.

    Args:
        limit: USD, as a text, a `Decimal` or a whole number.
        parent: Another budget that must cover everything as well.
    """

    def __init__(self, limit: Decimal | str | int, *, parent: "Budget | None" = None) -> None:
        try:
            amount = Decimal(str(limit))
        except InvalidOperation:
            amount = Decimal("NaN")
        if isinstance(limit, bool | float) or not amount.is_finite() or amount < 0:
            raise InvalidParameterError(
                f"a budget is an amount of USD from 0 on, such as Budget('0.50'), not {limit!r}"
            )
        if not isinstance(parent, Budget | None):
            raise InvalidParameterError("the parent of a budget is a Budget")
        self.limit = amount
        self.parent = parent
        self._lock = threading.Lock()
        self._spent = Decimal(0)
        self._reserved = Decimal(0)

    @property
    def spent(self) -> Decimal:
        """The known costs, and the ceilings of the unknown ones."""
        return self._spent

    @property
    def reserved(self) -> Decimal:
        """The sum reserved for requests in progress."""
        return self._reserved

    @property
    def remaining(self) -> Decimal:
        """The sum that can still be reserved here; a parent may have less.

        Negative if requests cost more than their ceilings.
        """
        with self._lock:
            return EXACT.subtract(self.limit, EXACT.add(self._spent, self._reserved))

    def child(self, limit: Decimal | str | int) -> "Budget":
        """Return a smaller budget within this one."""
        return Budget(limit, parent=self)

    def reserve(self, estimate: CostEstimate) -> "Reservation":
        """Reserve the ceiling, here and in every parent, or raise `BudgetExceededError`."""
        if estimate.ceiling is None:
            raise BudgetExceededError(
                "a budget needs the maximum cost of a request, and this is missing for it: "
                f"{'; '.join(estimate.missing)}; the request was not sent"
            )
        chain = self._chain()
        for position, budget in enumerate(chain):
            if not budget._take(estimate.ceiling):  # noqa: SLF001 - another budget
                for earlier in chain[:position]:
                    earlier._settle(estimate.ceiling, Decimal(0))  # noqa: SLF001
                raise BudgetExceededError(
                    f"the request may cost ${estimate.ceiling:f}, but only ${budget.remaining:f} "
                    f"of the budget of ${budget.limit:f} remain; it was not sent"
                )
        return Reservation(self._settle_all, estimate.ceiling)

    def _chain(self) -> "list[Budget]":
        chain = [self]
        while (parent := chain[-1].parent) is not None:
            chain.append(parent)
        return chain

    def _take(self, amount: Decimal) -> bool:
        with self._lock:
            if EXACT.add(EXACT.add(self._spent, self._reserved), amount) > self.limit:
                return False
            self._reserved = EXACT.add(self._reserved, amount)
            return True

    def _settle(self, reserved: Decimal, spent: Decimal) -> None:
        with self._lock:
            self._reserved = EXACT.subtract(self._reserved, reserved)
            self._spent = EXACT.add(self._spent, spent)

    def _settle_all(self, reserved: Decimal, spent: Decimal) -> None:
        for budget in self._chain():
            budget._settle(reserved, spent)  # noqa: SLF001 - another budget

    def __repr__(self) -> str:
        return f"Budget(limit={self.limit}, spent={self._spent}, reserved={self._reserved})"


class Reservation:
    """The sum reserved for one request until its cost is known. The first known cost is final."""

    def __init__(self, settle: Callable[[Decimal, Decimal], None], ceiling: Decimal) -> None:
        self._settle = settle
        self._ceiling = ceiling
        self._is_open = True  # until the request has ended
        self._is_final = False

    def settle(self, cost: CostOutcome | None) -> None:
        """Release the part that was not spent. None stands for a request that cannot be billed.

        An unknown cost keeps the whole ceiling until a later call brings the known one.
        """
        if self._is_final:
            return
        self._is_final = cost is None or cost.resolution is CostResolution.RESOLVED
        known = Decimal(0) if cost is None else cost.cost
        spent = known if self._is_final else self._ceiling
        if self._is_open:
            self._settle(self._ceiling, spent)
        else:
            self._settle(Decimal(0), EXACT.subtract(spent, self._ceiling))
        self._is_open = False
