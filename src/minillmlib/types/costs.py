"""Prices and costs. A cost that is not known never looks like a free request."""

import enum
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation, localcontext
from typing import TYPE_CHECKING, Self, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject
from minillmlib.types.money import EXACT, is_amount
from minillmlib.types.usage import Usage

__all__ = ["MOST_USD", "CostOutcome", "CostResolution", "CostTotal", "TokenPrice"]

ZERO = Decimal(0)
MILLION = Decimal(1_000_000)
MOST_USD = Decimal(10**9)  # far above any price
RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")

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
    by their shortest decimal form, so 0.1 is a tenth. Raises `InvalidParameterError` unless
    finite and not negative.

    Attributes:
        input: Of the input that no cache holds.
        output: Of all that the model writes, its thoughts included.
        cache_read: Of the input read from a cache; like other input unless set.
        cache_write: Of the input written to a cache; like other input unless set.
        cache_write_1h: Of the input written for an hour. Tokens of that kind have no price
            unless it is set: vendors ask more for them than for `cache_write`.
        threshold: Above so many tokens of input, the whole request costs `next_tier`.
        next_tier: The price from there on.
        source: Where the price comes from, and as of which date.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    threshold: int | None = None
    next_tier: "TokenPrice | None" = None
    source: str | None = None

    # A Struct has no __init__ of its own; this one tells type checkers what it accepts.
    if TYPE_CHECKING:

        def __init__(  # noqa: PLR0913 - the fields
            self,
            input: Rate,  # noqa: A002 - the word of every price sheet
            output: Rate,
            *,
            cache_read: Rate | None = None,
            cache_write: Rate | None = None,
            cache_write_1h: Rate | None = None,
            threshold: int | None = None,
            next_tier: "TokenPrice | None" = None,
            source: str | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in RATES:
            rate = getattr(self, name)
            if rate is not None or name in ("input", "output"):
                msgspec.structs.force_setattr(self, name, _checked_rate(rate, name))
        if (self.threshold is None) != (self.next_tier is None):
            raise InvalidParameterError("a price has a threshold and a price above it, or neither")
        _check_threshold(self.threshold)
        for name, kind in (("next_tier", TokenPrice), ("source", str)):
            if not isinstance(getattr(self, name), kind | None):
                raise InvalidParameterError(f"{name} of a price must be a {kind.__name__}")

    def with_cache_rates(self, read: Rate, write: Rate, write_1h: Rate | None = None) -> Self:
        """The same price with rates of its own for cache reads and writes."""
        return msgspec.structs.replace(
            self, cache_read=read, cache_write=write, cache_write_1h=write_1h
        )

    def for_input(self, prompt_tokens: int) -> "TokenPrice":
        """The price of a request with so much input: of the whole, not of the part above."""
        if self.next_tier is None or self.threshold is None or prompt_tokens <= self.threshold:
            return self
        return self.next_tier.for_input(prompt_tokens)

    def has_rates_for(self, usage: Usage) -> bool:
        """Whether there is a rate for every token of `usage`."""
        price = self.for_input(usage.prompt_tokens)
        return usage.non_token_charges is None and (
            usage.cache_write_1h_tokens == 0 or price.cache_write_1h is not None
        )

    def cost_of(self, usage: Usage) -> Decimal:
        """What `usage` costs in USD: a plain weighted sum of its buckets, never rounded.

        Tokens for which there is no rate (see `has_rates_for`) count as other input.
        """
        price = self.for_input(usage.prompt_tokens)
        for_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
        with localcontext(EXACT):
            return (
                usage.uncached_input_tokens * price.input
                + usage.cache_read_tokens * _or(price.cache_read, price.input)
                + for_5m * _or(price.cache_write, price.input)
                + usage.cache_write_1h_tokens * _or(price.cache_write_1h, price.input)
                + usage.completion_tokens * price.output
            ) / MILLION


def _or(rate: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if rate is None else rate


class CostOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a request cost in USD, and whether that is known.

    `cost` is `Decimal(0)` beside `UNPRICED` and `UNKNOWN`: look at `resolution` first.
    `minimum_usage` is what a request whose bill is `UNKNOWN` consumed at least, as far as it was
    reported before it broke. `record` is the provider's own record of counts where it cannot be
    taken for the bill. `source` says where a price came from.
    Raises `InvalidParameterError` unless `cost` is a `Decimal`, finite and not negative.
    """

    cost: Decimal
    resolution: CostResolution
    usage: Usage | None = None
    minimum_usage: Usage | None = None
    record: JsonObject | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        cost: object = self.cost
        if cost is ZERO:
            return
        if isinstance(cost, int) and not isinstance(cost, bool):  # exact, too
            msgspec.structs.force_setattr(self, "cost", Decimal(cost))
        if not is_amount(self.cost):
            raise InvalidParameterError(
                f"a cost is a Decimal of USD, finite and not negative, not {self.cost!r}"
            )

    @classmethod
    def resolved(cls, cost: Decimal, usage: Usage, *, source: str | None = None) -> Self:
        """The cost is known."""
        return cls(cost=cost, resolution=CostResolution.RESOLVED, usage=usage, source=source)

    @classmethod
    def unpriced(cls, usage: Usage) -> Self:
        """The tokens are known, their price is not."""
        return cls(cost=ZERO, resolution=CostResolution.UNPRICED, usage=usage)

    @classmethod
    def unknown(
        cls, *, minimum_usage: Usage | None = None, record: JsonObject | None = None
    ) -> Self:
        """Nothing is known for sure."""
        return cls(
            cost=ZERO, resolution=CostResolution.UNKNOWN, minimum_usage=minimum_usage, record=record
        )


class CostTotal(msgspec.Struct, frozen=True, kw_only=True):
    """A sum of costs in USD that says what is missing in it.

    `cost` is the sum of what is known; `unpriced` and `unknown` count the parts that are not.
    """

    cost: Decimal = Decimal(0)
    unpriced: int = 0
    unknown: int = 0

    @classmethod
    def of(cls, outcomes: "Iterable[CostOutcome | None]") -> "CostTotal":
        """The sum of some outcomes; None is a request that cannot have been billed."""
        return sum((_total_of(outcome) for outcome in outcomes), cls())

    @property
    def is_exact(self) -> bool:
        """Whether nothing is missing: only then `cost` is the whole."""
        return not self.unpriced and not self.unknown

    def __add__(self, other: object) -> "CostTotal":
        if not isinstance(other, CostTotal):
            return NotImplemented
        return CostTotal(
            cost=EXACT.add(self.cost, other.cost),
            unpriced=self.unpriced + other.unpriced,
            unknown=self.unknown + other.unknown,
        )

    def __float__(self) -> float:
        if not self.is_exact:
            raise InvalidParameterError(
                f"not a number: {self}; see is_exact, cost is its known part"
            )
        return float(self.cost)

    def __str__(self) -> str:
        if self.is_exact:
            return f"${self.cost:f}"
        missing = [
            f"{count} {what}"
            for count, what in ((self.unpriced, "unpriced"), (self.unknown, "unknown"))
            if count
        ]
        return f"at least ${self.cost:f} ({', '.join(missing)})"


_UNPRICED, _UNKNOWN = CostTotal(unpriced=1), CostTotal(unknown=1)


def _total_of(outcome: CostOutcome | None) -> CostTotal:
    if outcome is None:
        return CostTotal()
    if outcome.resolution is CostResolution.RESOLVED:
        return CostTotal(cost=outcome.cost)
    return _UNPRICED if outcome.resolution is CostResolution.UNPRICED else _UNKNOWN


def _check_threshold(threshold: object) -> None:
    if threshold is None:
        return
    if not isinstance(threshold, int) or isinstance(threshold, bool) or threshold < 0:
        raise InvalidParameterError(
            f"the threshold of a price is a number of tokens, not {threshold!r}"
        )


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
