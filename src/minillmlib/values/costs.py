"""Prices and costs. A cost that is not known never looks like a free request."""

import enum
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Self, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.values.usage import Usage

__all__ = ["MOST_USD", "CostOutcome", "CostResolution", "TokenPrice"]

MILLION = Decimal(1_000_000)
MOST_USD = Decimal(10**9)  # far above any price; keeps every product exact

Rate: TypeAlias = Decimal | float | str


class CostResolution(enum.Enum):
    """Whether a cost is known."""

    RESOLVED = "resolved"
    """The cost is authoritative: the provider's own, or tokens times a price."""
    UNPRICED = "unpriced"
    """The tokens are real, but there is no price for them. Not a free request."""
    UNKNOWN = "unknown"
    """Not even the tokens are known."""


class TokenPrice(msgspec.Struct, frozen=True):
    """USD per million tokens, the unit of every price sheet.

    `TokenPrice(1.0, 5.0)` is $1 per million tokens in and $5 out. Numbers become `Decimal`
    by their shortest decimal form, so 0.1 is a tenth. Without cache rates, cached tokens cost
    as much as the others. Raises `InvalidParameterError` unless finite and not negative.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None

    # A Struct has no __init__ of its own; this one tells type checkers what it accepts.
    if TYPE_CHECKING:

        def __init__(
            self,
            input: Rate,  # noqa: A002 - the word of every price sheet
            output: Rate,
            *,
            cache_read: Rate | None = None,
            cache_write: Rate | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            rate = getattr(self, name)
            if rate is not None or name in ("input", "output"):
                msgspec.structs.force_setattr(self, name, _checked_rate(rate, name))

    def with_cache_rates(self, read: Rate, write: Rate) -> Self:
        """The same price with rates of its own for cache reads and writes."""
        return msgspec.structs.replace(self, cache_read=read, cache_write=write)

    def cost_of(self, usage: Usage) -> Decimal:
        """What `usage` costs in USD: a plain weighted sum of its buckets."""
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        return (
            usage.uncached_input_tokens * self.input
            + usage.cache_read_tokens * read
            + usage.cache_write_tokens * write
            + usage.completion_tokens * self.output
        ) / MILLION


class CostOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a request cost in USD, and whether that is known.

    `cost` is `Decimal(0)` beside `UNPRICED` and `UNKNOWN`: look at `resolution` first.
    """

    cost: Decimal
    resolution: CostResolution
    usage: Usage | None = None

    @classmethod
    def resolved(cls, cost: Decimal, usage: Usage) -> Self:
        """The cost is known."""
        return cls(cost=cost, resolution=CostResolution.RESOLVED, usage=usage)

    @classmethod
    def unpriced(cls, usage: Usage) -> Self:
        """The tokens are known, their price is not."""
        return cls(cost=Decimal(0), resolution=CostResolution.UNPRICED, usage=usage)

    @classmethod
    def unknown(cls) -> Self:
        """Nothing is known."""
        return cls(cost=Decimal(0), resolution=CostResolution.UNKNOWN)


def _checked_rate(rate: object, name: str) -> Decimal:
    try:
        value = Decimal(str(rate))
    except InvalidOperation:
        value = Decimal("NaN")
    if isinstance(rate, bool) or not value.is_finite() or not 0 <= value <= MOST_USD:
        raise InvalidParameterError(
            f"the {name} price must be a number of USD per million tokens, "
            f"from 0 to {MOST_USD}, not {rate!r}"
        )
    return value
