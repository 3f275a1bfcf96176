"""Prices and costs. An unknown cost never looks like a free request."""

import enum
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation, localcontext
from typing import TYPE_CHECKING, Self, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject
from minillmlib.types.money import EXACT, exact_sum
from minillmlib.types.usage import Usage

__all__ = ["MAX_USD", "CostOutcome", "CostResolution", "CostTotal", "TokenPrice"]

ZERO = Decimal(0)
MILLION = Decimal(1_000_000)
MAX_USD = Decimal(10**9)  # far above any price
RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")

Rate: TypeAlias = Decimal | float | str


class CostResolution(enum.Enum):
    """How much is known of a cost."""

    RESOLVED = "resolved"
    """The cost is authoritative: stated by the provider, or tokens times a price."""
    UNPRICED = "unpriced"
    """The tokens are real, but there is no price for them. Not a free request."""
    UNKNOWN = "unknown"
    """Not even the tokens are known."""


class TokenPrice(msgspec.Struct, frozen=True):
    """USD per million tokens, the unit of every price sheet.

    `TokenPrice(1.0, 5.0)` is $1 per million tokens in and $5 out. Numbers become `Decimal`
    by their shortest decimal form, so 0.1 is exactly a tenth. Raises `InvalidParameterError`
    for a rate that is negative or not finite.

    Attributes:
        input: The rate for input that is not in a cache.
        output: The rate for output, including reasoning.
        cache_read: The rate for input read from a cache. Defaults to `input`.
        cache_write: The rate for input written to a cache. Defaults to `input`.
        cache_write_1h: The rate for input written to a cache for an hour. There is no default,
            because vendors charge more for it than for `cache_write`.
        threshold: The number of input tokens above which the whole request costs `next_tier`.
        next_tier: The price above the threshold.
        source: The origin and date of the price.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    threshold: int | None = None
    next_tier: "TokenPrice | None" = None
    source: str | None = None

    # For type checkers only: a Struct generates __init__ from the fields, but rates may be numbers.
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
                msgspec.structs.force_setattr(self, name, _parse_rate(rate, name))
        if (self.threshold is None) != (self.next_tier is None):
            raise InvalidParameterError("a price needs both threshold and next_tier, or neither")
        count = self.threshold
        if count is not None and (type(count) is not int or count < 0):
            raise InvalidParameterError(
                f"the threshold of a price must be a number of tokens, 0 or more, not {count!r}"
            )
        for name, kind in (("next_tier", TokenPrice), ("source", str)):
            if not isinstance(getattr(self, name), kind | None):
                raise InvalidParameterError(f"{name} of a price must be a {kind.__name__}")

    def with_cache_rates(self, read: Rate, write: Rate, write_1h: Rate | None = None) -> Self:
        """Return a copy with rates for cache reads and writes."""
        return msgspec.structs.replace(
            self, cache_read=read, cache_write=write, cache_write_1h=write_1h
        )

    def for_input(self, prompt_tokens: int) -> "TokenPrice":
        """Return the price for a whole request with this much input: this one or a higher tier."""
        if self.next_tier is None or self.threshold is None or prompt_tokens <= self.threshold:
            return self
        return self.next_tier.for_input(prompt_tokens)

    def has_rates_for(self, usage: Usage) -> bool:
        """Whether the price has a rate for every token of `usage`."""
        price = self.for_input(usage.prompt_tokens)
        return usage.non_token_charges is None and (
            usage.cache_write_1h_tokens == 0 or price.cache_write_1h is not None
        )

    def cost_of(self, usage: Usage) -> Decimal:
        """Return the cost of `usage` in USD: a weighted sum of its buckets, never rounded.

        Tokens without a rate (see `has_rates_for`) count as uncached input.
        """
        price = self.for_input(usage.prompt_tokens)
        for_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
        with localcontext(EXACT):
            return (
                usage.uncached_input_tokens * price.input
                + usage.cache_read_tokens * _rate_or(price.cache_read, price.input)
                + for_5m * _rate_or(price.cache_write, price.input)
                + usage.cache_write_1h_tokens * _rate_or(price.cache_write_1h, price.input)
                + usage.completion_tokens * price.output
            ) / MILLION


def _rate_or(rate: Decimal | None, default: Decimal) -> Decimal:
    return default if rate is None else rate


class CostOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The cost of a request in USD, and how much is known of it.

    `cost` is `Decimal(0)` for `UNPRICED` and `UNKNOWN`: check `resolution` first.
    `minimum_usage` is a lower bound for a request of `UNKNOWN` cost: the counts reported before it
    broke. `record` is the provider's record of counts if it cannot be the bill. `source` is the
    origin of the price. Raises `InvalidParameterError` unless `cost` is a `Decimal`, finite and
    not negative.
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
        if isinstance(cost, int) and not isinstance(cost, bool) and cost >= 0:  # also exact
            msgspec.structs.force_setattr(self, "cost", Decimal(cost))
        elif not (isinstance(cost, Decimal) and cost.is_finite() and cost >= 0):
            raise InvalidParameterError(
                f"a cost is a Decimal of USD, finite and not negative, not {self.cost!r}"
            )

    @property
    def is_unknown(self) -> bool:
        """Whether it is not known at all what the request cost."""
        return self.resolution is CostResolution.UNKNOWN

    @classmethod
    def resolved(cls, cost: Decimal, usage: Usage, *, source: str | None = None) -> Self:
        """Return a known cost."""
        return cls(cost=cost, resolution=CostResolution.RESOLVED, usage=usage, source=source)

    @classmethod
    def unpriced(cls, usage: Usage) -> Self:
        """Return the cost of tokens that have no price."""
        return cls(cost=ZERO, resolution=CostResolution.UNPRICED, usage=usage)

    @classmethod
    def unknown(
        cls, *, minimum_usage: Usage | None = None, record: JsonObject | None = None
    ) -> Self:
        """Return an unknown cost."""
        return cls(
            cost=ZERO, resolution=CostResolution.UNKNOWN, minimum_usage=minimum_usage, record=record
        )


class CostTotal(msgspec.Struct, frozen=True, kw_only=True):
    """A sum of costs in USD that counts its missing parts.

    `cost` is the sum of the known costs; `unpriced` and `unknown` count the others.
    """

    cost: Decimal = Decimal(0)
    unpriced: int = 0
    unknown: int = 0

    @classmethod
    def of(cls, outcomes: "Iterable[CostOutcome | None]") -> "CostTotal":
        """Return the sum of the outcomes. None is a request that cannot have been billed."""
        known = [outcome for outcome in outcomes if outcome is not None]
        kinds = [outcome.resolution for outcome in known]
        return cls(
            cost=exact_sum(o.cost for o in known if o.resolution is CostResolution.RESOLVED),
            unpriced=kinds.count(CostResolution.UNPRICED),
            unknown=kinds.count(CostResolution.UNKNOWN),
        )

    @property
    def is_exact(self) -> bool:
        """Whether nothing is missing, so that `cost` is the whole."""
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
                f"{self} is not exact; check is_exact first, or use the known part, cost"
            )
        return float(self.cost)

    def __str__(self) -> str:
        if self.is_exact:
            return f"${self.cost:f}"
        parts = (self.unpriced, "unpriced"), (self.unknown, "unknown")
        missing = [f"{count} {name}" for count, name in parts if count]
        return f"at least ${self.cost:f} ({', '.join(missing)})"


def _parse_rate(rate: object, name: str) -> Decimal:
    try:
        value = Decimal(str(rate))
    except InvalidOperation:
        value = Decimal("NaN")
    if isinstance(rate, bool) or not value.is_finite() or not 0 <= value <= MAX_USD:
        raise InvalidParameterError(
            f"the {name} price must be a number of USD per million tokens, "
            f"from 0 to {MAX_USD}, not {rate!r}"
        )
    return value
