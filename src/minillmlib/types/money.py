"""Amounts of money, independent of the program's decimal context."""

from collections.abc import Iterable
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext

__all__ = ["EXACT", "exact_sum"]

# More digits than any price, count or cost that we accept, but too few for a server to make us
# write out a number of a million digits. The context of a program may round at four digits, or
# trap inexact results.
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


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum in any decimal context of the caller."""
    with localcontext(EXACT):
        return sum(amounts, Decimal(0))
