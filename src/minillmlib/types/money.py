"""Amounts of money that no setting of the program rounds."""

from collections.abc import Iterable
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext

__all__ = ["EXACT", "exact_sum", "is_amount"]

# More digits than any price, count or cost has that we take, yet no server can make us write out
# a number of a million digits. A program's own context may round at four, or trap what is inexact.
EXACT = Context(
    prec=1000,
    rounding="ROUND_HALF_EVEN",
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[InvalidOperation, DivisionByZero, Overflow],
)


def is_amount(value: object) -> bool:
    """Whether a value is an amount of money that can be owed."""
    return isinstance(value, Decimal) and value.is_finite() and value >= 0


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """The sum, whatever the decimal context of the caller is."""
    with localcontext(EXACT):
        return sum(amounts, Decimal(0))
