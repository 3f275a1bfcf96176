"""Prices, costs, and the attempts that cause them.

An unknown cost never looks like a free request.
"""

import enum
from collections.abc import Iterable
from decimal import (
    ROUND_DOWN,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    localcontext,
)
from itertools import chain
from types import UnionType
from typing import TYPE_CHECKING, Self, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, excerpt_of, plural
from minillmlib.types.usage import Usage
from minillmlib.types.values import check_kind, check_number

ZERO = Decimal(0)
MILLION = Decimal(1_000_000)
MIN_PLACES = 4  # that a cost is shown with
COST_DIGITS = 4
SHARE_DIGITS = 3  # more than the amount has, in a part of it
MAX_USD = Decimal(10**9)  # far above any price
BATCH_TIER = "batch"
RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")

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

_WHOLE_OR_EXACT = Decimal | int
Rate: TypeAlias = Decimal | float | str


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum in any decimal context of the caller."""
    with localcontext(EXACT):
        return sum(amounts, Decimal(0))


def parse_usd(
    name: str, amount: object, kinds: UnionType | type, maximum: Decimal | None = None
) -> Decimal:
    """Return an amount of one of these types, or raise `InvalidParameterError`."""
    try:
        value = amount if isinstance(amount, Decimal) else Decimal(str(amount))
    except (InvalidOperation, ValueError):  # of an integer with thousands of digits
        value = Decimal("NaN")
    is_allowed = isinstance(amount, kinds) and not isinstance(amount, bool) and value.is_finite()
    if not is_allowed or value < 0 or (maximum is not None and value > maximum):
        bounds = "finite and not negative" if maximum is None else f"from 0 to {maximum}"
        raise InvalidParameterError(
            f"{name} must be an amount of USD, {bounds}, not {excerpt_of(amount)}"
        )
    return value


class CostResolution(enum.Enum):
    """How much is known of a cost."""

    RESOLVED = "resolved"
    """The cost is authoritative: stated by the provider, or tokens times a price."""
    UNPRICED = "unpriced"
    """The tokens are real, but there is no price for them. Not a free request."""
    UNKNOWN = "unknown"
    """Not even the tokens are known."""


class TokenPrice(msgspec.Struct, frozen=True):
    """USD per million tokens: `TokenPrice(1.0, 5.0)` is $1 per million in and $5 out.

    Numbers become `Decimal` by their shortest decimal form, so 0.1 is exactly a tenth. Raises
    `InvalidParameterError` for a rate that is negative or not finite.

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
        service_tier: The tier that the price is for, as the answer names it; None is the standard
            one. A request that another tier served is `UNPRICED`.
        covers: The surcharges (`Usage.surcharges`) for which the rates hold too, such as
            "audio tokens". A request with any other is `UNPRICED`.

    Examples:
        >>> TokenPrice(1.0, 5.0).cost_of(Usage(uncached_input_tokens=1000, completion_tokens=100))
        Decimal('0.0015')
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    threshold: int | None = None
    next_tier: "TokenPrice | None" = None
    source: str | None = None
    service_tier: str | None = None
    covers: tuple[str, ...] = ()

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
            service_tier: str | None = None,
            covers: tuple[str, ...] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in RATES:
            rate = getattr(self, name)
            if rate is not None or name in ("input", "output"):
                rate = parse_usd(f"the {name} price per million tokens", rate, object, MAX_USD)
                msgspec.structs.force_setattr(self, name, rate)
        if (self.threshold is None) != (self.next_tier is None):
            raise InvalidParameterError("a price needs both threshold and next_tier, or neither")
        check_number("the threshold of a price", self.threshold, minimum=0, is_whole=True)
        check_kind("the next_tier of a price", self.next_tier, TokenPrice)
        check_kind("the source of a price", self.source, str)
        check_kind("the service_tier of a price", self.service_tier, str)
        check_kind("what a price covers", self.covers, tuple)

    def with_cache_rates(self, read: Rate, write: Rate, write_1h: Rate | None = None) -> Self:
        """Return a copy with rates for cache reads and writes."""
        return msgspec.structs.replace(
            self, cache_read=read, cache_write=write, cache_write_1h=write_1h
        )

    def for_batch(self, share: Rate = "0.5", service_tier: str | None = None) -> "TokenPrice":
        """Return the price of a request in a provider's batch: a share of each rate.

        `service_tier` is how answers of the batch name their tier. A price whose own tier is
        "batch" already is the price of a batch; one of another tier stays as it is.
        """
        if self.service_tier not in (None, BATCH_TIER):
            return self
        if self.service_tier == BATCH_TIER:
            return msgspec.structs.replace(self, service_tier=service_tier)
        part = parse_usd("the share of a price", share, object, Decimal(1))
        rates = {name: getattr(self, name) for name in RATES}
        return msgspec.structs.replace(
            self,
            **{name: rate and EXACT.multiply(rate, part) for name, rate in rates.items()},
            next_tier=self.next_tier and self.next_tier.for_batch(part),
            source=self.source and f"{self.source}, {part} of it in a batch",
            service_tier=service_tier,
        )

    def for_input(self, prompt_tokens: int) -> "TokenPrice":
        """Return the price for a whole request with this much input: this one or a higher tier."""
        if self.next_tier is None or self.threshold is None or prompt_tokens <= self.threshold:
            return self
        return self.next_tier.for_input(prompt_tokens)

    def has_rates_for(self, usage: Usage) -> bool:
        """Whether the price has a rate for every token of `usage`, in the tier that served it."""
        price = self.for_input(usage.prompt_tokens)
        return (
            usage.non_token_charges is None
            and usage.service_tier == self.service_tier
            and not (usage.surcharges and set(usage.surcharges).difference(self.covers))
            and (usage.cache_write_1h_tokens == 0 or price.cache_write_1h is not None)
        )

    def cost_of(self, usage: Usage) -> Decimal:
        """Return the cost of `usage` in USD: a weighted sum of its buckets, never rounded.

        Tokens without a rate (see `has_rates_for`) count as uncached input.
        """
        price = self.for_input(usage.prompt_tokens)
        total = EXACT.multiply(usage.uncached_input_tokens, price.input)
        for_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
        for count, rate in (
            (usage.cache_read_tokens, price.cache_read),
            (for_5m, price.cache_write),
            (usage.cache_write_1h_tokens, price.cache_write_1h),
            (usage.completion_tokens, price.output),
        ):
            total = EXACT.fma(count, price.input if rate is None else rate, total)
        return EXACT.divide(total, MILLION)


class CostOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The cost of a request in USD, and how much is known of it.

    `cost` is `Decimal(0)` for `UNPRICED` and `UNKNOWN`: check `resolution` first.
    `minimum_usage` is a lower bound for a request of `UNKNOWN` cost: the counts reported before it
    broke; `minimum_cost` is what they cost, 0 without a price. `record` is the provider's record
    of counts if it cannot be the bill. `source` is the origin of the price, or the field or header
    that states the cost. Raises `InvalidParameterError` unless the costs are `Decimal`, finite and
    not negative.
    """

    cost: Decimal
    resolution: CostResolution
    usage: Usage | None = None
    minimum_usage: Usage | None = None
    minimum_cost: Decimal = ZERO
    record: JsonObject | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if self.cost is not ZERO:  # as in all without a price
            cost = parse_usd("a cost", self.cost, _WHOLE_OR_EXACT)
            msgspec.structs.force_setattr(self, "cost", cost)
        if self.minimum_cost is not ZERO:
            cost = parse_usd("a minimum cost", self.minimum_cost, _WHOLE_OR_EXACT)
            msgspec.structs.force_setattr(self, "minimum_cost", cost)

    @property
    def is_unknown(self) -> bool:
        """Whether it is not known at all what the request cost."""
        return self.resolution is CostResolution.UNKNOWN

    def reprice(self, price: TokenPrice) -> "CostOutcome":
        """Return the cost of the same tokens at another price. See `CostInfo.reprice`."""
        if not isinstance(price, TokenPrice):
            raise InvalidParameterError(
                f"a price must be a TokenPrice, not {type(price).__name__}: does the generator "
                "have one (with_token_price, with_published_price)?"
            )
        if self == FROM_CACHE:
            return self
        usage = self.usage
        if usage is None or not usage.prompt_tokens:  # not counted, though the cost may be known
            least = price.cost_of(self.minimum_usage or Usage())
            return self.unknown(minimum_usage=self.minimum_usage, minimum_cost=least)
        if not price.has_rates_for(usage):
            return self.unpriced(usage)
        return self.resolved(price.cost_of(usage), usage, source=price.source)

    def shares(self, count: int) -> "list[CostOutcome]":
        """Return `count` outcomes with equal parts of this cost, whose sum is exact.

        `usage` stays that of the whole request: nothing says whose its tokens are.
        """
        amounts = zip(
            equal_shares(self.cost, count), equal_shares(self.minimum_cost, count), strict=True
        )
        return [
            msgspec.structs.replace(self, cost=cost, minimum_cost=minimum)
            for cost, minimum in amounts
        ]

    def __str__(self) -> str:
        if self.resolution is CostResolution.RESOLVED:
            return f"${self.cost:f}"
        usage = self.usage or self.minimum_usage
        return self.resolution.value if usage is None else f"{self.resolution.value} ({usage})"

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
        cls,
        *,
        minimum_usage: Usage | None = None,
        minimum_cost: Decimal = ZERO,
        record: JsonObject | None = None,
    ) -> Self:
        """Return an unknown cost."""
        return cls(
            cost=ZERO,
            resolution=CostResolution.UNKNOWN,
            minimum_usage=minimum_usage,
            minimum_cost=minimum_cost,
            record=record,
        )


FROM_CACHE = CostOutcome.resolved(ZERO, Usage(), source="an answer cache")


def equal_shares(amount: Decimal, count: int) -> list[Decimal]:
    """Return equal parts of an amount; the first has what the division leaves."""
    part = _part(amount, count)
    return [first_share(amount, count), *[part] * (count - 1)]


def first_share(amount: Decimal, count: int) -> Decimal:
    """Return the first of the `equal_shares`."""
    if count == 1:
        return amount
    return EXACT.subtract(amount, EXACT.multiply(_part(amount, count), Decimal(count - 1)))


def _part(amount: Decimal, count: int) -> Decimal:
    unit = Decimal(1).scaleb(min(_exponent(amount), 0) - SHARE_DIGITS)
    return EXACT.divide(amount, Decimal(count)).quantize(unit, ROUND_DOWN, EXACT)


def _exponent(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _outcomes_of(value: "CostOutcome | CostInfo | None") -> "list[CostOutcome]":
    if isinstance(value, CostInfo):
        return [attempt.cost for attempt in value.attempts if attempt.cost is not None]
    return [] if value is None else [value]


class CostTotal(msgspec.Struct, frozen=True, kw_only=True):
    """A sum of costs in USD that counts its missing parts.

    `cost` is the sum of the known costs and of the minimum costs of unknown ones; `unpriced` and
    `unknown` count the requests that may have cost more.

    Examples:
        >>> print(CostTotal.of([CostOutcome.unknown()]))
        at least $0 (1 unknown)
    """

    cost: Decimal = Decimal(0)
    unpriced: int = 0
    unknown: int = 0

    @classmethod
    def of(cls, outcomes: "Iterable[CostOutcome | CostInfo | None]") -> "CostTotal":
        """Return the sum of the outcomes. None is a request that cannot have been billed.

        A `CostInfo` counts with each of its attempts.
        """
        known = list(chain.from_iterable(map(_outcomes_of, outcomes)))
        kinds = [outcome.resolution for outcome in known]
        return cls(
            cost=exact_sum(
                o.cost if o.resolution is CostResolution.RESOLVED else o.minimum_cost for o in known
            ),
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


def total_words(total: CostTotal) -> str:
    """Return a sum of costs in a few words; never an amount if no cost is known."""
    if total.is_exact:
        return _dollars(total.cost)
    if total.cost:
        return f"at least {_dollars(total.cost)}"
    return "cost unknown" if total.unknown else "cost unknown (no price set)"


def _dollars(cost: Decimal) -> str:
    """Return the amount in plain digits, with at least four significant ones."""
    places = max(MIN_PLACES, COST_DIGITS - 1 - cost.adjusted())
    return "$" + f"{cost:.{places}f}".rstrip("0").rstrip(".")


class AttemptOutcome(enum.StrEnum):
    """How one attempt ended."""

    ANSWERED = "answered"
    """A whole answer arrived and was accepted."""
    REJECTED = "rejected"
    """A whole answer arrived, but the settings of the call do not accept it."""
    DENIED = "denied"
    """The server denied the request before it did any work."""
    FAILED = "failed"
    """No whole answer arrived. The server may have worked and billed."""
    ABANDONED = "abandoned"
    """The caller cancelled the call, or closed or dropped the stream."""
    NOT_SENT = "not_sent"
    """Nothing left this machine."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One request, from start to end.

    `number` counts from 1, `started_at` is in seconds since 1970, and `sent_bytes` is the size of
    the body. `status` is None if no response arrived. `error` is the name of the error's class.
    `cost` is None if nothing can have been billed. `share_of` is the number of answers that the
    request was for: with several, `cost` is the share of one, while `usage` counts for all.
    `generator` is the name of the generator, which with a fallback tells who was asked.
    `cached_cost` is set if the answer came from a cache: what it cost when it was paid for, which
    no sum counts again; `cost` is then 0.
    """

    number: int
    url: str
    model: str
    sent_bytes: int
    started_at: float
    elapsed_secs: float
    outcome: AttemptOutcome
    status: int | None = None
    request_id: str | None = None
    response_id: str = ""
    error: str | None = None
    cost: CostOutcome | None = None
    share_of: int = 1
    generator: str = ""
    cached_cost: CostOutcome | None = None

    def shares(self, count: int) -> "list[Attempt]":
        """Return the attempt once for each of `count` answers, with equal parts of its cost.

        The parts are exact: their sum is the cost.
        """
        parts = (
            [None] * count if cost is None else cost.shares(count)
            for cost in (self.cost, self.cached_cost)
        )
        return [
            msgspec.structs.replace(self, cost=cost, share_of=count, cached_cost=cached)
            for cost, cached in zip(*parts, strict=True)
        ]

    @property
    def is_from_cache(self) -> bool:
        """Whether the answer came from a cache, and nothing was sent."""
        return self.cached_cost is not None

    @property
    def was_sent(self) -> bool:
        """Whether any part of the request may have reached the server."""
        return self.outcome is not AttemptOutcome.NOT_SENT and not self.is_from_cache

    def reprice(self, price: TokenPrice) -> CostOutcome | None:
        """Return what the request would have cost at another price. See `CostInfo.reprice`.

        The share of one of several answers is rounded up.
        """
        return self.cost and self.cost.reprice(price).shares(self.share_of)[0]


class CostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one completion, with all its attempts, in USD and tokens.

    `cost` and the counts are sums of the known parts, lower bounds included. They are complete
    only if `resolution` is `RESOLVED`; check it first. `attempts` lists every request, including
    failed and rejected ones.

    Examples:
        >>> generator = GeneratorInfo.openai("gpt-4o-mini").with_token_price(TokenPrice(0.15, 0.60))
        >>> params = NodeCompletionParameters().with_cost_callback(print)
        >>> answer = run(ChatNode.root().chat("Hello", generator, params))
        $0.0000021 in 1 attempt
    """

    cost: Decimal
    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    resolution: CostResolution
    attempts: tuple[Attempt, ...] = ()

    @classmethod
    def of(cls, attempts: tuple[Attempt, ...]) -> "CostInfo":
        """Return the sum over the attempts. If none can have been billed, it is a resolved zero."""
        costs = [attempt.cost for attempt in attempts if attempt.cost is not None]
        usages = [cost.usage or cost.minimum_usage or Usage() for cost in costs]
        resolutions = {cost.resolution for cost in costs}
        gaps = (CostResolution.UNKNOWN, CostResolution.UNPRICED)
        return cls(
            cost=CostTotal.of(costs).cost,
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            cache_read_tokens=sum(usage.cache_read_tokens for usage in usages),
            cache_write_tokens=sum(usage.cache_write_tokens for usage in usages),
            resolution=next((gap for gap in gaps if gap in resolutions), CostResolution.RESOLVED),
            attempts=attempts,
        )

    def reprice(self, price: TokenPrice) -> CostTotal:
        """Return what the same tokens would have cost at another price.

        Another model would count other tokens and write other answers, so this is no forecast.
        What had no counts stays unknown, and tokens for which `price` has no rate are unpriced, as
        are fees besides the tokens. Answers from a cache cost nothing again.

        Examples:
            >>> generator = GeneratorInfo.openai("gpt-4o-mini")
            >>> answer = run(ChatNode.root().chat("Hello", generator))
            >>> print(CostInfo.of(answer.response.attempts).reprice(TokenPrice(3, 15)))
            $0.000045
        """
        return CostTotal.of(attempt.reprice(price) for attempt in self.attempts)

    def __str__(self) -> str:
        count = len(self.attempts)
        return f"{CostTotal.of([self])} in {count} {plural('attempt', count)}"


class CostEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The maximum cost of a request in USD, or the facts that are missing to compute it.

    `ceiling` is None if anything is missing. It is deliberately high: every byte of text counts
    as a token, and the answer has its maximum length.
    """

    ceiling: Decimal | None = None
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ceiling is not None:
            parse_usd("a ceiling", self.ceiling, Decimal)
